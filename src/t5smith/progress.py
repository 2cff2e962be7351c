"""What the person sees while a stage works: one live line on a terminal, plain lines on a pipe.

All of it goes to stderr; stdout is for results.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0

stderr = Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """A line for the person, above the progress display if there is one."""
    stderr.print(message, markup=False, soft_wrap=not stderr.is_terminal)


def warn(message: str) -> None:
    """A line that should not be missed."""
    stderr.print(Text.assemble(("warning: ", "bold yellow"), message), soft_wrap=not stderr.is_terminal)


def count(number: float) -> str:
    """A number as people read it: 950, 12.3k, 4.56M."""
    if abs(number) < 9_999.5:
        return f"{number:,.0f}"
    thousands = 0
    # Compared as it will be shown, so that 999,700 is 1M and not 1e+03k.
    while abs(float(f"{number:.3g}")) >= 1000 and thousands < 4:
        number, thousands = number / 1000, thousands + 1
    return f"{float(f'{number:.3g}'):g}{' kMGT'[thousands]}"


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


class Bar:
    """The progress of one stage."""

    def __init__(self, title: str, total: int | None, unit: str, done: int) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.started_at, self.start, self.done = time.monotonic(), done, done
        self.last_line = self.started_at
        self.notes: dict[str, str] = {}
        self.show: Progress | None = None
        self.task: TaskID | None = None

    def advance(self, amount: int = 1, **notes: str) -> None:
        """`amount` more of the unit is done; `notes` are shown beside it, such as loss="6.91"."""
        self.done += amount
        self.notes.update(notes)
        if self.show is not None and self.task is not None:
            self.show.update(self.task, completed=self.done, tail=self.tail())
        elif time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            say(self.line())

    def tail(self) -> str:
        """What stands behind the bar: the time left, and the stage's own figures."""
        elapsed = time.monotonic() - self.started_at
        fresh = self.done - self.start
        if self.total and fresh and self.done < self.total:
            clock = f"{duration(elapsed / fresh * (self.total - self.done))} left"
        else:
            clock = duration(elapsed)
        # A narrow terminal cuts the end off, so the time comes first.
        figures = (value if name == "rate" else f"{name} {value}" for name, value in self.notes.items())
        return "  ".join((clock, *figures))

    def line(self) -> str:
        """The state as one plain line."""
        of = f"/{count(self.total)}" if self.total else ""
        return f"{self.title:<9} {count(self.done)}{of} {self.unit}  {self.tail()}"


class _Count(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__(Column(no_wrap=True, min_width=12 + len(unit)))
        self.unit = unit

    def render(self, task: Task) -> Text:
        of = f"/{count(task.total)}" if task.total else ""
        return Text(f"{count(task.completed)}{of} {self.unit}")


@contextlib.contextmanager
def progress(title: str, total: int | None = None, unit: str = "", done: int = 0) -> Generator[Bar]:
    """Show the progress of a stage while the body runs; its last state stays on the screen."""
    bar = Bar(title, total, unit, done)
    if not stderr.is_interactive:  # a pipe, or a terminal that cannot redraw a line
        try:
            yield bar
        finally:
            say(bar.line())
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=8),
        _Count(unit),
        TextColumn(
            "{task.fields[tail]}", style="cyan", markup=False, table_column=Column(no_wrap=True, ratio=1)
        ),
    )
    with Progress(*columns, console=stderr, refresh_per_second=4, expand=True) as show:
        bar.show, bar.task = show, show.add_task(title, total=total, completed=done, tail="")
        yield bar
        if total is None:
            show.update(bar.task, total=bar.done, completed=bar.done)
        show.update(bar.task, tail=bar.tail())
