import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from t5smith.base import progress as module
from t5smith.base.progress import info, progress, warn
from t5smith.base.units import about, count, duration


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (950, "950"),
        (9_999, "9,999"),
        (9_999.6, "10k"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (999_700, "1M"),
        (4_560_000, "4.56M"),
        (7.2e9, "7.2G"),
        (5e12, "5T"),
        (-12_345, "-12.3k"),
    ],
)
def test_counts_are_short(number, shown):
    assert count(number) == shown


@given(st.integers(10_000, 10**15 - 10**12))
def test_counts_are_right_to_three_digits(number):
    shown = count(number)
    value = float(shown[:-1]) * 10 ** (3 * " kMGT".index(shown[-1]))
    assert abs(value - number) <= 0.00501 * number
    assert len(shown) <= 5


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (-1, "0:00")]
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3, "1 s"),
        (0.2, "1 s"),
        (2.4, "2 s"),
        (45.2, "45 s"),
        (99.4, "99 s"),
        (99.7, "1.7 min"),
        (140, "2.3 min"),
        (597, "10 min"),
        (725, "12 min"),
        (5_969, "99 min"),
        (5_990, "1.7 h"),
        (12_240, "3.4 h"),
        (360_000, "4.2 days"),
        (86_400 * 1_234, "1,200 days"),
    ],
)
def test_forecasts_have_two_digits(seconds, shown):
    assert about(seconds) == shown


def test_a_pipe_gets_plain_lines_on_stderr(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    with progress("train", 4, "steps") as bar:
        bar.advance(1, loss="[6.91]", rate="5 tokens/s")
        bar.advance(3)
    info("a [line] " + "x" * 200)
    warn("mind [this]")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("train     1/4 steps  ")
    assert lines[0].endswith("left  5 tokens/s  loss [6.91]")
    assert lines[1].startswith("train     4/4 steps  0:00")
    assert lines[2:] == ["a [line] " + "x" * 200, "warning: mind [this]"]
    assert "\x1b" not in err


def test_a_pipe_gets_few_lines(capsys):
    with progress("train", 400, "steps") as bar:
        for _ in range(400):
            bar.advance()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_end_is_not_printed_twice_in_a_pipe(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    with progress("train", 4, "steps") as bar:
        bar.advance(4)
        bar.advance(0, loss="6.91")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_notes_have_an_order_and_empty_ones_are_hidden(capsys):
    with progress("vocab", 4, "bytes", notes=("pieces", "stage")) as bar:
        bar.advance(4, documents="7", stage="training")
        bar.advance(0, stage="", pieces="2,000")
    assert capsys.readouterr().err.splitlines() == ["vocab     4/4 bytes  0:00  pieces 2,000  documents 7"]


def fail(bar: module.Bar) -> None:
    bar.advance(2)
    raise ZeroDivisionError


def test_the_last_state_is_printed_when_the_work_fails(capsys):
    with pytest.raises(ZeroDivisionError), progress("train", 4, "steps") as bar:
        fail(bar)
    assert "2/4 steps" in capsys.readouterr().err


def test_earlier_work_does_not_count_towards_the_time_left(capsys):
    with progress("train", 400, "steps", done=399):
        pass
    assert "399/400" in capsys.readouterr().err


def terminal(monkeypatch, width: int) -> io.StringIO:
    """What is shown on stderr as if it were a terminal of this width."""
    screen = io.StringIO()
    monkeypatch.setattr(
        module, "stderr", Console(file=screen, force_terminal=True, width=width, color_system=None)
    )
    monkeypatch.setenv("TERM", "xterm")
    return screen


def left(screen: io.StringIO) -> list[str]:
    """The lines that stay when the live line is gone."""
    return screen.getvalue().rpartition("\x1b")[2].partition("K")[2].rstrip("\n").split("\n")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_gets_one_line_that_does_not_wrap(monkeypatch, width):
    terminal(monkeypatch, width)
    with progress("prepare", 12_345_678, "tokens") as bar:
        bar.advance(5_999_700, note="[x] " + "long " * 40, rate="1.2M tokens/s")
        bar.advance(0)
        assert bar.show is not None
        show = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
        show.print(bar.show.get_renderable())
        lines = show.file.getvalue().splitlines()
    assert len(lines) == 1
    assert len(lines[0]) <= width
    assert width < 200 or "note [x] long" in lines[0]
    if width >= 80:
        assert "6M/12.3M tokens" in lines[0]
        assert "left  1.2M" in lines[0]
        assert lines[0].rstrip().endswith("…")


def test_the_figures_of_training_fit_80_columns(monkeypatch):
    terminal(monkeypatch, 80)
    with progress("train", 2_000, "steps", notes=("loss", "held-out", "lr")) as bar:
        bar.advance(1_000, rate="31.2k tokens/s", loss="4.763", lr="0.0043", **{"held-out": "5.123"})
        show = Console(file=io.StringIO(), width=80, color_system=None, legacy_windows=False)
        assert bar.show is not None
        show.print(bar.show.get_renderable())
    shown = show.file.getvalue()
    assert "left  31.2k tokens/s  loss 4.763" in shown
    # What does not fit is missing as a whole.
    assert "…" not in shown
    assert ("held-out" in shown) == ("held-out 5.123" in shown)


def test_the_last_line_has_every_figure_and_a_hanging_indent(monkeypatch):
    screen = terminal(monkeypatch, 60)
    with progress("train", 200, "steps", notes=("loss", "held-out", "lr")) as bar:
        bar.advance(200, rate="31.2k tokens/s", loss="4.763", lr="0.0043", **{"held-out": "5.123"})
    assert left(screen) == [
        "✓ train     200/200 steps  0:00  31.2k tokens/s  loss 4.763",
        "            held-out 5.123  lr 0.0043",
    ]


def test_work_that_fails_gets_no_tick(monkeypatch):
    screen = terminal(monkeypatch, 80)
    with pytest.raises(ZeroDivisionError), progress("train", 4, "steps") as bar:
        fail(bar)
    assert left(screen)[0].startswith("  train     2/4 steps  0:0")


def test_a_stage_of_unknown_length_ends_with_the_amount_done(monkeypatch):
    screen = terminal(monkeypatch, 80)
    with progress("vocab", None, "documents") as bar:
        bar.advance(1)
        assert bar.line().startswith("vocab     1 document  ")
        bar.advance(6)
    assert left(screen)[0].startswith("✓ vocab     7 documents  0:00")


def test_long_lines_have_a_hanging_indent_on_a_terminal(monkeypatch):
    screen = terminal(monkeypatch, 40)
    info("prepare   train split: 113 documents, 206,016 tokens, 3.64 bytes a token")
    info("  a.jsonl:2: the field 'text' is a number here")
    warn("the vocabulary lacks characters of this text")
    assert screen.getvalue().splitlines() == [
        "prepare   train split: 113 documents,",
        "          206,016 tokens, 3.64 bytes a",
        "          token",
        "  a.jsonl:2: the field 'text' is a",
        "  number here",
        "warning: the vocabulary lacks characters",
        "         of this text",
    ]


def test_the_time_left_is_what_the_stage_expects(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    bar = module.Bar("train", 400, "steps", 0)
    bar.done = 200
    now[0] += 60
    assert bar.clock() == "60 s left"
    bar.expect(1_000)
    assert bar.clock() == "17 min left"
    now[0] += 940
    assert bar.clock() == "60 s left"
    bar.done = 400
    assert bar.clock() == "16:40"


def test_a_long_wait_between_two_steps_is_seen_in_a_pipe(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    bar = module.Bar("train", 400, "steps", 0)
    bar.tick()
    now[0] += 11
    bar.tick()
    bar.tick()
    assert capsys.readouterr().err == "train     0/400 steps  0:11\n"
