"""What is noted of the files themselves: how many there are of each format, and those without a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from t5smith.base.progress import info, warn
from t5smith.base.wrapping import pluralize

MAX_SHOWN = 3
"""Files without a record that are printed."""
MAX_LISTED = 1_000
"""Files without a record that the manifest lists, and files whose records are counted apart; the number of
files without a record, and of records, is of all."""


@dataclass
class FileNotes:
    """Files of some blocks, or of the whole text.

    Attributes:
      formats: number of files of each format.
      without_records: names of files in which there was nothing, neither documents nor skipped records.
      empty: number of these.
      records: of each file the documents, before cleaning, and the skipped records by kind.
      unlisted: number of records of all files beyond MAX_LISTED.
    """

    formats: Counter[str] = field(default_factory=Counter[str])
    without_records: list[str] = field(default_factory=list[str])
    empty: int = 0
    records: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    unlisted: int = 0

    def count(self, file: str, documents: int, skipped: Mapping[str, int]) -> None:
        """Add records of a file, of the first MAX_LISTED files."""
        if file not in self.records and len(self.records) >= MAX_LISTED:
            self.unlisted += documents + sum(skipped.values())
            return
        own = self.records.setdefault(file, {"documents": 0, "skipped": {}})
        own["documents"] += documents
        own["skipped"] = dict(sorted((Counter(own["skipped"]) + Counter(skipped)).items()))

    def merge(self, facts: Mapping[str, Any]) -> None:
        """Add the files of another part of the text, as :meth:`facts` returns them."""
        self.formats.update(facts["formats"])
        self.without_records = [*self.without_records, *facts["without_records"]][:MAX_LISTED]
        self.empty += facts["empty"]
        for file, own in facts.get("records", {}).items():
            self.count(file, own["documents"], own["skipped"])
        self.unlisted += facts.get("unlisted", 0)

    def facts(self) -> dict[str, Any]:
        """Numbers and names for the note of a shard and the manifest."""
        return {
            "formats": dict(sorted(self.formats.items())),
            "records": self.records,
            "unlisted": self.unlisted,
            "empty": self.empty or len(self.without_records),
            "without_records": self.without_records[:MAX_LISTED],
        }

    def report(self) -> None:
        """Print a mixture of formats, and warn of files in which there was nothing."""
        if len(self.formats) > 1:
            of_each = ", ".join(f"{count:,} {name}" for name, count in self.formats.most_common())
            info(f"prepare   files of {len(self.formats)} formats: {of_each}")
        if self.empty:
            names = ", ".join(self.without_records[:MAX_SHOWN]) + ", …" * (self.empty > MAX_SHOWN)
            warn(f"{pluralize(self.empty, 'file')} without any text: {names}")
