"""Signals that stop training: it first finishes the step and saves the state."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from t5smith.base.progress import info


class Stopped(Exception):  # noqa: N818 - not an error: the user sent the signal
    """Training was stopped by a signal, after it saved its state."""

    def __init__(self, number: int, step: int) -> None:
        saved = "its checkpoint is saved; run the same command to resume" if step else "nothing to save yet"
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step:,}; {saved}")
        self.exit_code = 128 + number


@contextmanager
def deferred_signals() -> Generator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGUSR1 instead of dying within a step; a second signal stops at once.

    Schedulers send SIGTERM, and SIGUSR1 if configured to warn before the time limit.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        info(f"{signal.Signals(number).name}: finishing the step and saving; a second signal stops at once")

    try:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        before = {number: signal.signal(number, handle) for number in numbers}
    except ValueError:  # not in the main thread, the only one that may set handlers
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
