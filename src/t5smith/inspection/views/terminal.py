"""Inspections on a terminal and in a pipe: texts, rows of a store, statistics and losses.

Long rows are shortened by default: the arrays of 512 inputs would fill ten screens.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from t5smith.base.wrapping import pluralize, unpadded
from t5smith.inspection.results import Inspection, Row
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
from t5smith.pages.markup import SPAN_COLOURS

# Black on pale colours of the 256-colour cube: unlike the named colours no terminal theme changes them.
_STYLES = tuple(f"color(16) on color({paper})" for paper in (153, 223, 157, 183, 229, 122))
assert len(_STYLES) == SPAN_COLOURS
_MARGIN = 2
MAX_LINES, MAX_POSITIONS = 6, 12
"""Lines of inputs, and positions of the decoder, that are shown of a shortened row."""


def show(inspection: Inspection, console: Console, *, full: bool) -> None:
    """Print an inspection: rows or statistics, then the losses if a model is used."""
    statistics = inspection.statistics
    with unpadded(console):
        _show_rows(inspection.rows, console, full=full)
        if statistics is not None:
            console.print(Text(statistics_line(statistics)), soft_wrap=not console.is_terminal)
            console.print()
        if statistics is not None or inspection.model:
            from t5smith.inspection.views.tables import inspection_tables

            for table in inspection_tables(inspection, full=full):
                _show_table(table.title, table.lines, table.note, console)
        if statistics is not None and not full and len(statistics.denoisers) > 1:
            hint = "--full shows the lengths and positions of each denoiser, --plot draws them"
            console.print(Text(hint, "dim"))


def _show_rows(rows: Sequence[Row], console: Console, *, full: bool) -> None:
    """Print rows window by window, and a legend."""
    traces = [trace for row in rows for trace in row.windows]
    single = len(traces) == 1 and traces[0].place is None
    for at, row in enumerate(rows, start=1):
        if row.title:
            console.print(Text(row.title, "bold"))
            _inset(console, Text(row_line(row), "dim"))
        for number, trace in enumerate(row.windows, start=1):
            title = "Text"
            if len(row.windows) > 1:
                title = f"Segment {number} of {len(row.windows)}"
            elif len(rows) > 1 and not row.title:
                title = f"Denoiser {at} of {len(rows)}"
            heading = _heading(title, summary(trace) if single else short_summary(trace))
            _show_window(trace, console, full=full or trace.place is None, heading=heading)
    _inset(console, *(Text(line, style="dim") for line in legend(*traces)))
    for note in dict.fromkeys(note for trace in traces for note in trace.notes):
        console.print(Text.assemble(("note: ", "bold yellow"), note))


def _show_window(trace: Trace, console: Console, *, full: bool, heading: Text) -> None:
    console.print(heading)
    where = [Text(place(trace), style="dim"), Text()] if trace.place is not None else []
    _inset(console, *where, _marked(trace))
    console.print(_heading("Encoder input", f"{pluralize(len(trace.inputs), 'token')}, each above its id"))
    _inset(
        console,
        Text(trace.inputs_text),
        Text(),
        _interlinear(trace.inputs, console.width - _MARGIN, None if full else MAX_LINES),
    )
    console.print(_heading("Targets", f"{pluralize(len(trace.targets), 'token')}, one per line"))
    lines: list[RenderableType] = [Text(trace.targets_text), Text(), _decoder_table(trace, full)]
    if not full and (more := len(trace.targets) - MAX_POSITIONS) > 0:
        lines.append(_more(more, "position"))
    if trace.losses:
        lines += [Text(), Text(loss_line(trace.losses))]
    _inset(console, *lines)


def _inset(console: Console, *shown: RenderableType) -> None:
    if shown:
        console.print(Padding(Group(*shown), (0, 0, 1, _MARGIN), expand=False))


def _more(count: int, what: str) -> Text:
    return Text(f"… {pluralize(count, what)} more; --full shows all", style="dim")


def _style(span: int | None) -> str:
    return "" if span is None else _STYLES[span % SPAN_COLOURS]


def _heading(title: str, rest: str) -> Text:
    return Text.assemble((title, "bold"), "  ", (rest, "dim"))


def _marked(trace: Trace) -> Text:
    line = Text()
    for part, span in passage(trace):
        if span is None:
            line.append(part)
            continue
        line.append(" " * (len(part) - len(part.lstrip())))
        line.append(f"[{span}: {part.strip()}]", style=_style(span))
    return line


def _interlinear(tokens: Sequence[Token], width: int, most: int | None) -> Group:
    """Pieces in lines of at most `width` cells, each above its id; at most `most` lines."""
    rows: list[tuple[Text, Text]] = [(Text(no_wrap=True), Text(style="dim", no_wrap=True))]
    shown = 0
    for token in tokens:
        wide = max(cell_len(token.piece), len(str(token.id)))
        if rows[-1][0].cell_len and rows[-1][0].cell_len + wide > width:
            if len(rows) == most:
                break
            rows.append((Text(no_wrap=True), Text(style="dim", no_wrap=True)))
        above, below = rows[-1]
        above.append(token.piece, style=_style(token.span))
        above.append(" " * (wide - cell_len(token.piece) + 2))
        below.append(str(token.id).ljust(wide + 2))
        shown += 1
    rest = [_more(len(tokens) - shown, "token")] if shown < len(tokens) else []
    return Group(*(line for row in rows for line in row), *rest)


def _decoder_table(trace: Trace, full: bool) -> Table:
    pairs = list(zip(trace.decoder_inputs, trace.targets, strict=True))
    shown = list(enumerate(pairs if full else pairs[:MAX_POSITIONS]))
    if trace.losses:
        return _loss_table(trace, shown)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("position", justify="right")
    table.add_column("decoder input", overflow="fold")
    table.add_column("", style="dim")
    table.add_column("target", overflow="fold")
    for position, (decoder_input, target) in shown:
        table.add_row(str(position), _piece(decoder_input), "→", _piece(target))
    return table


def _loss_table(trace: Trace, shown: Sequence[tuple[int, tuple[Token, Token]]]) -> Table:
    """The decoder's positions with what a model predicts at each; narrow enough for 80 columns."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("at", justify="right")
    table.add_column("decoder input", overflow="fold")
    table.add_column("target", overflow="fold")
    for name in ("p", "nats", "rank"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(" top other guess", overflow="fold")
    for position, (decoder_input, target) in shown:
        # The id of the decoder input is not shown: it is that of the target in the line before.
        table.add_row(
            str(position),
            Text(decoder_input.piece, _style(decoder_input.span)),
            _piece(target),
            *_loss_cells(trace.losses[position]),
        )
    return table


def _loss_cells(loss: TokenLoss) -> tuple[str, str, str, Text]:
    other = Text.assemble(" ", loss.other.piece, (f" {probability(loss.other_probability)}", "dim"))
    return probability(loss.probability), f"{loss.nll:.3f}", f"{loss.rank:,}", other


def _piece(token: Token) -> Text:
    return Text.assemble((token.piece, _style(token.span)), (f" ({token.id})", "dim"))


def _show_table(title: str, lines: Sequence[Sequence[str]], note: str, console: Console) -> None:
    console.print(Text(title, "bold"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for number, name in enumerate(lines[0]):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for line in lines[1:]:
        table.add_row(*line)
    _inset(console, table, *([Text(), Text(note, style="dim")] if note else []))
