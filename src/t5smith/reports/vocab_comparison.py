"""A comparison of vocabularies: a table on the terminal, JSON, or a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from t5smith.base.wrapping import pluralize, unpadded
from t5smith.pages.facts import percent, size
from t5smith.pages.plot_style import FONT, LIGHT, dress, file_of, new_figure, style
from t5smith.pages.written import PICTURES, kind_of, write_file
from t5smith.recipe.recipe import Recipe
from t5smith.vocabulary.compare import Comparison, MeasuredVocabulary, compare_vocabularies

WIDTH = 80
"""Columns in a pipe."""
_FIGURES = 54
"""Columns of the figures; the rest is for the name."""
_NAME = 28
"""Characters of the longest name in a picture."""
_PANELS = (
    ("ids", "ids", "{:,.0f}"),
    ("bytes_per_token", "bytes per token", "{:.2f}"),
    ("tokens_per_word", "tokens per word", "{:.2f}"),
    ("unknown_rate", "unknown", ""),
    ("used_rate", "pieces used", ""),
)
_FIGURE, _BAR, _HEAD, _FOOT = 9.0, 0.3, 0.66, 0.12


def compare(
    recipe: Recipe,
    tokenizers: Sequence[str],
    max_bytes: int,
    *,
    plot: Path | None = None,
    as_json: bool = False,
) -> None:
    """Print how well tokenizers suit a recipe's held-out text: `t5smith vocab --compare`.

    Args:
      recipe: its held-out text is used.
      tokenizers: the tokenizers to compare.
      max_bytes: the most held-out text to use.
      plot: a .png, .svg or .pdf file for the picture.
      as_json: print one JSON object instead of a table.

    Raises:
      T5smithError: what :func:`compare_vocabularies` raises, or the picture cannot be written.
    """
    kind = kind_of(plot, "--plot", PICTURES) if plot else ""
    found = compare_vocabularies(recipe, tokenizers, max_bytes)
    if plot:
        write_file(plot, picture(found, kind))
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
    else:
        show(found)


def shortened(name: str, width: int) -> str:
    """A name without its beginning if it is too long: names differ at their ends."""
    return name if len(name) <= width else f"…{name[1 - width :]}"


def show(found: Comparison, console: Console | None = None) -> None:
    """Print the table, as wide as the terminal, or 80 columns in a pipe."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH, highlight=False)
    width = max(12, console.width - _FIGURES)
    names = [shortened(one.name, width) for one in found.vocabularies]
    best = max(one.bytes_per_token for one in found.vocabularies)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("tokenizer", no_wrap=True)
    for title in ("ids", "sentinels", "bytes/\ntoken", "tokens/\nword", "unknown", "used"):
        table.add_column(title, justify="right", no_wrap=True, vertical="bottom")
    for name, one in zip(names, found.vocabularies, strict=True):
        table.add_row(
            Text(name),
            f"{one.ids:,}",
            str(one.sentinels),
            Text(f"{one.bytes_per_token:.3f}", "bold green" if one.bytes_per_token == best else ""),
            f"{one.tokens_per_word:.3f}",
            percent(one.unknown_rate),
            percent(one.used_rate),
        )
    with unpadded(console):
        console.print(Text(_sample_line(found), "dim"))
        console.print(table)
        if any(one.longest for one in found.vocabularies):
            console.print(Text("longest pieces in this text (▁ is a space)", "bold"))
            for name, one in zip(names, found.vocabularies, strict=True):
                line = Text(f"{name:<{max(map(len, names))}}  ")
                line.append("  ".join(one.longest) or "none (bytes)", "cyan" if one.longest else "dim")
                console.print(line, no_wrap=True, overflow="ellipsis")


def _sample_line(found: Comparison) -> str:
    which = "all of it" if found.whole else "its beginning"
    return (
        f"{size(found.bytes)} of held-out text ({which}), {pluralize(found.documents, 'document')}, "
        f"{pluralize(found.words, 'word')}"
    )


def picture(found: Comparison, kind: str) -> bytes:
    """The figures as bars, one panel each, as `png`, `svg` or `pdf`. The same figures give the same bytes."""
    rows = len(found.vocabularies)
    height = _HEAD + _BAR * rows + _FOOT
    with style():
        figure = new_figure(_FIGURE, height, LIGHT, dpi=180)
        panels: Any = figure.subplots(1, len(_PANELS), sharey=True, squeeze=False)[0]
        names = [shortened(one.name, _NAME) for one in found.vocabularies]
        left = (0.3 + 0.072 * max(map(len, names))) / _FIGURE
        sides = {"top": 1 - _HEAD / height, "bottom": _FOOT / height}
        figure.subplots_adjust(left=left, right=0.985, wspace=0.1, **sides)
        text: Any = {"color": LIGHT.muted, "va": "top", "parse_math": False}
        figure.text(0.012, 1 - 0.12 / height, _sample_line(found), **text)
        for axes, (field, title, form) in zip(panels, _PANELS, strict=True):
            _bars(axes, found.vocabularies, field, title, form)
        panels[0].set_yticks(range(rows), names, color=LIGHT.ink, parse_math=False)
        panels[0].invert_yaxis()
        return file_of(figure, kind)


def _bars(axes: Any, measured: Sequence[MeasuredVocabulary], field: str, title: str, form: str) -> None:
    """One figure of every vocabulary, each bar with its value."""
    values = [float(getattr(one, field)) for one in measured]
    dress(axes, LIGHT, "", "")
    axes.grid(visible=False)
    axes.barh(range(len(values)), values, height=0.62, color=LIGHT.series[0], alpha=0.8, linewidth=0)
    longest = max(values) or 1.0
    axes.set_xlim(0, 1.55 * longest)
    for row, value in enumerate(values):
        words = form.format(value) if form else percent(value)
        axes.text(value + 0.03 * longest, row, words, va="center", color=LIGHT.ink)
    axes.set_title(title, loc="left", fontsize=FONT + 0.5, fontweight="bold", color=LIGHT.ink, pad=6)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
