"""Signals that stop work: training finishes the step and saves; a long call into C++ is left at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Generic, TypeVar

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


Result = TypeVar("Result")

WAKE_SECONDS = 0.1
"""The main thread looks for signals this often while it waits."""
_left: list[threading.Thread] = []
"""Threads whose work nobody waits for any more."""


def interruptible(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function; a signal whose handler raises ends the wait for it at once.

    Python handles signals between two of its own instructions, and compiling is one long call into C++. So
    the call is made in a thread, and the main thread only waits.
    """
    if threading.current_thread() is not threading.main_thread():
        return function(*args)
    return Background(function, *args, daemon=True).result()


class Background(Generic[Result]):
    """A call that is made in a thread of its own while others go on."""

    def __init__(self, function: Callable[..., Result], *args: Any, daemon: bool = False) -> None:
        """Start the call; unless it is a `daemon`, the interpreter does not end before it."""
        self._returned: list[Result] = []
        self._raised: list[BaseException] = []
        self._ended = threading.Event()

        def work() -> None:
            try:
                self._returned.append(function(*args))
            except BaseException as error:
                self._raised.append(error)
            finally:
                self._ended.set()

        thread = threading.Thread(target=work, name="background", daemon=daemon)
        # Whoever waits for the call may be interrupted, or never come to wait.
        _left[:] = [other for other in _left if other.is_alive()]
        _left.append(thread)
        thread.start()

    def result(self) -> Result:
        """What the call returned; raises what it raised. A signal whose handler raises ends the wait."""
        # The system may deliver a signal to another thread, which does not wake this one.
        while not self._ended.wait(WAKE_SECONDS):
            pass
        if self._raised:
            raise self._raised[0]
        return self._returned[0]


def work_left_behind() -> bool:
    """Whether a call that nobody waits for is still running: the interpreter would wait for it, or crash."""
    return any(thread.is_alive() for thread in _left)
