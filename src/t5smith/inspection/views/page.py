"""Inspections as HTML: a whole page, and the parts that a report includes.

Each masked span has a number and a colour, the same wherever it appears.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from t5smith.base.wrapping import pluralize
from t5smith.inspection.results import Inspection
from t5smith.inspection.trace import Token, TokenLoss, Trace
from t5smith.inspection.views.captions import (
    legend,
    loss_line,
    passage,
    place,
    probability,
    row_line,
    short_summary,
    statistics_line,
    summary,
)
from t5smith.pages.markup import SPAN_COLOURS, Html, document, join, stylesheet, tag

if TYPE_CHECKING:
    from t5smith.inspection.statistics import Statistics
    from t5smith.inspection.views.tables import Table

MAX_POSITIONS = 64
"""Positions of the inputs and of the targets that are shown of a shortened row."""


def page(inspection: Inspection, *, full: bool) -> str:
    """The page of an inspection, in light and dark, that loads nothing; with `full` nothing is shortened."""
    traces = [trace for row in inspection.rows for trace in row.windows]
    single = len(traces) == 1 and traces[0].place is None
    parts: list[Html] = [tag("h1", inspection.title)]
    for row in inspection.rows:
        if row.title:
            parts += [tag("h2", row.title), tag("p", f"{row_line(row)}.", class_="note")]
        for number, trace in enumerate(row.windows, start=1):
            if len(row.windows) > 1:
                parts.append(tag("h3", f"Segment {number} of {len(row.windows)}", class_="segment"))
            elif len(inspection.rows) > 1 and not row.title:
                parts.append(tag("h2", trace.denoiser))
            most = None if full or trace.place is None else MAX_POSITIONS
            parts.append(fragment(trace, most=most, explain=single))
    if not single:
        parts.append(explanation(*traces))
    if inspection.statistics is not None:
        line = statistics_line(inspection.statistics)
        parts += [tag("p", f"{line}.", class_="note"), _picture(inspection.statistics)]
    if inspection.statistics is not None or inspection.model:
        from t5smith.inspection.views.tables import inspection_tables

        parts += [_table(table) for table in inspection_tables(inspection, full=True)]
    styles = [
        stylesheet("t5smith.pages", "theme.css"),
        stylesheet("t5smith.inspection.views", "inspect.css"),
    ]
    return document(inspection.title, join(parts), styles)


def fragment(trace: Trace, *, most: int | None = None, explain: bool = True) -> Html:
    """The part of a page that shows a trace.

    Args:
      trace: the trace.
      most: positions of the inputs and of the targets to show. Default: all.
      explain: add the legend and the full summary; without it, the trace is one of several.
    """

    def more(count: int) -> Html | None:
        return (
            tag("p", f"… {pluralize(count, 'token')} more; --full shows all", class_="note")
            if count > 0
            else None
        )

    cells = _decoder_cells(trace)
    shown = len(cells) if most is None else most
    return join(
        [
            tag("h3", "Text"),
            tag("p", f"{summary(trace) if explain else short_summary(trace)}.", class_="note"),
            None if trace.place is None else tag("p", f"{place(trace)}.", class_="note"),
            tag("p", marked_passage(trace), class_="passage"),
            tag("h3", "Encoder input"),
            tag("ol", *(_cell(token) for token in trace.inputs[:most]), class_="strip"),
            more(len(trace.inputs) - shown) if most is not None else None,
            tag("h3", "Decoder input, and target below"),
            tag("ol", *cells[:most], class_="strip decoder"),
            more(len(cells) - shown) if most is not None else None,
            tag("p", f"{loss_line(trace.losses)}.", class_="sum") if trace.losses else None,
            explanation(trace) if explain else None,
        ]
    )


def explanation(*traces: Trace) -> Html:
    """The legend, and notes where a mask differs from the requested one."""
    notes = dict.fromkeys(note for trace in traces for note in trace.notes)
    return join(
        [
            *(tag("p", line, class_="note") for line in legend(*traces)),
            *(tag("p", tag("strong", "Note: "), note) for note in notes),
        ]
    )


def marked_passage(trace: Trace) -> Html:
    """The text with its masked spans coloured and numbered."""
    return join(part if span is None else marked(part, span) for part, span in passage(trace))


def marked(text: str, span: int) -> Html:
    """Text in the colour of a span, with its number; surrounding spaces stay outside."""
    inner = text.strip()
    left, right = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return join([left, tag("mark", inner, tag("sup", str(span)), class_=f"s{span % SPAN_COLOURS}"), right])


def _cell(token: Token) -> Html:
    colour = None if token.span is None else f"s{token.span % SPAN_COLOURS}"
    return tag("li", token.piece, tag("small", str(token.id)), class_=colour)


def _decoder_cells(trace: Trace) -> list[Html]:
    cells: list[Html] = []
    for position, (decoder_input, target) in enumerate(zip(trace.decoder_inputs, trace.targets, strict=True)):
        colour = "" if target.span is None else f" s{target.span % SPAN_COLOURS}"
        cells.append(
            tag(
                "li",
                tag("span", str(position), class_="at"),
                tag("span", decoder_input.piece, class_="fed"),
                tag("span", target.piece, tag("small", str(target.id)), class_=f"target{colour}"),
                _prediction(trace.losses[position]) if trace.losses else None,
            )
        )
    return cells


def _prediction(loss: TokenLoss) -> Html:
    """What a model predicts: probability of the target (also as a bar), nats, rank, top other guess."""
    return tag(
        "span",
        tag("span", tag("span", class_="bar", style=f"width:{100 * loss.probability:.1f}%"), class_="gauge"),
        f"{probability(loss.probability)}, {loss.nll:.2f} nats",
        tag("small", f"rank {loss.rank:,}"),
        tag("small", f"top other {loss.other.piece} {probability(loss.other_probability)}"),
        class_="prediction",
    )


def _table(table: Table) -> Html:
    head, *lines = table.lines
    return join(
        [
            tag("h3", table.title),
            tag("p", table.note, class_="note") if table.note else None,
            tag(
                "div",
                tag(
                    "table",
                    tag("thead", tag("tr", *(tag("th", cell) for cell in head))),
                    tag(
                        "tbody",
                        *(tag("tr", *(tag("td", cell) for cell in line)) for line in lines),
                    ),
                ),
                class_="wide",
            ),
        ]
    )


def _picture(statistics: Statistics) -> Html:
    """The plot for light and for dark pages; the browser shows the one it needs."""
    from t5smith.inspection.views.plot import picture

    light, dark = (
        "data:image/png;base64,"
        + b64encode(picture(statistics, dark=is_dark, scale=1.5, titled=False)).decode()
        for is_dark in (False, True)
    )
    words = (
        "Lengths of spans and of the text between them, and masked share by position: counted and in theory"
    )
    return tag(
        "picture",
        Html(f'<source srcset="{dark}" media="(prefers-color-scheme: dark)">'),
        Html(f'<img src="{light}" alt="{words}">'),
    )
