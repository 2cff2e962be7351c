"""A piece of work without a measure, such as compiling: announced, and seen to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task
from rich.table import Column
from rich.text import Text

from t5smith.base import progress
from t5smith.base.progress import Live, live_now, shown, ticking
from t5smith.base.units import duration


class _LiveText(ProgressColumn):
    """A text that changes with time."""

    def __init__(self, text: Callable[[], str], column: Column) -> None:
        super().__init__(column)
        self.text = text

    def render(self, task: Task) -> Text:
        """The text now."""
        return Text(self.text())


class Phase(Live):
    """What is shown of such a piece of work."""

    def __init__(self, title: str, text: str, at_once: bool = True) -> None:
        super().__init__(title)
        self.text, self.announced = text, at_once

    def line(self) -> str:
        """The state as one plain line."""
        now = self.now()
        return f"{self.title:<9} {self.text}  {duration(self.elapsed())}" + (f"  {now}" if now else "")


@contextlib.contextmanager
def phase(title: str, text: str, at_once: bool = True) -> Generator[None]:
    """Announce a piece of work without a measure, and show that it goes on while the body runs.

    A terminal shows the time it takes; a pipe gets a line at the start, and then one every ten seconds.
    Within a bar or another phase, it is shown in that line.

    Args:
      title: name of the stage.
      text: what is done, such as "compiling the step".
      at_once: announce it in a pipe at the start; else only if it takes two seconds.
    """
    if live_now:
        with live_now[-1].during(text):
            yield
        return
    live = Phase(title, text, at_once)
    if not progress.stderr.is_interactive:
        if at_once:
            progress.info(f"{title:<9} {text}")
        with shown(live), ticking(live.tick):
            yield
        return
    columns = SpinnerColumn(), _LiveText(live.line, Column(no_wrap=True, ratio=1))
    finished = False
    try:
        with (
            shown(live),
            Progress(
                *columns, console=progress.stderr, refresh_per_second=4, expand=True, transient=True
            ) as spinner,
        ):
            spinner.add_task(title, total=None)
            yield
        finished = True
    finally:
        if live.elapsed() >= progress.NOTICEABLE_SECONDS:
            mark = Text("✓ ", "green") if finished else Text("  ")
            progress.stderr.print(mark + Text(live.line()), soft_wrap=True)
