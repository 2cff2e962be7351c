"""Bars as high as their shares, ticks at their values, nothing loaded."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5smith.pages.histogram import _LEFT, _RIGHT, _scale, histogram

SHARES = {"documents": [0.5, 0.25, 0.25], "tokens": [0.1, 0.0, 0.9]}


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("\N{NO-BREAK SPACE}", " "))


def test_bars_are_as_high_as_their_shares_and_above_their_ticks() -> None:
    figure = drawn(histogram(["1", "2", "4"], SHARES, "tokens", "Training"))
    rows = [
        {key: float(one.attrib[key]) for key in ("x", "y", "width", "height")} for one in figure.iter("rect")
    ]
    assert len(rows) == 6
    marks = {text.text: float(text.attrib["y"]) for text in figure.iter("text") if "%" in (text.text or "")}
    assert list(marks) == ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]
    unit = (marks["0 %"] - marks["100 %"]) / 100
    assert [row["height"] / unit for row in rows] == pytest.approx([50, 25, 25, 10, 0, 90], abs=0.1)
    assert {round(row["y"] + row["height"], 1) for row in rows} == {round(marks["0 %"] - 2.8, 1)}
    edges = {
        text.text: float(text.attrib["x"]) for text in figure.iter("text") if text.text in {"1", "2", "4"}
    }
    each = (330 - _LEFT - _RIGHT) / 3
    assert list(edges.values()) == pytest.approx([_LEFT + i * each for i in range(3)], abs=0.1)
    for i, (one, other) in enumerate(zip(rows[:3], rows[3:], strict=True)):
        assert _LEFT + i * each < one["x"]
        assert one["x"] + one["width"] < other["x"]
        assert other["x"] + other["width"] < _LEFT + (i + 1) * each


def test_names_are_escaped_and_colours_are_those_of_the_page() -> None:
    svg = histogram(["<1"], {"<b>a": [1.0]}, "<x>", "<script>")
    assert not re.search(r"<script|<b>|http|#[0-9a-f]{3}", svg)
    assert [text.text for text in drawn(svg).iter("text")][-2:-1] == ["<script>"]
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", svg)) == {"--ink", "--muted", "--line", "--series-1"}


def test_ticks_that_would_overlap_are_skipped() -> None:
    edges = [f"{2**k:,}" for k in range(24)]
    svg = histogram(edges, {"documents": [1 / 24] * 24}, "tokens", "Training")
    marks = [text for text in drawn(svg).iter("text") if text.text in edges]
    assert 3 < len(marks) < 12
    places = [float(mark.attrib["x"]) for mark in marks]
    widest = max(len(mark.text or "") for mark in marks) * 4.64
    assert min(b - a for a, b in itertools.pairwise(places)) > widest


@given(st.floats(1e-9, 1.0))
def test_the_axis_ends_a_step_or_less_above_the_highest_bar(most: float) -> None:
    top, step = _scale(most)
    assert most * (1 - 1e-6) <= top < most * (1 + 1e-6) + step
    assert 1 <= round(top / step) <= 5
    assert float(f"{step:.0e}"[0]) in {1, 2, 5}
