"""What a run writes down while it trains: JSON lines, one a step, and one each held-out measurement.

A file is cut back to the checkpoint when training resumes, so that it reads as if nothing had happened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from t5smith.base.artifact import disk_errors, write_atomically
from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn

STEPS = "metrics.jsonl"
HELD_OUT = "heldout.jsonl"
EVENTS = "events.jsonl"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a metrics file; a half-written last line is left out.

    Raises:
      T5smithError: a line other than the last is not JSON.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise T5smithError("damaged line", where=f"{path}:{number}", expected="JSON") from None
    return rows


class MetricsFile:
    """A JSON lines file of rows, each with a `step`, that may be behind: a full disk is waited for."""

    def __init__(self, path: Path, keep: Callable[[Mapping[str, Any]], bool]) -> None:
        """Open for appending, keeping the rows that `keep` says."""
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._waiting: list[str] = []
        self._complained = False
        self.cut_back(keep)

    def cut_back(self, keep: Callable[[Mapping[str, Any]], bool]) -> None:
        """Go back to the rows that `keep` says."""
        self.flush(must=True)
        with disk_errors(self.path):
            self.rows = [row for row in read_rows(self.path) if keep(row)]
            write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
            self._whole = self.path.stat().st_size

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, which is on disk after the next flush."""
        self.rows.append(dict(row))
        self._waiting.append(json.dumps(row) + "\n")

    def flush(self, *, must: bool = False) -> None:
        """Hand what was written to the operating system.

        If the disk has no room the rows are kept for the next time, which is said once, unless they `must`
        be written now.

        Raises:
          T5smithError: the disk refuses, and it must not.
        """
        if not self._waiting:
            return
        text = "".join(self._waiting).encode()
        try:
            with disk_errors(self.path), self.path.open("r+b") as file:
                # What a failed try left is written over.
                file.truncate(self._whole)
                file.seek(self._whole)
                file.write(text)
        except T5smithError as error:
            if must:
                raise
            if not self._complained:
                warn(f"{error.where}: {error.what}; training goes on, and figures are kept for later")
            self._complained = True
            return
        self._whole += len(text)
        self._waiting.clear()
        self._complained = False

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *error: object) -> None:
        """Write what is left."""
        self.flush()


def up_to(step: int) -> Callable[[Mapping[str, Any]], bool]:
    """Keeps the rows up to a step."""
    return lambda row: row["step"] <= step
