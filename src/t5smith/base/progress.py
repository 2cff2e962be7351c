"""Progress of a stage: one live line on a terminal, plain lines in a pipe.

Everything goes to stderr; stdout is for results.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from t5smith.base.wrapping import hanging_indent

SECONDS_BETWEEN_LINES = 10.0
WIDE = 100
"""Terminals with fewer columns get a shorter bar, to have room for the figures."""

stderr = Console(stderr=True, highlight=False)


def info(message: str) -> None:
    """Print a line, above the live line if there is one."""
    stderr.print(hanging_indent(Text(message), stderr), soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning."""
    stderr.print(hanging_indent(Text.assemble(("warning: ", "bold yellow"), message), stderr), soft_wrap=True)


def count(number: float) -> str:
    """A short form of a number: 950, 12.3k, 4.56M."""
    if abs(number) < 9_999.5:
        return f"{number:,.0f}"
    thousands = 0
    # Compare the rounded number, so that 999,700 is 1M and not 1e+03k.
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

    def __init__(
        self, title: str, total: int | None, unit: str, done: int, notes: Iterable[str] = ()
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.started_at, self.start, self.done = time.monotonic(), done, done
        self.last_line = self.started_at
        self.last_state: tuple[int, str] | None = None
        self.notes = dict.fromkeys(notes, "")
        self.show: Progress | None = None
        self.task: TaskID | None = None

    def advance(self, amount: int = 1, **notes: str) -> None:
        """Add `amount` to what is done, and show notes such as loss="6.91" beside it; "" hides a note."""
        self.done += amount
        self.notes.update(notes)
        if self.show is not None and self.task is not None:
            self.show.update(self.task, completed=self.done, tail=self.tail())
        # A stage that has just reached its total prints its last line soon.
        elif time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES and not (
            amount and self.done == self.total
        ):
            self.last_line = time.monotonic()
            self.last_state = self.state()
            info(self.line())

    def amount(self) -> str:
        """The amount done, and the total."""
        if self.total:
            return f"{count(self.done)}/{count(self.total)} {self.unit}"
        return f"{count(self.done)} {self.unit.removesuffix('s') if self.done == 1 else self.unit}"

    def clock(self) -> str:
        """The time left, or the time so far if that is unknown."""
        elapsed = time.monotonic() - self.started_at
        fresh = self.done - self.start
        if self.total and fresh and self.done < self.total:
            return f"{duration(elapsed / fresh * (self.total - self.done))} left"
        return duration(elapsed)

    def figures(self) -> Iterator[str]:
        """The notes, with the rate first: a narrow terminal cuts off the last of them."""
        if rate := self.notes.get("rate"):
            yield rate
        yield from (f"{name} {value}" for name, value in self.notes.items() if value and name != "rate")

    def tail(self) -> str:
        """The text after the bar."""
        return "  ".join((self.clock(), *self.figures()))

    def state(self) -> tuple[int, str]:
        """The contents of a line without the time."""
        return self.done, "  ".join(self.figures())

    def line(self) -> str:
        """The state as one plain line."""
        return f"{self.title:<9} {self.amount()}  {self.tail()}"

    def lines(self, width: int) -> str:
        """The state in lines of at most `width` cells, broken between figures."""
        lines = [f"{self.title:<9} {self.amount()}"]
        for figure in (self.clock(), *self.figures()):
            if cell_len(lines[-1]) + 2 + cell_len(figure) <= width:
                lines[-1] += f"  {figure}"
            else:
                lines.append(" " * 10 + figure)
        return "\n".join(lines)


class _Count(ProgressColumn):
    def __init__(self, bar: Bar) -> None:
        longest = len(count(bar.total)) if bar.total and bar.total < 9_999.5 else 5
        of = len(f"/{count(bar.total)}") if bar.total else 0
        # Wide enough that the text after it does not move while the number grows.
        super().__init__(Column(no_wrap=True, min_width=longest + of + 1 + len(bar.unit)))
        self.bar = bar

    def render(self, task: Task) -> Text:
        return Text(self.bar.amount())


@contextlib.contextmanager
def progress(
    title: str, total: int | None = None, unit: str = "", done: int = 0, notes: Iterable[str] = ()
) -> Generator[Bar]:
    """Show the progress of a stage while the body runs. The last state stays on the screen.

    Args:
      title: name of the stage.
      total: the amount of work, if it is known.
      unit: of the amounts, in the plural.
      done: the amount that was done before.
      notes: names of notes, in the order in which they are shown.
    """
    bar = Bar(title, total, unit, done, notes)
    if not stderr.is_interactive:  # a pipe, or a terminal that cannot redraw a line
        try:
            yield bar
        finally:
            if bar.last_state != bar.state():
                info(bar.line())
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=8 if stderr.width >= WIDE else 4),
        _Count(bar),
        TextColumn(
            "{task.fields[tail]}", style="cyan", markup=False, table_column=Column(no_wrap=True, ratio=1)
        ),
    )
    mark = Text("  ")
    try:
        with Progress(
            *columns, console=stderr, refresh_per_second=4, expand=True, transient=True
        ) as bar.show:
            bar.task = bar.show.add_task(title, total=total, completed=done, tail="")
            yield bar
        mark = Text("✓ ", "green")
    finally:
        # The live line is cut at the width of the terminal; the last state is wrapped.
        lines = bar.lines(stderr.width - 2).replace("\n", "\n  ")
        stderr.print(mark + Text(lines), soft_wrap=True)
