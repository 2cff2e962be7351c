"""What a run writes down while it trains: JSON lines, one a step, and one each held-out measurement.

A file is cut back to the checkpoint when training resumes, so that it reads as if nothing had happened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from t5smith.artefact import disk_errors, write_atomically
from t5smith.errors import T5smithError

STEPS = "metrics.jsonl"
HELD_OUT = "heldout.jsonl"


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
    """A JSON lines file that grows by rows with a `step`."""

    def __init__(self, path: Path, resume_at: int) -> None:
        """Open for appending, keeping the rows up to step `resume_at`."""
        with disk_errors(path):
            kept = [row for row in read_rows(path) if row["step"] <= resume_at]
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
            self.rows = kept
            self.path = path
            self.file: IO[str] = path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        with disk_errors(self.path):
            self.rows.append(dict(row))
            self.file.write(json.dumps(row) + "\n")

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        with disk_errors(self.path):
            self.file.flush()

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *error: object) -> None:
        """Flush and close."""
        with disk_errors(self.path):
            self.file.close()
