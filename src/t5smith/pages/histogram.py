"""A histogram as inline SVG, in the style of the curves.

It does not use matplotlib, because importing it takes longer than preparing a small text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from t5smith.pages.markup import Html, join, tag

_FONT = 8.0
_CHARACTER = 0.58 * _FONT
"""Width of an average digit, by which the room for a label is estimated."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 34.0, 4.0, 24.0, 30.0
_COLOURS = ("var(--series-1)", "var(--series-2)", "var(--series-3)")
_FILLED = 0.84
"""Share of a group's width that its bars take."""


def histogram(
    edges: Sequence[str],
    series: Mapping[str, Sequence[float]],
    xlabel: str,
    title: str,
    *,
    size: tuple[float, float] = (330.0, 190.0),
) -> Html:
    """Groups of bars side by side, as an `<svg>` element in the page's colours.

    Args:
      edges: the lower edge of each group's interval, as text.
      series: name -> its share in each group; up to three series.
      xlabel: below the x-axis.
      title: above the figure, and for screen readers.
      size: width and height; the page scales the figure to its column.
    """
    width, height = size
    floor, across = height - _BOTTOM, width - _LEFT - _RIGHT
    top, step = _scale(max(max(shares) for shares in series.values()))
    each = across / len(edges)

    def y(share: float) -> float:
        return floor - share / top * (floor - _TOP)

    parts: list[Html] = []
    for i in range(round(top / step) + 1):
        parts.append(_line(_LEFT, y(i * step), width - _RIGHT, y(i * step), 0.4 if i else 0.8))
        parts.append(_text(f"{100 * i * step:g} %", _LEFT - 4, y(i * step) + 2.8, anchor="end"))
    for j, shares in enumerate(series.values()):
        wide = _FILLED * each / len(series)
        for i, share in enumerate(shares):
            left = _LEFT + (i + (1 - _FILLED) / 2) * each + j * wide
            parts.append(_bar(left, y(share), wide * 0.92, floor - y(share), _COLOURS[j]))
    longest = max(map(len, edges)) * _CHARACTER + 6
    for i in range(0, len(edges), max(1, math.ceil(longest / each))):
        place = _LEFT + i * each
        parts += [_line(place, floor, place, floor + 3, 0.8), _text(edges[i], place, floor + 11)]
    parts.append(_text(xlabel, _LEFT + across / 2, height - 6))
    parts.append(_text(title, 2, 9, anchor="start", fill="var(--ink)", size=_FONT + 1, weight="bold"))
    names = [tag("tspan", name, fill=_COLOURS[j]) for j, name in enumerate(series)]
    place = {"x": f"{width - _RIGHT:g}", "y": "9", "text_anchor": "end", "font_size": f"{_FONT:g}"}
    parts.append(tag("text", join(names, "\N{NO-BREAK SPACE}" * 3), **place))
    label = f"{title}: {xlabel}"
    return tag(
        "svg", *parts, class_="plot", role="img", aria_label=label, viewBox=f"0 0 {width:g} {height:g}"
    )


def _scale(most: float) -> tuple[float, float]:
    """The end of an axis that begins at 0, and the step of its ticks: 1, 2 or 5 times a power of ten."""
    rough = most / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return step * math.ceil(most / step - 1e-9), step


def _text(
    words: str,
    x: float,
    y: float,
    *,
    anchor: str = "middle",
    fill: str = "var(--muted)",
    size: float = _FONT,
    weight: str | None = None,
) -> Html:
    return tag(
        "text",
        words,
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        text_anchor=anchor,
        fill=fill,
        font_size=f"{size:g}",
        font_weight=weight,
    )


def _line(x1: float, y1: float, x2: float, y2: float, width: float) -> Html:
    path = f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"
    return tag("path", d=path, stroke="var(--line)", stroke_width=f"{width:g}")


def _bar(x: float, y: float, width: float, height: float, fill: str) -> Html:
    return tag("rect", x=f"{x:.2f}", y=f"{y:.2f}", width=f"{width:.2f}", height=f"{height:.2f}", fill=fill)
