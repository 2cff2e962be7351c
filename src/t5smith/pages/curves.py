"""Curves as inline SVG, coloured by the page, so that they read in light and dark."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from t5smith.base.progress import count
from t5smith.pages.plot_style import FONT, PAGE, dress, new_figure, page_svg, style

_POINT = 1 / 72
_CHARACTER = 0.52 * FONT
"""Width of an average character in points, by which the room for a label is estimated."""
_LARGEST = 1e40
"""Larger than every float32, and small enough for matplotlib's axes; larger values count as not finite."""
MAX_SMOOTHED = 10_000
"""A line with more points is smoothed from the means of so many groups, since smoothing takes the square."""
MAX_POINTS = 400
"""A line with more points is thinned: of each of half as many groups, the lowest and the highest stay."""


@dataclass(frozen=True)
class Series:
    """Points to draw. A `noisy` line is drawn thin, with a smoothed line on top."""

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    kind: Literal["noisy", "line", "points"] = "noisy"


def curve(
    series: Sequence[Series],
    xlabel: str,
    ylabel: str,
    title: str = "",
    hlines: Mapping[str, float] | None = None,
    *,
    size: tuple[float, float] = (330, 190),
) -> str:
    """Curves and dashed levels as an `<svg>` element, each named at its right end with its last value.

    Points that are not finite are skipped. Without any point, the result is the empty string.

    Args:
      series: the curves, in the order of the colours.
      xlabel: below the x-axis.
      ylabel: beside the y-axis.
      title: above the figure, and for screen readers.
      hlines: name -> level.
      size: width and height in points; the page scales the figure to its column.
    """
    drawn = [s for s in map(_finite, series) if len(s.x)]
    levels = {name: float(y) for name, y in (hlines or {}).items() if abs(y) < _LARGEST}
    if not drawn:
        return ""
    width, height = size
    # The salt keeps the ids of two figures of one page different.
    with style(salt=f"{title}|{ylabel}|{size}"):
        figure = new_figure(width * _POINT, height * _POINT, PAGE)
        axes = figure.subplots()
        lines = list(map(_smoothed, drawn))
        ends = [(s.label, float(line[1][-1])) for s, line in zip(drawn, lines, strict=True)]
        names = [(f"{name} {y:.3g}" if name else "", y) for name, y in [*ends, *levels.items()]]
        room = max(len(name) for name, _ in names) * _CHARACTER + 14
        figure.subplots_adjust(
            left=46 / width, right=1 - room / width, bottom=34 / height, top=1 - (24 if title else 8) / height
        )
        colours = [PAGE.series[i % len(PAGE.series)] for i in range(len(drawn))]
        for s, line, colour in zip(drawn, lines, colours, strict=True):
            _draw(axes, s, line, colour)
        for level in levels.values():
            axes.axhline(level, color=PAGE.muted, linewidth=0.9, linestyle=(0, (4, 3)))
        _widen(axes)
        dress(axes, PAGE, xlabel, ylabel, xticks=count, yticks=_tick)
        heading: Any = {"color": PAGE.ink, "fontsize": FONT + 0.5, "fontweight": "bold", "va": "top"}
        figure.text(0.01, 0.985, title, parse_math=False, **heading)
        _name_at_the_end(axes, names, [*colours, *(PAGE.muted for _ in levels)], height)
        return page_svg(figure, title or f"{ylabel} over {xlabel}")


def smooth(y: Sequence[float] | np.ndarray) -> np.ndarray:
    """A curve without its noise: local linear regression with Gaussian weights.

    The standard deviation of the weights is a fiftieth of the curve; fewer than 25 points stay
    as they are. Unlike a moving mean, a fitted line is unbiased at the ends: it begins at the first loss.
    """
    values = np.asarray(y, float)
    spread = len(values) / 50
    if spread < 0.5:
        return values
    reach = int(3 * spread)
    offset = np.arange(-reach, reach + 1, dtype=float)
    weight = np.exp(-0.5 * (offset / spread) ** 2)

    def around(what: np.ndarray, power: int) -> np.ndarray:
        # convolve reverses its second argument. That changes the sign of s1 and t1, but not the result.
        return np.convolve(what, weight * offset**power)[reach : reach + len(values)]

    ones = np.ones(len(values))
    s0, s1, s2 = (around(ones, power) for power in range(3))
    t0, t1 = around(values, 0), around(values, 1)
    return (t0 * s2 - t1 * s1) / (s0 * s2 - s1 * s1)


def thin(x: np.ndarray, y: np.ndarray, most: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """About `most` points of a line at most, including its extremes and its ends."""
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most // 2 + 1).astype(int)
    groups = [np.arange(a, b) for a, b in itertools.pairwise(edges)]
    kept = {0, len(x) - 1}
    for at in groups:
        kept |= {int(at[np.argmin(y[at])]), int(at[np.argmax(y[at])])}
    index = np.array(sorted(kept))
    return x[index], y[index]


def _finite(series: Series) -> Series:
    x, y = np.asarray(series.x, float), np.asarray(series.y, float)
    good = (abs(x) < _LARGEST) & (abs(y) < _LARGEST)
    return Series(series.label, x[good], y[good], series.kind)


def _smoothed(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """The line to draw: of a noisy series the smoothed one, from means of neighbours if it has very many."""
    x, y = np.asarray(series.x, float), np.asarray(series.y, float)
    if series.kind != "noisy":
        return x, y
    if len(x) > MAX_SMOOTHED:
        edges = np.linspace(0, len(x), MAX_SMOOTHED + 1).astype(int)
        x, y = (np.add.reduceat(values, edges[:-1]) / np.diff(edges) for values in (x, y))
    return x, smooth(y)


def _draw(axes: Any, series: Series, line: tuple[np.ndarray, np.ndarray], colour: str) -> None:
    x, y = np.asarray(series.x, float), np.asarray(series.y, float)
    if series.kind == "points":
        axes.plot(x, y, color=colour, linewidth=0.9, marker="o", markersize=3.2, clip_on=False, zorder=4)
        return
    if series.kind == "noisy" and len(x) >= 20:
        axes.plot(*thin(x, y), color=colour, linewidth=0.6, alpha=0.35)
    marker = "o" if len(x) == 1 else ""
    axes.plot(*thin(*line), color=colour, linewidth=1.5, marker=marker, markersize=3.2, zorder=3)


def _widen(axes: Any) -> None:
    """Draw a constant curve as constant, not its rounding errors."""
    low, high = axes.get_ylim()
    size = max(abs(low), abs(high))
    if high - low < 1e-6 * size:
        axes.set_ylim(low - size / 20, high + size / 20)


def _tick(value: float) -> str:
    """A short number: 6.5, 0.002, 3e-05, 12k."""
    if abs(value) >= 1e4:
        return count(value)
    return f"{value:,.4g}"


def _name_at_the_end(axes: Any, names: list[tuple[str, float]], colours: list[str], height: float) -> None:
    """Write each name at its level, right of the axes, and move names apart that would overlap."""
    low, high = axes.get_ylim()
    box = axes.get_position()
    room = box.height * height
    gap = 1.25 * FONT / room
    targets = [(y - low) / (high - low) for _, y in names]
    for (name, _), place, colour in zip(names, _apart(targets, gap), colours, strict=True):
        style = {"color": colour, "va": "center", "fontsize": FONT, "parse_math": False}
        axes.text(1.02, place, name, transform=axes.transAxes, **style)


def _apart(targets: Sequence[float], gap: float) -> list[float]:
    """Places at least `gap` apart, in the same order, near their targets."""
    order = sorted(range(len(targets)), key=lambda i: targets[i])
    places = list(targets)
    for below, at in itertools.pairwise(order):
        places[at] = max(places[at], places[below] + gap)
    # So far only the upper ones moved: centre each group of adjacent places around the mean of its targets.
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or places[order[end]] - places[order[end - 1]] > gap * 1.001:
            group = order[start:end]
            shift = sum(places[i] - targets[i] for i in group) / len(group)
            floor = places[order[start - 1]] + gap if start else -np.inf
            shift = min(shift, places[group[0]] - floor)
            for i in group:
                places[i] -= shift
            start = end
    return places
