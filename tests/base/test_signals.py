"""A signal ends the wait for a call into C++ at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from t5smith.base import signals
from t5smith.base.signals import interruptible, work_left_behind


def test_what_a_call_returns_or_raises():
    assert interruptible(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        interruptible(divmod, 7, 0)
    assert not work_left_behind()


def test_a_call_from_another_thread_is_made_there():
    names = []
    thread = threading.Thread(
        target=lambda: interruptible(lambda: names.append(threading.current_thread().name)), name="other"
    )
    thread.start()
    thread.join()
    assert names == ["other"]


def test_a_signal_leaves_a_call_that_does_not_return():
    begun, end = threading.Event(), threading.Event()

    def endless():
        begun.set()
        os.kill(os.getpid(), signal.SIGINT)
        end.wait()

    with pytest.raises(KeyboardInterrupt):
        interruptible(endless)
    assert begun.is_set()
    assert work_left_behind()
    end.set()
    for thread in signals._left:
        thread.join()
    assert not work_left_behind()
