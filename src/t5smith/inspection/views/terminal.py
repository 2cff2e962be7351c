"""What is given to the model, on a terminal and in a pipe: texts, rows of a store, and the loss.

Long rows are shortened unless one asks for all of them: the arrays of 512 inputs would fill ten screens.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from t5smith.base.wrapping import pluralize, unpadded
from t5smith.inspection.query import View
from t5smith.inspection.rows import Row
from t5smith.inspection.trace import Token, TokenLoss, Trace
from t5smith.inspection.views.page import stats_line, view_tables
from t5smith.inspection.views.trace import Table as Content
from t5smith.inspection.views.trace import (
    chance,
    legend,
    loss_line,
    passage,
    place,
    row_line,
    short_summary,
    summary,
)
from t5smith.pages.markup import SPAN_COLOURS

# Black on pale colours of the 256-colour cube: unlike the named colours no terminal theme changes them.
_STYLES = tuple(f"color(16) on color({paper})" for paper in (153, 223, 157, 183, 229, 122))
assert len(_STYLES) == SPAN_COLOURS
_MARGIN = 2
MOST_LINES, MOST_POSITIONS = 6, 12
"""Of a shortened row so many lines of inputs and positions of the decoder are shown."""


def show(trace: Trace, console: Console, *, full: bool = True) -> None:
    """Print a trace: the text and its spans, what the encoder reads, what the decoder must say."""
    _window(trace, console, full=full, heading=_heading("Text", summary(trace)))
    _explain([trace], console)


def show_rows(rows: Sequence[Row], console: Console, *, full: bool = False) -> None:
    """Print rows window by window, and what one needs to know to read them."""
    windows = [trace for row in rows for trace in row.windows]
    for at, row in enumerate(rows, start=1):
        if row.title:
            console.print(Text(row.title, "bold"))
            _inset(console, Text(row_line(row), "dim"))
        for number, trace in enumerate(row.windows, start=1):
            heading = "Text"
            if len(row.windows) > 1:
                heading = f"Segment {number} of {len(row.windows)}"
            elif len(rows) > 1 and not row.title:
                heading = f"Denoiser {at} of {len(rows)}"
            alone = len(windows) == 1 and trace.place is None
            said = summary(trace) if alone else short_summary(trace)
            _window(trace, console, full=full, heading=_heading(heading, said))
    if windows:
        _explain(windows, console)


def _explain(traces: Sequence[Trace], console: Console) -> None:
    _inset(console, *(Text(line, style="dim") for line in legend(*traces)))
    for note in dict.fromkeys(note for trace in traces for note in trace.notes):
        console.print(Text.assemble(("note: ", "bold yellow"), note))


def _window(trace: Trace, console: Console, *, full: bool, heading: Text) -> None:
    console.print(heading)
    where = [Text(place(trace), style="dim"), Text()] if trace.place is not None else []
    _inset(console, *where, _marked(trace))
    console.print(
        _heading("Encoder reads", f"{pluralize(len(trace.inputs), 'token')}; below, each over its id")
    )
    _inset(
        console,
        Text(trace.inputs_text),
        Text(),
        _interlinear(trace.inputs, console.width - _MARGIN, None if full else MOST_LINES),
    )
    console.print(
        _heading("Decoder answers", f"{pluralize(len(trace.targets), 'token')}; below, one a position")
    )
    lines: list[RenderableType] = [Text(trace.targets_text), Text(), _decoder_table(trace, full)]
    if not full and (more := len(trace.targets) - MOST_POSITIONS) > 0:
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
    """Pieces in lines of at most `width` cells, each over its id; at most so many lines."""
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
    shown = list(enumerate(pairs if full else pairs[:MOST_POSITIONS]))
    if trace.losses:
        return _loss_table(trace, shown)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("position", justify="right")
    table.add_column("is fed", overflow="fold")
    table.add_column("", style="dim")
    table.add_column("must answer", overflow="fold")
    for position, (fed, label) in shown:
        table.add_row(str(position), _piece(fed), "→", _piece(label))
    return table


def _loss_table(trace: Trace, shown: Sequence[tuple[int, tuple[Token, Token]]]) -> Table:
    """The decoder's positions with what a model says of each; narrow enough for 80 columns."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("at", justify="right")
    table.add_column("is fed", overflow="fold")
    table.add_column("must answer", overflow="fold")
    for name in ("p", "nats", "rank"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(" likeliest other", overflow="fold")
    for position, (fed, label) in shown:
        # With so much beside it the id that is fed is left to the line before, where it is the answer.
        table.add_row(
            str(position),
            Text(fed.piece, _style(fed.span)),
            _piece(label),
            *_loss_cells(trace.losses[position]),
        )
    return table


def _loss_cells(loss: TokenLoss) -> tuple[str, str, str, Text]:
    other = Text.assemble(" ", loss.other.piece, (f" {chance(loss.other_probability)}", "dim"))
    return chance(loss.probability), f"{loss.nll:.3f}", f"{loss.rank:,}", other


def _piece(token: Token) -> Text:
    return Text.assemble((token.piece, _style(token.span)), (f" ({token.id})", "dim"))


def show_view(view: View, console: Console, *, full: bool) -> None:
    """Print a view: a text, rows or counts, then the loss where a model was asked."""
    short = any(trace.place is not None for row in view.rows for trace in row.windows) and not full
    with unpadded(console):
        show_rows(view.rows, console, full=not short)
        if view.stats is not None:
            console.print(Text(stats_line(view.stats)), soft_wrap=not console.is_terminal)
            console.print()
        for table in view_tables(view, full=full):
            _table(table, console)
        if view.stats is not None and not full and len(view.stats.tallies) > 1:
            console.print(
                Text("--full shows the lengths and places of each denoiser, --plot draws them", "dim")
            )


def _table(table: Content, console: Console) -> None:
    console.print(Text(table.title, "bold"))
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for number, name in enumerate(table.lines[0]):
        shown.add_column(name, justify="right" if number else "left", overflow="fold")
    for line in table.lines[1:]:
        shown.add_row(*line)
    _inset(console, shown, *([Text(), Text(table.note, style="dim")] if table.note else []))
