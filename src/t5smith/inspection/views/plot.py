"""Statistics as a picture: lengths of spans and of text, and the masked share by position.

Bars are counts; the line is what theory predicts.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from t5smith.inspection.statistics import DenoiserCounts, Statistics
from t5smith.pages import plot_style
from t5smith.pages.plot_style import DARK, FONT, LIGHT, Palette, dress, new_figure, style

_WIDTH, _ROW, _HEAD, _FOOT = 9.0, 2.25, 0.42, 0.1
_TITLE_LINE = 125
"""Characters in a line of the title."""
MAX_BARS = 40
"""Lengths are grouped into at most this many bars, positions into twice as many."""
_RARE = 0.001
"""Lengths beyond which fewer than this share lie are not drawn."""


def picture(
    statistics: Statistics,
    kind: str = "png",
    *,
    dark: bool = False,
    scale: float = 1.0,
    titled: bool = True,
) -> bytes:
    """The picture as a file: a row of three plots for each denoiser.

    Args:
      statistics: what is drawn.
      kind: `png`, `svg` or `pdf`.
      dark: light on dark.
      scale: 1 is 120 dots per inch, 9 inches wide.
      titled: write above it what was counted.
    """
    palette = DARK if dark else LIGHT
    denoisers = [counts for counts in statistics.denoisers if counts.windows]
    title = textwrap.wrap(statistics.source, _TITLE_LINE) if titled else []
    head = _HEAD + 0.16 * len(title)
    height = head + _ROW * len(denoisers) + _FOOT
    with style():
        figure = new_figure(_WIDTH, height, palette, dpi=120 * scale)
        grid: Any = figure.subplots(len(denoisers), 3, squeeze=False)
        figure.subplots_adjust(
            left=0.075,
            right=0.985,
            top=1 - head / height,
            bottom=(_FOOT + 0.42) / height,
            hspace=0.95 / (_ROW - 0.95),
            wspace=0.32,
        )
        text: Any = {"color": palette.ink, "va": "top", "parse_math": False}
        figure.text(0.01, 1 - 0.12 / height, "\n".join(title), **text)
        for row, counts in zip(grid, denoisers, strict=True):
            _draw_denoiser(row, counts, palette)
        # Which is counted and which is theory, once, above the last plot of the first row.
        key: Any = {"transform": grid[0][2].transAxes, "ha": "right", "va": "bottom", "fontsize": FONT}
        grid[0][2].text(0.72, 1.06, "■ counted", color=palette.series[0], **key)
        grid[0][2].text(1.0, 1.06, "— theory", color=palette.series[1], **key)
        return plot_style.file_of(figure, kind)


def _draw_denoiser(row: Any, counts: DenoiserCounts, palette: Palette) -> None:
    _draw_lengths(row[0], counts.span_lengths, counts.theory.span_lengths, palette)
    _draw_lengths(row[1], counts.text_lengths, counts.theory.text_lengths, palette)
    _draw_positions(row[2], counts, palette)
    names = "tokens in a masked span", "tokens in a stretch of text"
    if counts.task.lengths is None:
        names = "tokens to be predicted", "tokens in the inputs"
    ylabels = "share of each length", "share of each length", "share masked"
    for axes, xlabel, ylabel in zip(row, (*names, "position in the window"), ylabels, strict=True):
        dress(axes, palette, xlabel, ylabel, yticks=lambda value: f"{100 * value:.3g}%")
    title = f"{counts.task.denoiser.title}: {counts.windows:,} windows"
    row[0].set_title(title, loc="left", color=palette.ink, fontsize=FONT + 0.5, fontweight="bold", pad=9)


def binned(values: np.ndarray, most: int = MAX_BARS) -> tuple[np.ndarray, np.ndarray]:
    """Values in at most `most` groups of neighbours: the first index and the mean of each."""
    width = max(1, -(-len(values) // most))
    first = np.arange(0, len(values), width)
    return first, np.add.reduceat(values, first) / np.diff(np.append(first, len(values)))


def _draw_lengths(axes: Any, counted: np.ndarray, expected: np.ndarray, palette: Palette) -> None:
    share = counted[1:] / max(counted.sum(), 1)
    theory = expected[1:] / max(expected.sum(), 1e-300)
    # Draw from the shortest length to the longest one that is not rare.
    at_least = np.maximum(np.cumsum(share[::-1])[::-1], np.cumsum(theory[::-1])[::-1])
    last = int(np.flatnonzero(at_least > _RARE)[-1]) + 1
    at_most = np.maximum(np.cumsum(share), np.cumsum(theory))
    first = int(np.flatnonzero(at_most > 0)[0])
    if last - first == 1:  # a single length: show it between its neighbours
        first, last = max(0, first - 2), min(len(share), last + 2)
    at, bars = binned(share[first:last])
    _, points = binned(theory[first:last])
    size = np.diff(np.append(at, last - first))
    centre = at + first + 1 + (size - 1) / 2
    axes.bar(centre, bars, width=0.8 * size, color=palette.series[0], alpha=0.75, linewidth=0)
    axes.plot(centre, points, color=palette.series[1], linewidth=1.3, marker="o", markersize=2.6)


def _draw_positions(axes: Any, counts: DenoiserCounts, palette: Palette) -> None:
    W = len(counts.masked)
    at, masked = binned(counts.masked / counts.windows, 2 * MAX_BARS)
    axes.stairs(masked, np.append(at, W), color=palette.series[0], fill=True, alpha=0.75, linewidth=0)
    axes.plot(np.arange(W) + 0.5, counts.theory.masked, color=palette.series[1], linewidth=1.3)
    axes.set_ylim(0, max(1.15 * float(counts.theory.masked[: max(1, W - W // 50)].max()), 0.05))
    if counts.theory.masked.max() > axes.get_ylim()[1]:
        # The last position of an unrolled mask is always masked; with an axis up to 1 the rest would be flat.
        top = min(1.02, 2.5 * float(np.median(counts.theory.masked)) + 0.05)
        axes.set_ylim(0, max(top, axes.get_ylim()[1]))
    axes.set_xlim(0, W)
