"""The one style of all matplotlib figures: colours of the pages, two thin axes, few ticks, no box.

A figure is either a file, in the colours of light or dark pages, or part of a page, whose CSS then colours
it. The same values give the same bytes: nothing is dated, ids are hashes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator


@dataclass(frozen=True)
class Palette:
    """Colours: `series` are those of the data, in turn. Without `paper` the background is transparent."""

    paper: str | None
    ink: str
    muted: str
    line: str
    series: tuple[str, str, str]


# The colours of theme.css.
LIGHT = Palette("#fdfdfb", "#1d2021", "#676c70", "#dcdcd6", ("#1f6f8b", "#b4511e", "#5a7d2a"))
DARK = Palette("#16181a", "#e4e4df", "#9a9fa3", "#34383b", ("#6cb8d6", "#e58f5c", "#a3c76a"))
# Stand-ins, which `page_svg` replaces with CSS variables.
PAGE = Palette(None, "#010101", "#020202", "#030303", ("#040404", "#050505", "#060606"))
_VARIABLES = {
    "#010101": "var(--ink, #222)",
    "#020202": "var(--muted, #777)",
    "#030303": "var(--line, #ccc)",
    "#040404": "var(--series-1, #1f6f8b)",
    "#050505": "var(--series-2, #b4511e)",
    "#060606": "var(--series-3, #5a7d2a)",
}
FONT = 8.5
"""Size of the text in points."""


def style(salt: str = "t5smith") -> Any:
    """The settings under which a figure is made and saved, as a context; `salt` is part of an SVG's ids."""
    settings: Any = {
        "font.size": FONT,
        "font.family": "DejaVu Sans",
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
    }
    return mpl.rc_context(settings)


def new_figure(width: float, height: float, palette: Palette, *, dpi: float = 100) -> Figure:
    """An empty figure; width and height in inches."""
    figure = Figure(figsize=(width, height), dpi=dpi)
    if palette.paper is None:
        figure.patch.set_visible(False)
    else:
        figure.set_facecolor(palette.paper)
    return figure


def dress(
    axes: Any,
    palette: Palette,
    xlabel: str,
    ylabel: str,
    *,
    xticks: Callable[[float], str] | None = None,
    yticks: Callable[[float], str] | None = None,
) -> None:
    """Give axes their lines, ticks and labels.

    Args:
      axes: matplotlib axes.
      palette: their colours.
      xlabel: below the x-axis.
      ylabel: beside the y-axis.
      xticks: formats the values of the x-axis.
      yticks: formats the values of the y-axis.
    """
    axes.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=palette.line, linewidth=0.8)
    axes.tick_params(colors=palette.muted, length=3, width=0.8)
    axes.grid(axis="y", color=palette.line, linewidth=0.4)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for axis, form in ((axes.xaxis, xticks), (axes.yaxis, yticks)):
        if form is not None:
            axis.set_major_formatter(FuncFormatter(lambda value, _, form=form: form(value)))
    axes.set_xlabel(xlabel, color=palette.muted, labelpad=3, parse_math=False)
    axes.set_ylabel(ylabel, color=palette.muted, labelpad=5, parse_math=False)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file that looks the same without the font."""
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    return file.getvalue().encode()


def pdf(figure: Figure) -> bytes:
    """The figure as a PDF file, with its font."""
    file = io.BytesIO()
    with mpl.rc_context({"pdf.fonttype": 42}):
        FigureCanvasPdf(figure).print_pdf(
            file, metadata={"CreationDate": None, "Creator": None, "Producer": None}
        )
    return file.getvalue()


def file_of(figure: Figure, kind: str) -> bytes:
    """The figure as a file of a kind: `png`, `svg` or `pdf`. The same figure gives the same bytes."""
    return {"png": png, "svg": svg, "pdf": pdf}[kind](figure)


def page_svg(figure: Figure, label: str) -> str:
    """A figure in the colours of `PAGE` as an `<svg>` element that loads nothing and shares no id.

    Its text is in the page's font.
    """
    file = io.StringIO()
    FigureCanvasSVG(figure).print_svg(
        file, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    text = text.replace("xlink:href=", "href=")
    text = re.sub(
        r"<svg[^>]*>",
        f'<svg class="plot" role="img" aria-label="{escape(label)}" {box[0]} stroke-linejoin="round">',
        text,
        count=1,
    )
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    # A style element within an SVG would apply to the whole page.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    return re.sub(r">\s+<", "><", text)
