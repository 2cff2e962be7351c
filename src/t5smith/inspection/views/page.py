"""What the inspector shows as one page, in light and dark, that needs nothing from outside."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from t5smith.base.wrapping import pluralize
from t5smith.inspection.views.trace import Table, as_html, as_json, explanation, fragment, row_line, theme
from t5smith.pages.markup import Html, document, join, stylesheet, tag

if TYPE_CHECKING:
    from t5smith.inspection.query import View
    from t5smith.inspection.statistics import Stats

MOST = 64
"""Of a shortened row so many positions of either array are shown."""


def page(view: View, *, full: bool) -> str:
    """The page of a view; with `full` nothing is shortened."""
    tables = view_tables(view, full=True)
    traces = [trace for row in view.rows for trace in row.windows]
    if view.stats is None and not tables and len(traces) == 1 and traces[0].place is None:
        return as_html(traces[0])
    parts: list[Html] = [tag("h1", view.title)]
    one = len(traces) == 1 and traces[0].place is None
    for row in view.rows:
        if row.title:
            parts += [tag("h2", row.title), tag("p", f"{row_line(row)}.", class_="note")]
        for number, trace in enumerate(row.windows, start=1):
            if len(row.windows) > 1:
                parts.append(tag("h3", f"Segment {number} of {len(row.windows)}", class_="of"))
            elif len(view.rows) > 1 and not row.title:
                parts.append(tag("h2", trace.denoiser))
            most = None if full or trace.place is None else MOST
            parts.append(fragment(trace, most=most, explain=one))
    if not one:
        parts.append(explanation(*traces))
    if view.stats is not None:
        parts += [tag("p", f"{stats_line(view.stats)}.", class_="note"), _picture(view.stats)]
    parts += [_table(table) for table in tables]
    styles = [theme(), stylesheet("t5smith.inspection.views", "inspect.css")]
    return document(view.title, join(parts), styles)


def view_tables(view: View, *, full: bool) -> list[Table]:
    """The tables of a view: counts, and the loss where a model was asked."""
    if view.stats is None and not view.model:
        return []
    from t5smith.inspection.views.tables import loss_tables, tables

    counts = tables(view.stats, full=full) if view.stats is not None else []
    return counts + loss_tables(view)


def stats_line(stats: Stats) -> str:
    """What was counted, in a line."""
    batches = f"{stats.batches:,} batch" + "es" * (stats.batches != 1)
    rows = f"{pluralize(stats.rows, 'row')} of {stats.input_length} inputs and {stats.target_length} targets"
    windows = f"{pluralize(stats.windows, 'window')} of {stats.objective.window} tokens"
    return f"{stats.source}; {batches}, {rows}, {windows}"


def view_json(view: View) -> dict[str, Any]:
    """A view as what JSON can hold: of a text with one mask its trace, else rows of traces, or counts."""
    from_store = any(row.title for row in view.rows)
    said: dict[str, Any] = {"model": view.model} if view.model else {}
    if view.model or view.stats is not None:
        from t5smith.inspection.views.tables import loss_json, stats_json

        if view.stats is not None:
            return {"title": view.title, **said, **stats_json(view.stats)}
        said["loss"] = loss_json(view)
    if len(view.rows) == 1 and not from_store:
        return as_json(view.rows[0].windows[0]) | said
    rows = [
        {
            "title": row.title,
            "input_length": row.input_length,
            "target_length": row.target_length,
            "windows": [as_json(trace) for trace in row.windows],
        }
        for row in view.rows
    ]
    return {"title": view.title, **said, "rows": rows}


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


def _picture(stats: Stats) -> Html:
    """The plot twice, for light and for dark pages; a browser takes the one it needs."""
    from t5smith.inspection.views.plot import png

    light, dark = (
        "data:image/png;base64," + b64encode(png(stats, dark=is_dark, scale=1.5, titled=False)).decode()
        for is_dark in (False, True)
    )
    words = (
        "Counted lengths of spans and of text between them, and the masked share by place, over the theory"
    )
    return tag(
        "picture",
        Html(f'<source srcset="{dark}" media="(prefers-color-scheme: dark)">'),
        Html(f'<img src="{light}" alt="{words}">'),
    )
