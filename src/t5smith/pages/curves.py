"""Curves as inline SVG: figures that take their colours from the page, so they read in light and dark.

matplotlib draws with stand-in colours; these become CSS variables (`--ink`, `--muted`, `--line`,
`--series-1` …) with fallbacks. Text stays text, in the page's own font. The same points give the same
bytes: nothing is dated and ids are left out or numbered.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from t5smith.base.progress import count

# What matplotlib draws with -> the page's variable and what stands in where the page has none.
_COLOURS = {
    "#010101": "var(--ink, #222)",
    "#020202": "var(--muted, #777)",
    "#030303": "var(--line, #ccc)",
    "#040404": "var(--series-1, #1f6f8b)",
    "#050505": "var(--series-2, #b4511e)",
    "#060606": "var(--series-3, #5a7d2a)",
}
_INK, _MUTED, _LINE, *_SERIES = _COLOURS
_POINT = 1 / 72
_FONT = 8.0
_CHARACTER = 0.54 * _FONT
"""Width of an average character in points; what room a label needs is guessed from it."""
_LARGEST = 1e40
"""Beyond every float32, within what axes can be laid out for; larger values count as not finite."""
MAX_POINTS = 400
"""A line of more points is thinned to the lowest and highest of each of half as many stretches."""


@dataclass(frozen=True)
class Series:
    """Points to draw. `noisy` lines are drawn thin with their running mean on top."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
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
    """Curves and dashed levels, each named at its right end with its last value, as an `<svg>` element.

    Points that are not finite are left out and break the line. Without any point there is nothing to
    draw: the result is the empty string.

    Args:
      series: what to draw, in the order of the colours.
      xlabel: what runs along the bottom.
      ylabel: what runs up the side.
      title: stands above the figure; also what a screen reader says.
      hlines: name -> level.
      size: width and height in points; the page scales the figure to its column.
    """
    drawn = [s for s in map(_finite, series) if len(s.x)]
    levels = {name: float(y) for name, y in (hlines or {}).items() if abs(y) < _LARGEST}
    if not drawn:
        return ""
    width, height = size
    # Ids are hashes of what they name; the salt keeps two figures of one page apart.
    settings: Any = {"svg.fonttype": "none", "font.size": _FONT, "svg.hashsalt": f"{title}|{ylabel}|{size}"}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width * _POINT, height * _POINT))
        axes = figure.subplots()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        ends = [(s.label, float((smooth(s.y) if s.kind == "noisy" else s.y)[-1])) for s in drawn]
        names = [(f"{name} {y:.3g}" if name else "", y) for name, y in [*ends, *levels.items()]]
        room = max(len(name) for name, _ in names) * _CHARACTER + 14
        figure.subplots_adjust(
            left=46 / width, right=1 - room / width, bottom=34 / height, top=1 - (24 if title else 8) / height
        )
        for s, colour in zip(drawn, _cycle(len(drawn)), strict=True):
            _draw(axes, s, colour)
        for level in levels.values():
            axes.axhline(level, color=_MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        _widen(axes)
        _dress(axes, xlabel, ylabel, title)
        colours = [*_cycle(len(drawn)), *[_MUTED] * len(levels)]
        _name_at_the_end(axes, names, colours, height)
        return _as_fragment(figure, title or f"{ylabel} over {xlabel}")


def smooth(y: Sequence[float] | np.ndarray) -> np.ndarray:
    """What runs through the noise: a line fitted around every point, its neighbours weighted by a bell.

    The bell spans about a fiftieth of the curve; few points stay as they are. A fitted line, unlike a
    mean, is not pulled off at the ends, so the curve begins where the first loss is.
    """
    values = np.asarray(y, float)
    spread = len(values) / 50
    if spread < 0.5:
        return values
    reach = int(3 * spread)
    offset = np.arange(-reach, reach + 1, dtype=float)
    bell = np.exp(-0.5 * (offset / spread) ** 2)

    def around(what: np.ndarray, power: int) -> np.ndarray:
        # convolve turns its second argument round. That changes the sign of s1 and t1, but not the result.
        return np.convolve(what, bell * offset**power)[reach : reach + len(values)]

    ones = np.ones(len(values))
    s0, s1, s2 = (around(ones, power) for power in range(3))
    t0, t1 = around(values, 0), around(values, 1)
    return (t0 * s2 - t1 * s1) / (s0 * s2 - s1 * s1)


def thin(x: np.ndarray, y: np.ndarray, most: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most about `most` points of a line, its peaks and its ends among them."""
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most // 2 + 1).astype(int)
    stretches = [np.arange(a, b) for a, b in itertools.pairwise(edges)]
    kept = {0, len(x) - 1}
    for at in stretches:
        kept |= {int(at[np.argmin(y[at])]), int(at[np.argmax(y[at])])}
    index = np.array(sorted(kept))
    return x[index], y[index]


def _finite(series: Series) -> Series:
    pairs = [(float(a), float(b)) for a, b in zip(series.x, series.y, strict=True)]
    good = [(a, b) for a, b in pairs if abs(a) < _LARGEST and abs(b) < _LARGEST]
    return Series(series.label, [a for a, _ in good], [b for _, b in good], series.kind)


def _cycle(n: int) -> list[str]:
    return [_SERIES[i % len(_SERIES)] for i in range(n)]


def _draw(axes: Any, series: Series, colour: str) -> None:
    x, y = np.asarray(series.x, float), np.asarray(series.y, float)
    if series.kind == "points":
        axes.plot(x, y, color=colour, linewidth=0.9, marker="o", markersize=3.2, clip_on=False, zorder=4)
        return
    smoothed = smooth(y) if series.kind == "noisy" else y
    if series.kind == "noisy" and len(x) >= 20:
        axes.plot(*thin(x, y), color=colour, linewidth=0.6, alpha=0.35)
    marker = "o" if len(x) == 1 else ""
    axes.plot(*thin(x, smoothed), color=colour, linewidth=1.5, marker=marker, markersize=3.2, zorder=3)


def _widen(axes: Any) -> None:
    """Show a level curve as level, not the rounding errors in it."""
    low, high = axes.get_ylim()
    size = max(abs(low), abs(high))
    if high - low < 1e-6 * size:
        axes.set_ylim(low - size / 20, high + size / 20)


def _dress(axes: Any, xlabel: str, ylabel: str, title: str) -> None:
    """Only what helps reading: two thin lines, few ticks, no box."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=_LINE, linewidth=0.8)
    axes.tick_params(colors=_MUTED, length=3, width=0.8, labelsize=_FONT)
    axes.grid(axis="y", color=_LINE, linewidth=0.4)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.set_xlabel(xlabel, color=_MUTED, labelpad=3, parse_math=False)
    axes.set_ylabel(ylabel, color=_MUTED, labelpad=5, parse_math=False)
    if title:
        axes.figure.text(
            0.01, 0.985, title, color=_INK, fontsize=_FONT + 1, fontweight="bold", va="top", parse_math=False
        )


def _tick(value: float) -> str:
    """A short number: 6.5, 0.002, 3e-05, 12k."""
    if abs(value) >= 1e4:
        return count(value)
    return f"{value:,.4g}"


def _name_at_the_end(axes: Any, names: list[tuple[str, float]], colours: list[str], height: float) -> None:
    """Write each name at its level, right of the axes, pushed apart where they would touch."""
    low, high = axes.get_ylim()
    box = axes.get_position()
    room = box.height * height
    gap = 1.25 * _FONT / room
    wanted = [(y - low) / (high - low) for _, y in names]
    for (name, _), place, colour in zip(names, _apart(wanted, gap), colours, strict=True):
        style = {"color": colour, "va": "center", "fontsize": _FONT, "parse_math": False}
        axes.text(1.02, place, name, transform=axes.transAxes, **style)


def _apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Places at least `gap` from one another, in the same order, near where each was wanted."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = list(wanted)
    for below, at in itertools.pairwise(order):
        places[at] = max(places[at], places[below] + gap)
    # Pushing up moved the upper ones only: let each touching group settle around its wanted middle.
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or places[order[end]] - places[order[end - 1]] > gap * 1.001:
            group = order[start:end]
            shift = sum(places[i] - wanted[i] for i in group) / len(group)
            floor = places[order[start - 1]] + gap if start else -np.inf
            shift = min(shift, places[group[0]] - floor)
            for i in group:
                places[i] -= shift
            start = end
    return places


def _as_fragment(figure: Figure, label: str) -> str:
    """The figure as an `<svg>` element that needs nothing from outside and clashes with no other."""
    file = io.StringIO()
    FigureCanvasSVG(figure).print_svg(
        file, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(
        r"<svg[^>]*>",
        f'<svg class="plot" role="img" aria-label="{escape(label)}" {box[0]} stroke-linejoin="round">',
        svg,
        count=1,
    )
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    # The page's font, not matplotlib's; and a style element inside an SVG would hold for the whole page.
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    for stand_in, variable in _COLOURS.items():
        svg = svg.replace(stand_in, variable)
    return re.sub(r">\s+<", "><", svg)
