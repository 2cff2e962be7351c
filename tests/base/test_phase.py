import threading

import pytest
from test_progress import terminal

from t5smith.base import progress as live
from t5smith.base.phase import Phase, phase
from t5smith.base.progress import progress, ticking


@pytest.fixture
def clock(monkeypatch):
    """Seconds, which pass when a test adds to them."""
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    return now


def test_a_pipe_gets_a_line_at_the_start(capsys):
    with phase("train", "compiling the step"):
        assert capsys.readouterr().err == "train     compiling the step\n"
    assert capsys.readouterr().err == ""


def test_a_pipe_gets_a_line_every_ten_seconds(capsys, clock):
    shown = Phase("train", "compiling the step")
    for _ in range(3):
        clock[0] += 6
        shown.tick()
    clock[0] += 4
    shown.tick()
    assert capsys.readouterr().err.splitlines() == [
        "train     compiling the step  0:12",
        "train     compiling the step  0:22",
    ]


def test_short_work_that_is_not_announced_leaves_no_line_in_a_pipe(capsys, clock):
    with phase("vocab", "counting words", at_once=False):
        live.live_now[-1].tick()
    shown = Phase("vocab", "counting words", at_once=False)
    for _ in range(4):
        clock[0] += live.NOTICEABLE_SECONDS
        shown.tick()
    clock[0] += 5
    shown.tick()
    assert capsys.readouterr().err.splitlines() == [
        "vocab     counting words  0:02",
        "vocab     counting words  0:13",
    ]


def test_a_pipe_gets_the_first_line_of_a_bar_when_it_is_noticeable_and_then_few(capsys, clock):
    with progress("prepare", 100, "bytes") as bar:
        for _ in range(15):
            clock[0] += 1
            bar.advance(1)
        assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["2/100", "12/100"]


def test_time_is_shown_while_the_work_waits(monkeypatch):
    monkeypatch.setattr(live, "TICK_SECONDS", 0.001)
    ticked = threading.Event()
    with ticking(ticked.set):
        assert ticked.wait(60)
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


@pytest.mark.parametrize(("seconds", "left"), [(1.0, ""), (75.0, "✓ train     compiling the step  1:15")])
def test_a_terminal_keeps_a_line_of_a_noticeable_phase(monkeypatch, clock, seconds, left):
    screen = terminal(monkeypatch, 80)
    with phase("train", "compiling the step"):
        clock[0] += seconds
    assert screen.getvalue().rpartition("\x1b")[2].partition("K")[2].strip() == left


def fail(clock: list[float]) -> None:
    clock[0] += live.NOTICEABLE_SECONDS
    raise ZeroDivisionError


def test_a_phase_that_fails_gets_no_tick(monkeypatch, clock):
    screen = terminal(monkeypatch, 80)
    with pytest.raises(ZeroDivisionError), phase("train", "compiling the step"):
        fail(clock)
    assert screen.getvalue().rstrip().endswith("  train     compiling the step  0:02")


def test_a_phase_within_a_bar_or_a_phase_is_a_part_of_its_line(capsys, clock):
    with progress("train", 4, "steps") as bar:
        bar.advance(1)
        with phase("train", "evaluating"):
            clock[0] += 12
            assert next(bar.parts()) == "evaluating 0:12"
        assert "evaluating" not in bar.line()
    capsys.readouterr()
    with phase("train", "looking for the largest batch"), phase("train", "compiling"):
        clock[0] += 5
        assert live.live_now[-1].line() == "train     looking for the largest batch  0:05  compiling 0:05"
    assert capsys.readouterr().err == "train     looking for the largest batch\n"
    assert not live.live_now
