"""Counts beside the theory as a picture: lengths of spans, stretches of text, masked share by place.

Bars and steps are what was counted; the line is what the law of the masks says. Nothing is dated, so the
same counts give the same bytes.
"""

from __future__ import annotations

import io
import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from t5smith.inspection.statistics import Stats, Tally

# The page's colours (theme.css), on paper and in the dark.
LIGHT = {"paper": "#fdfdfb", "ink": "#1d2021", "muted": "#676c70", "line": "#dcdcd6", "counted": "#1f6f8b"}
DARK = {"paper": "#16181a", "ink": "#e4e4df", "muted": "#9a9fa3", "line": "#34383b", "counted": "#6cb8d6"}
_THEORY = {"light": "#b4511e", "dark": "#e58f5c"}
_WIDTH, _ROW, _HEAD, _FOOT = 9.0, 2.25, 0.42, 0.1
_LINE = 125
"""Characters of a line of the title."""
MOST_BARS = 40
"""Lengths and places are put together in so many bars at most."""
_RARE = 0.001
"""Lengths beyond which fewer than this share lie are not drawn."""


def png(stats: Stats, *, dark: bool = False, scale: float = 1.0, titled: bool = True) -> bytes:
    """The picture of some counts as a PNG: a row of three plots for each denoiser.

    Args:
      stats: the counts.
      dark: light on dark.
      scale: 1 is 120 dots an inch, 9 inches wide.
      titled: say above it what was counted.
    """
    colours = DARK if dark else LIGHT
    theory = _THEORY["dark" if dark else "light"]
    tallies = [tally for tally in stats.tallies if tally.windows]
    title = textwrap.wrap(stats.source, _LINE) if titled else []
    head = _HEAD + 0.16 * len(title)
    height = head + _ROW * len(tallies) + _FOOT
    settings: Any = {"font.size": 8.5, "font.family": "DejaVu Sans"}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(_WIDTH, height), dpi=120 * scale, facecolor=colours["paper"])
        canvas = FigureCanvasAgg(figure)
        grid: Any = figure.subplots(len(tallies), 3, squeeze=False)
        figure.subplots_adjust(
            left=0.075,
            right=0.985,
            top=1 - head / height,
            bottom=(_FOOT + 0.42) / height,
            hspace=0.95 / (_ROW - 0.95),
            wspace=0.27,
        )
        style: Any = {"color": colours["ink"], "va": "top", "parse_math": False}
        figure.text(0.01, 1 - 0.12 / height, "\n".join(title), **style)
        for row, tally in zip(grid, tallies, strict=True):
            _lengths(row[0], tally.span_lengths, tally.theory.span_lengths, colours, theory)
            _lengths(row[1], tally.text_lengths, tally.theory.text_lengths, colours, theory)
            _places(row[2], tally, colours, theory)
            told = tally.task.lengths is None
            names = ("part to be told", "part given") if told else ("masked span", "stretch of text")
            for axes, name in zip(row, (*names, "place in the window"), strict=True):
                _dress(axes, colours, f"tokens in a {name}" if axes is not row[2] else name)
            title = f"{tally.task.denoiser.title}: {tally.windows:,} windows"
            row[0].set_title(title, loc="left", color=colours["ink"], fontsize=9, fontweight="bold", pad=9)
            row[0].set_ylabel("share of each length", color=colours["muted"])
            row[1].set_ylabel("share of each length", color=colours["muted"])
            row[2].set_ylabel("share masked", color=colours["muted"])
        _legend(grid[0][2], colours, theory)
        file = io.BytesIO()
        canvas.print_png(file, metadata={"Software": None})
    return file.getvalue()


def binned(values: np.ndarray, most: int = MOST_BARS) -> tuple[np.ndarray, np.ndarray]:
    """Values put together in at most so many neighbouring groups: the first place of each, and the means."""
    width = max(1, -(-len(values) // most))
    first = np.arange(0, len(values), width)
    return first, np.add.reduceat(values, first) / np.diff(np.append(first, len(values)))


def _lengths(
    axes: Any, counted: np.ndarray, expected: np.ndarray, colours: dict[str, str], line: str
) -> None:
    share = counted[1:] / max(counted.sum(), 1)
    law = expected[1:] / max(expected.sum(), 1e-300)
    # Beyond the longest that is not rare there is nothing to see, nor before the shortest.
    rest = np.maximum(np.cumsum(share[::-1])[::-1], np.cumsum(law[::-1])[::-1])
    last = int(np.flatnonzero(rest > _RARE)[-1]) + 1
    begun = np.maximum(np.cumsum(share), np.cumsum(law))
    first = int(np.flatnonzero(begun > 0)[0])
    if last - first == 1:  # one length alone: show it between its neighbours
        first, last = max(0, first - 2), min(len(share), last + 2)
    at, bars = binned(share[first:last])
    _, points = binned(law[first:last])
    size = np.diff(np.append(at, last - first))
    centre = at + first + 1 + (size - 1) / 2
    axes.bar(centre, bars, width=0.8 * size, color=colours["counted"], alpha=0.75, linewidth=0)
    axes.plot(centre, points, color=line, linewidth=1.3, marker="o", markersize=2.6)


def _places(axes: Any, tally: Tally, colours: dict[str, str], line: str) -> None:
    W = len(tally.masked)
    at, masked = binned(tally.masked / tally.windows, 2 * MOST_BARS)
    axes.stairs(masked, np.append(at, W), color=colours["counted"], fill=True, alpha=0.75, linewidth=0)
    axes.plot(np.arange(W) + 0.5, tally.theory.masked, color=line, linewidth=1.3)
    axes.set_ylim(0, max(1.15 * float(tally.theory.masked[: max(1, W - W // 50)].max()), 0.05))
    if tally.theory.masked.max() > axes.get_ylim()[1]:
        # The last place of an unrolled mask is always masked; drawn to 1, the rest would be flat.
        top = min(1.02, 2.5 * float(np.median(tally.theory.masked)) + 0.05)
        axes.set_ylim(0, max(top, axes.get_ylim()[1]))
    axes.set_xlim(0, W)


def _dress(axes: Any, colours: dict[str, str], xlabel: str) -> None:
    """Only what helps reading: two thin lines, few ticks, no box."""
    axes.set_facecolor(colours["paper"])
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=colours["line"], linewidth=0.8)
    axes.tick_params(colors=colours["muted"], length=3, width=0.8)
    axes.grid(axis="y", color=colours["line"], linewidth=0.4)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
    axes.set_xlabel(xlabel, color=colours["muted"], labelpad=2)


def _legend(axes: Any, colours: dict[str, str], line: str) -> None:
    """Which is counted and which is theory, once, above the last plot of the first row."""
    style = {"transform": axes.transAxes, "ha": "right", "va": "bottom", "fontsize": 8.5}
    axes.text(0.72, 1.06, "■ counted", color=colours["counted"], **style)
    axes.text(1.0, 1.06, "— theory", color=line, **style)
