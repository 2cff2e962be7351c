import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5smith.pages.curves import MAX_POINTS, Series, _apart, curve, smooth, thin

STEPS = list(range(0, 300, 3))
LOSS = [6 + 2 * math.exp(-step / 60) for step in STEPS]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def test_every_curve_and_level_is_named_with_its_last_value() -> None:
    svg = curve(
        [Series("train", STEPS, LOSS, "line"), Series("held out", [100, 299], [6.9, 6.41], "points")],
        "step",
        "nats",
        "Loss",
        {"ln V": 8.31},
    )
    shown = texts(svg)
    assert {"Loss", "step", "nats", f"train {LOSS[-1]:.3g}", "held out 6.41", "ln V 8.31"} <= set(shown)


def test_is_an_element_that_loads_nothing() -> None:
    svg = curve([Series("train", STEPS, LOSS)], "step", "nats")
    assert svg.startswith("<svg ")
    assert "http" not in svg
    assert "<style" not in svg
    assert "<metadata" not in svg
    assert set(re.findall(r'href="(.)', svg)) <= {"#"}
    ids = re.findall(r' id="([^"]+)"', svg)
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)) == set(ids)


def test_takes_its_colours_from_the_page() -> None:
    svg = curve([Series("a", STEPS, LOSS), Series("b", STEPS, LOSS)], "step", "nats", "Loss", {"level": 7.0})
    assert not re.search(r"(?<!, )#[0-9a-f]{6}\b", svg), "a colour that does not change with the theme"
    assert {"--ink", "--muted", "--line", "--series-1", "--series-2"} == set(re.findall(r"--[a-z0-9-]+", svg))


def test_the_same_points_give_the_same_bytes_and_two_figures_share_no_id() -> None:
    one, again = (curve([Series("train", STEPS, LOSS)], "step", "nats", "Loss") for _ in range(2))
    other = curve([Series("train", STEPS, LOSS)], "step", "nats", "Gradient")
    assert one == again
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_without_points_there_is_no_figure() -> None:
    assert curve([], "step", "nats") == ""
    assert curve([Series("train", [], []), Series("other", [1], [math.nan])], "step", "nats") == ""


def test_points_that_are_not_finite_are_skipped() -> None:
    svg = curve(
        [Series("train", [1, 2, 3], [5.0, math.nan, 4.0], "line")], "step", "", hlines={"ln V": math.inf}
    )
    assert "train 4" in texts(svg)
    assert not [text for text in texts(svg) if "ln V" in text]
    assert not re.search(r"\bnan\b|\binf\b", svg)


@pytest.mark.parametrize("y", [[5.0], [5.0] * 50, [1e-5] * 3, [0.0, 1e9]])
def test_draws_single_points_level_lines_and_extremes(y: list[float]) -> None:
    assert "<path" in curve([Series("train", range(len(y)), y)], "step", "nats", "t")


def test_a_constant_curve_is_drawn_as_constant() -> None:
    y = 2000 + 1e-10 * np.random.default_rng(0).normal(size=60)
    ticks = [text for text in texts(curve([Series("", range(60), y)], "step", "")) if "," in text]
    assert "2,000" in ticks
    assert len(ticks) == len(set(ticks))


def test_names_are_text_and_not_markup_or_formulas() -> None:
    svg = curve([Series("<b>&$x_1$", [1, 2], [3.0, 4.0], "line")], "<x>", "$y$", "<script>$a$")
    assert {"<b>&$x_1$ 4", "<x>", "$y$", "<script>$a$"} <= set(texts(svg))
    assert "<script" not in svg


def test_a_long_curve_stays_small() -> None:
    rng = np.random.default_rng(0)
    svg = curve([Series("train", range(50_000), rng.normal(size=50_000))], "step", "nats")
    assert len(svg) < 60_000


def test_smoothing_follows_a_line_to_its_ends_and_removes_noise() -> None:
    line = np.linspace(9.0, 3.0, 200)
    np.testing.assert_allclose(smooth(line), line, atol=1e-9)
    noise = np.random.default_rng(1).normal(size=400)
    assert smooth(noise).std() < 0.4 * noise.std()
    np.testing.assert_array_equal(smooth([3.0, 1.0, 2.0]), [3.0, 1.0, 2.0])


def test_smoothing_at_a_point_weighs_both_sides_alike() -> None:
    peak = np.zeros(201)
    peak[100] = 1.0
    smoothed = smooth(peak)
    assert smoothed.argmax() == 100
    np.testing.assert_allclose(smoothed, smoothed[::-1], atol=1e-12)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(2, 20))
def test_thinning_keeps_the_ends_and_the_extremes(y: list[float], most: int) -> None:
    x, values = np.arange(len(y), dtype=float), np.array(y)
    kept_x, kept_y = thin(x, values, most)
    assert kept_x[0] == x[0]
    assert kept_x[-1] == x[-1]
    assert (kept_y.min(), kept_y.max()) == (values.min(), values.max())
    assert len(kept_x) <= most + 2
    np.testing.assert_array_equal(values[kept_x.astype(int)], kept_y)
    assert np.all(np.diff(kept_x) > 0)


def test_a_line_with_few_points_is_not_thinned() -> None:
    x = np.arange(MAX_POINTS, dtype=float)
    assert len(thin(x, x)[0]) == MAX_POINTS


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.01, 0.2))
def test_names_never_overlap_and_keep_their_order(wanted: list[float], gap: float) -> None:
    places = _apart(wanted, gap)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    steps = np.diff([places[i] for i in order])
    assert (steps >= gap * (1 - 1e-9)).all()
    if (np.diff(sorted(wanted)) > 1.01 * gap).all():
        np.testing.assert_allclose(places, wanted)
