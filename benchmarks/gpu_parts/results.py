"""Results of one part: rows that are on disk as soon as they are measured, and their table."""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Results:
    """Rows of a part, in one JSON file that is replaced whole after each row.

    A part that is killed leaves every row that it has measured. A row that fails holds its error instead of
    figures, and the part goes on.
    """

    def __init__(self, file: Path, part: str, limit: float) -> None:
        self.file, self.part = file, part
        self.started = time.monotonic()
        self.limit = limit
        self.facts: dict[str, Any] = {}
        self.rows: list[Row] = []
        self.finished = False
        self.write()

    def left(self) -> float:
        """Seconds until the part should end."""
        return self.limit - (time.monotonic() - self.started)

    def add(self, **row: Any) -> Row:
        """Keep a row and print it."""
        row["at_seconds"] = round(time.monotonic() - self.started, 1)
        self.rows.append(row)
        self.write()
        print(f"{self.part:<9} {line_of(row)}", flush=True)
        return row

    def fact(self, **facts: Any) -> None:
        """Keep what holds for all rows."""
        self.facts |= facts
        self.write()

    @contextlib.contextmanager
    def attempt(self, **names: Any) -> Generator[Row]:
        """Measure one row: the body fills it; if the body raises, the row says why and the part goes on."""
        row: Row = dict(names)
        try:
            yield row
        except Exception as error:
            self.add(**names, error=reason(error))
            if os.environ.get("T5SMITH_GPU_TRACEBACK"):
                traceback.print_exc()
        else:
            self.add(**row)

    def run(self, steps: list[tuple[str, Callable[[], None]]]) -> None:
        """Do the steps of a part in order, the most valuable first, while there is time."""
        for name, step in steps:
            if self.left() <= 0:
                self.add(what=name, skipped="no time left")
                continue
            try:
                step()
            except Exception as error:
                self.add(what=name, error=reason(error))
        self.finished = True
        self.write()

    def write(self) -> None:
        """Replace the file."""
        tree = {
            "part": self.part,
            "finished": self.finished,
            "seconds": round(time.monotonic() - self.started, 1),
            "facts": self.facts,
            "rows": self.rows,
        }
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.file)


def reason(error: BaseException) -> str:
    """The first lines of an error, short enough for a table."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def line_of(row: Row) -> str:
    """A row on one line."""
    return "  ".join(f"{name} {shown(value)}" for name, value in row.items() if name != "at_seconds")


def shown(value: object) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def tables(tree: dict[str, Any]) -> list[str]:
    """A part's file as Markdown: a table for each set of rows with the same `what`."""
    title = f"## {tree['part']}" + ("" if tree["finished"] else " (cut off)")
    lines = [title, ""]
    lines += [
        f"- {name}: {shown(value)}" for name, value in tree["facts"].items() if not isinstance(value, dict)
    ]
    groups: dict[str, list[Row]] = {}
    for row in tree["rows"]:
        groups.setdefault(str(row.get("what", "")), []).append(row)
    for what, rows in groups.items():
        hidden = {"what", "at_seconds", "error", "skipped", "samples"}
        names = list(dict.fromkeys(name for row in rows for name in row if name not in hidden))
        notes = any("error" in row or "skipped" in row for row in rows)
        head = [*names, *(["note"] if notes else [])]
        lines += ["", f"### {what}" if what else "", ""]
        lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        for row in rows:
            cells = [shown(row[name]) if name in row else "" for name in names]
            if notes:
                cells.append(str(row.get("error") or row.get("skipped") or "").replace("|", "/"))
            lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]
