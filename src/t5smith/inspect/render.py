"""A trace for a terminal, for a program and for a browser.

Masked spans have a number and a colour, the same wherever they appear. The number stands beside the
colour, so nothing is lost without colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from t5smith.inspect.markup import SPAN_COLOURS, Html, document, join, stylesheet, tag
from t5smith.inspect.trace import Token, Trace

# Black on pale colours of the 256-colour cube: unlike the named colours no terminal theme changes them.
_STYLES = tuple(f"color(16) on color({paper})" for paper in (153, 223, 157, 183, 229, 122))
assert len(_STYLES) == SPAN_COLOURS
_MARGIN = 2


def show(trace: Trace, console: Console) -> None:
    """Print a trace: the text and its spans, what the encoder reads, what the decoder must say."""

    def inset(*shown: RenderableType) -> None:
        console.print(Padding(Group(*shown), (0, 0, 1, _MARGIN), expand=False))

    console.print(_heading("Text", summary(trace)))
    inset(_marked(trace))
    console.print(_heading("Encoder reads", f"{len(trace.inputs)} tokens; below, each over its id"))
    inset(Text(trace.inputs_text), Text(), _interlinear(trace.inputs, console.width - _MARGIN))
    console.print(_heading("Decoder answers", f"{len(trace.labels)} tokens; below, one a position"))
    inset(Text(trace.targets_text), Text(), _decoder_table(trace))
    inset(*(Text(line, style="dim") for line in legend(trace)))
    for note in trace.notes:
        console.print(Text.assemble(("note: ", "bold yellow"), note))


def summary(trace: Trace) -> str:
    """The lengths in a line."""
    lengths = trace.lengths
    spans = f"{lengths.spans} span" + "s" * (lengths.spans != 1)
    line = f"{lengths.window} tokens, {lengths.noise} of them masked in {spans}"
    if trace.drawn:
        density, mean = trace.noise_density, trace.mean_noise_span_length
        line += f" (density {density:g}, mean span {mean:g}, seed {trace.seed})"
    return line


def legend(trace: Trace) -> list[str]:
    """What a newcomer needs to know to read the picture."""
    lines = [
        "▁ is a space. To the encoder a masked span is one <extra_id_N>. The decoder gives each span's "
        "sentinel and then what stood there; while training it is fed the right answers, one position late."
    ]
    if trace.mask[-1]:
        lines.append("The text ends masked, as in training, so no sentinel closes the last span.")
    else:
        lines.append(
            f"<extra_id_{trace.lengths.spans}> closes the last span because text follows it. "
            "Masks drawn for training always reach the end, so training shows no closing sentinel."
        )
    return lines


def as_json(trace: Trace) -> dict[str, Any]:
    """A trace as what JSON can hold."""
    return {
        "text": trace.text,
        "tokens": [
            asdict(token) | {"masked": masked} for token, masked in zip(trace.tokens, trace.mask, strict=True)
        ],
        "spans": [asdict(span) for span in trace.spans],
        "inputs": trace.inputs_text,
        "targets": trace.targets_text,
        "input_ids": [token.id for token in trace.inputs],
        "input_pieces": [token.piece for token in trace.inputs],
        "decoder_input_ids": [token.id for token in trace.decoder_inputs],
        "decoder_input_pieces": [token.piece for token in trace.decoder_inputs],
        "labels": [token.id for token in trace.labels],
        "label_pieces": [token.piece for token in trace.labels],
        "lengths": asdict(trace.lengths),
        "drawn": trace.drawn,
        "noise_density": trace.noise_density,
        "mean_noise_span_length": trace.mean_noise_span_length,
        "seed": trace.seed,
        "notes": list(trace.notes),
    }


def as_html(trace: Trace) -> str:
    """A page of its own, in light and dark, that needs nothing from outside."""
    title = "What T5 sees"
    return document(title, join([tag("h1", title), fragment(trace)]), [theme()])


def theme() -> str:
    """The stylesheet that a page with :func:`fragment` needs."""
    return stylesheet("t5smith.inspect", "theme.css")


def fragment(trace: Trace) -> Html:
    """The picture of a trace, to be put into a page."""
    return join(
        [
            tag("h3", "Text"),
            tag("p", f"{summary(trace)}.", class_="note"),
            tag("p", marked_passage(trace), class_="passage"),
            tag("h3", "Encoder reads"),
            tag("ol", *(_cell(token) for token in trace.inputs), class_="strip"),
            tag("h3", "Decoder is fed, and must answer"),
            tag("ol", *_decoder_cells(trace), class_="strip decoder"),
            *(tag("p", line, class_="note") for line in legend(trace)),
            *(tag("p", tag("strong", "Note: "), note) for note in trace.notes),
        ]
    )


def marked_passage(trace: Trace) -> Html:
    """The text with its masked spans coloured and numbered."""
    return join(part if span is None else marked(part, span) for part, span in _segments(trace))


def marked(text: str, span: int) -> Html:
    """Text in the colour of a span, with its number; the spaces around it stay outside."""
    inner = text.strip()
    left, right = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return join([left, tag("mark", inner, tag("sup", str(span)), class_=f"s{span % SPAN_COLOURS}"), right])


def _segments(trace: Trace) -> list[tuple[str, int | None]]:
    """The text cut where masking begins and ends."""
    parts: list[tuple[str, int | None]] = []
    for token in trace.tokens:
        piece = token.piece.replace("▁", " ")
        if parts and parts[-1][1] == token.span:
            parts[-1] = (parts[-1][0] + piece, token.span)
        else:
            parts.append((piece, token.span))
    if parts:
        parts[0] = (parts[0][0].lstrip(), parts[0][1])
    return parts


def _cell(token: Token) -> Html:
    colour = None if token.span is None else f"s{token.span % SPAN_COLOURS}"
    return tag("li", token.piece, tag("small", str(token.id)), class_=colour)


def _decoder_cells(trace: Trace) -> list[Html]:
    cells: list[Html] = []
    for position, (fed, label) in enumerate(zip(trace.decoder_inputs, trace.labels, strict=True)):
        colour = "" if label.span is None else f" s{label.span % SPAN_COLOURS}"
        cells.append(
            tag(
                "li",
                tag("span", str(position), class_="at"),
                tag("span", fed.piece, class_="fed"),
                tag("span", label.piece, tag("small", str(label.id)), class_=f"label{colour}"),
            )
        )
    return cells


def _style(span: int | None) -> str:
    return "" if span is None else _STYLES[span % SPAN_COLOURS]


def _heading(title: str, rest: str) -> Text:
    return Text.assemble((title, "bold"), "  ", (rest, "dim"))


def _marked(trace: Trace) -> Text:
    line = Text()
    for part, span in _segments(trace):
        if span is None:
            line.append(part)
            continue
        line.append(" " * (len(part) - len(part.lstrip())))
        line.append(f"[{span}: {part.strip()}]", style=_style(span))
    return line


def _interlinear(tokens: Sequence[Token], width: int) -> Group:
    """Pieces in lines of at most `width` cells, each over its id."""
    rows: list[tuple[Text, Text]] = [(Text(no_wrap=True), Text(style="dim", no_wrap=True))]
    for token in tokens:
        wide = max(cell_len(token.piece), len(str(token.id)))
        if rows[-1][0].cell_len and rows[-1][0].cell_len + wide > width:
            rows.append((Text(no_wrap=True), Text(style="dim", no_wrap=True)))
        above, below = rows[-1]
        above.append(token.piece, style=_style(token.span))
        above.append(" " * (wide - cell_len(token.piece) + 2))
        below.append(str(token.id).ljust(wide + 2))
    return Group(*(line for row in rows for line in row))


def _decoder_table(trace: Trace) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("position", justify="right")
    table.add_column("is fed", overflow="fold")
    table.add_column("", style="dim")
    table.add_column("must answer", overflow="fold")
    for position, (fed, label) in enumerate(zip(trace.decoder_inputs, trace.labels, strict=True)):
        table.add_row(str(position), _piece(fed), "→", _piece(label))
    return table


def _piece(token: Token) -> Text:
    return Text.assemble((token.piece, _style(token.span)), (f" ({token.id})", "dim"))
