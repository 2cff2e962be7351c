"""Progress of a stage: one live line on a terminal, plain lines in a pipe.

Everything goes to stderr; stdout is for results.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from t5smith.base.units import about, count, duration
from t5smith.base.wrapping import hanging_indent

__all__ = [
    "Bar",
    "Live",
    "about",
    "count",
    "duration",
    "info",
    "live_now",
    "progress",
    "shown",
    "ticking",
    "warn",
]

SECONDS_BETWEEN_LINES = 10.0
NOTICEABLE_SECONDS = 2.0
"""When a pipe gets the first line; a phase that took less leaves no line on a terminal."""
TICK_SECONDS = 1.0
WIDE = 100
"""Terminals with fewer columns get a shorter bar, to have room for the figures."""

stderr = Console(stderr=True, highlight=False)


def info(message: str) -> None:
    """Print a line, above the live line if there is one."""
    stderr.print(hanging_indent(Text(message), stderr), soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning."""
    stderr.print(hanging_indent(Text.assemble(("warning: ", "bold yellow"), message), stderr), soft_wrap=True)


class Live:
    """What is shown of work while it runs: a title, the time, and what it is doing beside its main work."""

    def __init__(self, title: str) -> None:
        self.title, self.started_at = title, time.monotonic()
        self.last_line, self.announced = self.started_at, False
        self.doing: tuple[str, float] | None = None

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started_at

    @contextlib.contextmanager
    def during(self, text: str) -> Generator[None]:
        """Show what is done while the body runs, with its time."""
        before, self.doing = self.doing, (text, time.monotonic())
        try:
            yield
        finally:
            self.doing = before

    def now(self) -> str:
        """What is being done beside the main work, or ""."""
        doing = self.doing
        return f"{doing[0]} {duration(time.monotonic() - doing[1])}" if doing else ""

    def line(self) -> str:
        """The state as one plain line."""
        raise NotImplementedError

    def print_line(self) -> None:
        """Print the state, in a pipe."""
        self.last_line, self.announced = time.monotonic(), True
        info(self.line())

    def tick(self) -> None:
        """Print the state if the work has become noticeable, and then if the last line is old enough."""
        wait = SECONDS_BETWEEN_LINES if self.announced else min(NOTICEABLE_SECONDS, SECONDS_BETWEEN_LINES)
        if time.monotonic() - self.last_line >= wait:
            self.print_line()


LONGEST_FIGURE = 40  # cells; what is longer is text, which may be cut
live_now: list[Live] = []
"""What is shown now; the screen has room for one."""


@contextlib.contextmanager
def shown(live: Live) -> Generator[None]:
    """Note that this is on the screen while the body runs."""
    live_now.append(live)
    try:
        yield
    finally:
        live_now.remove(live)


@contextlib.contextmanager
def ticking(action: Callable[[], None]) -> Generator[None]:
    """Call `action` every `TICK_SECONDS` while the body runs, which may be one long wait."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(TICK_SECONDS):
            action()

    thread = threading.Thread(target=tick, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Bar(Live):
    """The progress of one stage."""

    def __init__(
        self, title: str, total: int | None, unit: str, done: int, notes: Iterable[str] = ()
    ) -> None:
        super().__init__(title)
        self.total, self.unit, self.start, self.done = total, unit, done, done
        self.last_state: tuple[int, str] | None = None
        self.notes = dict.fromkeys(notes, "")
        self.show: Progress | None = None
        self.task: TaskID | None = None
        self.ended = False
        self._expected: tuple[float, float] | None = None

    def expect(self, seconds: float) -> None:
        """Set the time left, for work whose parts do not take equally long."""
        self._expected = seconds, time.monotonic()

    def resize(self, total: int) -> None:
        """Set another total."""
        self.total = total
        if self.show is not None and self.task is not None:
            self.show.update(self.task, total=total)

    def advance(self, amount: int = 1, **notes: str) -> None:
        """Add `amount` to what is done, and show notes such as loss="6.91" beside it; "" hides a note."""
        self.done += amount
        self.notes.update(notes)
        if self.show is not None and self.task is not None:
            self.show.update(self.task, completed=self.done)
        # A stage that has just reached its total prints its last line soon.
        elif not (amount and self.done == self.total):
            self.tick()

    def print_line(self) -> None:
        """Print the state, in a pipe."""
        self.last_state = self.state()
        super().print_line()

    def amount(self) -> str:
        """The amount done, and the total."""
        if self.total:
            return f"{count(self.done)}/{count(self.total)} {self.unit}"
        return f"{count(self.done)} {self.unit.removesuffix('s') if self.done == 1 else self.unit}"

    def clock(self) -> str:
        """The time left; the time so far if that is unknown, or the work has ended."""
        if self.total and self.done < self.total and not self.ended:
            fresh, expected = self.done - self.start, self._expected
            if expected is not None:
                return f"{about(expected[0] - (time.monotonic() - expected[1]))} left"
            if fresh:
                return f"{about(self.elapsed() / fresh * (self.total - self.done))} left"
        return duration(self.elapsed())

    def figures(self) -> Iterator[str]:
        """The notes, with the rate first: a narrow terminal cuts off the last of them."""
        if rate := self.notes.get("rate"):
            yield rate
        yield from (f"{name} {value}" for name, value in self.notes.items() if value and name != "rate")

    def parts(self) -> Iterator[str]:
        """What is shown after the bar."""
        if now := self.now():
            yield now
        yield self.clock()
        yield from self.figures()

    def state(self) -> tuple[int, str]:
        """The contents of a line without the time."""
        return self.done, "  ".join(self.figures())

    def line(self) -> str:
        """The state as one plain line."""
        return "  ".join((f"{self.title:<9} {self.amount()}", *self.parts()))

    def lines(self, width: int) -> str:
        """The state in lines of at most `width` cells, broken between figures."""
        lines = [f"{self.title:<9} {self.amount()}"]
        for figure in (self.clock(), *self.figures()):
            if cell_len(lines[-1]) + 2 + cell_len(figure) <= width:
                lines[-1] += f"  {figure}"
            else:
                lines.append(" " * 10 + figure)
        return "\n".join(lines)


class _Fitting:
    """Of some parts of a line the first ones, as many as fit into its width; only a long text is cut."""

    def __init__(self, parts: Iterable[str]) -> None:
        self.parts = list(parts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self.parts[0]
        for part in self.parts[1:]:
            room = options.max_width - cell_len(f"{shown}  ")
            if room < cell_len(part) <= LONGEST_FIGURE:
                break
            shown += f"  {part}"
        yield Text(shown, "cyan", no_wrap=True, overflow="ellipsis")


class _Parts(ProgressColumn):
    def __init__(self, bar: Bar) -> None:
        super().__init__(Column(no_wrap=True, ratio=1))
        self.bar = bar

    def render(self, task: Task) -> RenderableType:
        return _Fitting(self.bar.parts())


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
            with shown(bar), ticking(bar.tick):
                yield bar
        finally:
            bar.ended = True
            if bar.last_state != bar.state():
                info(bar.line())
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=8 if stderr.width >= WIDE else 4),
        _Count(bar),
        _Parts(bar),
    )
    mark = Text("  ")
    try:
        with (
            shown(bar),
            Progress(*columns, console=stderr, refresh_per_second=4, expand=True, transient=True) as bar.show,
        ):
            bar.task = bar.show.add_task(title, total=total, completed=done)
            yield bar
        mark = Text("✓ ", "green")
    finally:
        bar.ended = True
        # The live line is cut at the width of the terminal; the last state is wrapped.
        lines = bar.lines(stderr.width - 2).replace("\n", "\n  ")
        stderr.print(mark + Text(lines), soft_wrap=True)
