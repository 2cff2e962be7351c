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
MAX_LISTED = 1000
"""Files without a record that the manifest lists; the number is of all."""


@dataclass
class FileNotes:
    """Files of some blocks, or of the whole text.

    Attributes:
      formats: number of files of each format.
      without_records: names of files in which there was nothing, neither documents nor skipped records.
      empty: number of these.
    """

    formats: Counter[str] = field(default_factory=Counter[str])
    without_records: list[str] = field(default_factory=list[str])
    empty: int = 0

    def merge(self, facts: Mapping[str, Any]) -> None:
        """Add the files of another part of the text, as :meth:`facts` returns them."""
        self.formats.update(facts["formats"])
        self.without_records = [*self.without_records, *facts["without_records"]][:MAX_LISTED]
        self.empty += facts["empty"]

    def facts(self) -> dict[str, Any]:
        """Numbers and names for the note of a shard and the manifest."""
        return {
            "formats": dict(sorted(self.formats.items())),
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
