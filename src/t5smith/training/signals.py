"""Signals that ask training to stop: the step is finished and the state saved first."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from t5smith.base.progress import info


class Stopped(Exception):  # noqa: N818 - not an error: the person asked for it
    """Training was asked to stop by a signal and saved its state first."""

    def __init__(self, number: int, step: int) -> None:
        kept = "its checkpoint is saved" if step else "there is nothing to save yet"
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}; {kept}")
        self.exit_code = 128 + number


@contextmanager
def deferred_signals() -> Generator[list[int]]:
    """Collect the signals to stop instead of dying in the middle of a step; a second one is obeyed at once.

    Schedulers send SIGTERM, and SIGUSR1 when asked to warn before the end of the allotted time.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        info(f"{signal.Signals(number).name}: finishing the step and saving; once more stops at once")

    try:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        before = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # not in the main thread: signals are somebody else's business
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
