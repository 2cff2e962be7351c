"""What folders have beside the text that is read: side files, and other splits of a data set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t5smith.base.progress import info, warn
from t5smith.base.wrapping import pluralize

MAX_SHOWN = 4
"""Names of side files that are printed."""
MAX_LISTED = 1000
"""Files that the manifest lists; the counts are of all."""


@dataclass
class FolderNotes:
    """What was found in folders and is not read.

    Attributes:
      side_files: the kind of each, by its path; that of a folder ends in `/`.
      data_sets: of each folder that is a data set: which part of it is read.
      others: the files of these folders that are not read: which part they are, by their path.
      mixed_splits: folders whose names suggest splits, all of which are read, with some of the names.
    """

    side_files: dict[str, str] = field(default_factory=dict[str, str])
    data_sets: dict[str, str] = field(default_factory=dict[str, str])
    others: dict[str, str] = field(default_factory=dict[str, str])
    mixed_splits: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def forget(self, files: Collection[str]) -> None:
        """Remove files that another pattern names, so that they are read."""
        for skipped in (self.side_files, self.others):
            for file in skipped.keys() & files:
                del skipped[file]

    def report(self) -> None:
        """Print what is not read."""
        for folder, part in self.data_sets.items():
            counts = Counter(kind for file, kind in self.others.items() if Path(folder) in Path(file).parents)
            beside = ", ".join(
                f"{kind} ({pluralize(count, 'file')})" for kind, count in sorted(counts.items())
            )
            info(f"text      {folder} is a data set: {part}" + (f"; not read: {beside}" if beside else ""))
        if self.side_files:
            verb = "is" if len(self.side_files) == 1 else "are"
            info(f"text      {self.summary().replace(' (', f' {verb} not read (', 1)}")
        for folder, names in self.mixed_splits.items():
            warn(
                f"{folder} has files of several splits ({', '.join(names)}), and all of them are read; "
                f"name hf:{folder}:train to read one split"
            )

    def summary(self) -> str:
        """How many side files there are, with some names."""
        names = _names(self.side_files)
        more = f" and {len(self.side_files) - MAX_SHOWN:,} more" if len(names) > MAX_SHOWN else ""
        return f"{pluralize(len(self.side_files), 'side file')} ({', '.join(names[:MAX_SHOWN])}{more})"

    def facts(self) -> dict[str, Any]:
        """Counts and names for the manifest; empty if there is nothing."""
        skipped = self.side_files | self.others
        if not skipped and not self.data_sets:
            return {}
        return {
            "counts": dict(sorted(Counter(skipped.values()).items())),
            "files": sorted(skipped)[:MAX_LISTED],
            "data_sets": dict(sorted(self.data_sets.items())),
        }


def _names(files: Iterable[str]) -> list[str]:
    """Names without their folders, each once; hidden ones last."""
    names = {os.path.basename(file.rstrip("/")) + ("/" if file.endswith("/") else "") for file in files}
    return sorted(names, key=lambda name: (name.startswith("."), name))
