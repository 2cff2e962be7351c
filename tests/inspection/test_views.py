import html
import io
import json
import re

import pytest
from rich.console import Console

from balanced import check_page
from t5smith.inspection.results import Inspection, Row
from t5smith.inspection.text import inspect
from t5smith.inspection.trace import Trace
from t5smith.inspection.views.captions import legend
from t5smith.inspection.views.json_tree import trace_json
from t5smith.inspection.views.page import marked, page
from t5smith.inspection.views.terminal import show

SENTENCE = "The bad dog ruined my sleep"


@pytest.fixture(scope="module")
def trace() -> Trace:
    return inspect(SENTENCE, ["bad dog"])


@pytest.fixture(scope="module")
def long_trace() -> Trace:
    return inspect("In the morning the neighbours asked about the international bark. " * 12, seed=4)


def inspection(trace: Trace) -> Inspection:
    return Inspection("What T5 sees", (Row("", (trace,), len(trace.inputs), len(trace.targets)),))


def printed(trace: Trace, *, width: int = 80, colour: bool = False) -> str:
    file = io.StringIO()
    system = "256" if colour else None
    console = Console(
        file=file, width=width, force_terminal=colour, color_system=system, legacy_windows=False
    )
    show(inspection(trace), console, full=False)
    return file.getvalue()


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def test_a_pipe_shows_spans_inputs_targets_and_positions(trace: Trace) -> None:
    text = printed(trace)
    shown = lines(text)
    assert "\x1b" not in text
    assert "The [0: bad dog] ruined my sleep" in shown
    assert "The <extra_id_0> ruined my sleep" in shown
    assert "<extra_id_0> bad dog <extra_id_1>" in shown
    assert "0  <pad> (0)             →  <extra_id_0> (32099)" in shown
    assert "2  ▁bad (1282)           →  ▁dog (1782)" in shown
    assert "4  <extra_id_1> (32098)  →  </s> (1)" in shown
    assert "7 tokens, 2 masked (28.57%) in 1 span" in shown[0]


def test_the_readme_shows_what_is_printed(trace: Trace, request: pytest.FixtureRequest) -> None:
    readme = (request.config.rootpath / "README.md").read_text(encoding="utf-8")
    assert f"\n{printed(trace).strip()}\n```" in readme


def test_every_piece_is_above_its_id(long_trace: Trace) -> None:
    shown = [line.rstrip() for line in printed(long_trace).splitlines()]
    ids = [index for index, line in enumerate(shown) if re.fullmatch(r"  \d+(\s+\d+)*", line)]
    found: list[tuple[str, int]] = []
    for index in ids:
        for number in re.finditer(r"\d+", shown[index]):
            above = shown[index - 1][number.start() :].split()[0]
            found.append((above, int(number[0])))
    assert found == [(token.piece, token.id) for token in long_trace.inputs]


@pytest.mark.parametrize("width", [40, 80])
def test_no_line_is_wider_than_the_terminal(long_trace: Trace, width: int) -> None:
    text = printed(long_trace, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_the_table_has_every_position_of_a_long_text(long_trace: Trace) -> None:
    positions = [int(m[1]) for line in lines(printed(long_trace)) if (m := re.match(r"(\d+)  \S+ \(", line))]
    assert positions == list(range(len(long_trace.targets)))


def test_a_terminal_gets_one_colour_per_span() -> None:
    text = printed(inspect(SENTENCE, ["bad", "my"]), colour=True)
    first, second = "\x1b[38;5;16;48;5;153m", "\x1b[38;5;16;48;5;223m"
    for coloured in (f"{first}[0: bad]", f"{second}[1: my]", f"{first}<extra_id_0>", f"{second}▁my"):
        assert coloured in text


def test_notes_are_printed() -> None:
    assert "note: 'national' is only part of a token" in printed(
        inspect("An international call", ["national"])
    )


def test_the_settings_of_a_drawn_mask_are_shown() -> None:
    text = printed(inspect(SENTENCE, seed=7))
    assert "(density 0.15, mean span 3, seed 7)" in text
    assert "7 tokens, 1 masked (14.29%) in 1 span" in text
    assert "1 of 7 tokens are 14.29%, not 15.00%: the number of masked tokens is rounded." in text
    assert "seed" not in printed(inspect(SENTENCE, ["dog"]))
    assert "rounded" not in printed(inspect(SENTENCE, ["dog"]))


def test_the_legend_explains_the_closing_sentinel(trace: Trace) -> None:
    assert any("<extra_id_1> closes the last span" in line for line in legend(trace))
    assert any("no sentinel closes" in line for line in legend(inspect(SENTENCE, ["my sleep"])))


def test_square_brackets_in_a_text_are_not_styles() -> None:
    assert "see [bold]this[/bold] [0: now]" in printed(inspect("see [bold]this[/bold] now", ["now"]))


def test_json_has_ids_pieces_strings_spans_and_notes(trace: Trace) -> None:
    tree = json.loads(json.dumps(trace_json(trace)))
    assert tree["inputs"] == "The <extra_id_0> ruined my sleep"
    assert tree["targets"] == "<extra_id_0> bad dog <extra_id_1>"
    assert tree["target_ids"] == [32099, 1282, 1782, 32098, 1]
    assert tree["decoder_input_ids"] == [0, 32099, 1282, 1782, 32098]
    assert tree["decoder_input_pieces"] == ["<pad>", "<extra_id_0>", "▁bad", "▁dog", "<extra_id_1>"]
    assert tree["target_pieces"][-1] == "</s>"
    assert tree["input_ids"] == [token.id for token in trace.inputs]
    assert tree["input_pieces"][:2] == ["▁The", "<extra_id_0>"]
    assert tree["spans"] == [
        {"start": 1, "stop": 3, "sentinel": "<extra_id_0>", "sentinel_id": 32099, "text": "bad dog"}
    ]
    assert [token["masked"] for token in tree["tokens"]] == list(trace.mask)
    assert tree["lengths"] == {
        "window": 7,
        "noise": 2,
        "spans": 1,
        "inputs": 7,
        "targets": 5,
        "sentinels": 2,
    }
    assert (tree["drawn"], tree["seed"], tree["notes"]) == (False, 0, [])


def test_html_is_well_formed_and_loads_nothing(trace: Trace) -> None:
    shown = page(inspection(trace), full=False)
    assert check_page(shown).fetched == []
    assert "prefers-color-scheme: dark" in shown
    assert '<mark class="s0">bad dog<sup>0</sup></mark> ruined' in shown
    assert shown.count("<li") == len(trace.inputs) + len(trace.targets)


def test_html_escapes_what_is_typed() -> None:
    hostile = "<script>alert('x')</script> & \"more\" words"
    shown = page(inspection(inspect(hostile, ["more"])), full=False)
    assert "<script" not in shown
    text = html.unescape(re.sub(r"<[^>]+>", "", shown))
    assert "more" in text


def test_colours_repeat() -> None:
    assert 'class="s0"' in marked("x", 6)
    assert marked(" x ", 1) == ' <mark class="s1">x<sup>1</sup></mark> '
