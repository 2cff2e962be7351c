"""A trace in words, for a program and for a browser.

Masked spans have a number and a colour, the same wherever they appear. The number stands beside the
colour, so nothing is lost without colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum
from typing import Any

from t5smith.base.wrapping import pluralize
from t5smith.inspection.rows import Row
from t5smith.inspection.trace import Token, TokenLoss, Trace
from t5smith.pages.markup import SPAN_COLOURS, Html, document, join, stylesheet, tag


@dataclass(frozen=True)
class Table:
    """Lines of text under a title; the first line is the heads, the first column names the lines."""

    title: str
    note: str
    lines: tuple[tuple[str, ...], ...]


def summary(trace: Trace) -> str:
    """The lengths in a line."""
    lengths, mean = trace.lengths, trace.mean_noise_span_length
    if trace.drawn and mean is None:
        line = f"{lengths.window} tokens, the last {lengths.noise} of them to be told"
        return f"{line} (mean share {trace.noise_density:g}, seed {trace.seed})"
    spans = pluralize(lengths.spans, "span")
    line = f"{lengths.window} tokens, {lengths.noise} of them masked in {spans}"
    if trace.drawn:
        turned = ", rolled" * trace.roll
        line += f" (density {trace.noise_density:g}, mean span {mean:g}{turned}, seed {trace.seed})"
    return line


def short_summary(trace: Trace) -> str:
    """The denoiser and the lengths in a short line, for one of several windows."""
    lengths = trace.lengths
    if trace.mean_noise_span_length is None:
        return f"{trace.denoiser}; {lengths.noise} of {lengths.window} tokens to be told"
    spans = pluralize(lengths.spans, "span")
    return f"{trace.denoiser}; {lengths.noise} of {lengths.window} tokens masked in {spans}"


def place(trace: Trace) -> str:
    """Where a window of a store comes from, in a line."""
    at = trace.place
    assert at is not None
    window = f"Window {at.window:,} of the run" if at.split == "train" else f"Window {at.window:,}"
    mask = f" under mask {at.mask}" if at.split != "train" else ""
    first, last = at.documents
    documents = f"document {first:,}" if first == last else f"documents {first:,} to {last:,}"
    corpus = f" (corpus {at.corpus})" if at.corpus != at.split else ""
    segment = ""
    if at.input_at or at.target_at:
        segment = f"; in the row from input {at.input_at} and target {at.target_at} on"
    return (
        f"{window}{mask}: tokens {at.start:,} to {at.stop:,} of the {at.split} split{corpus}, "
        f"{documents}{segment}"
    )


def row_line(row: Row) -> str:
    """The shape of a row in a line, with what of it is empty."""

    def positions(what: str, length: int, padding: int) -> str:
        return f"{length} {what}" + (f" ({padding} of them padding)" if padding else "")

    inputs = positions("inputs", row.input_length, row.input_padding)
    targets = positions("targets", row.target_length, row.target_padding)
    return f"{inputs}, {targets}, {pluralize(len(row.windows), 'window')}"


def loss_line(losses: Sequence[TokenLoss]) -> str:
    """How the targets of a window sum to their loss."""
    total = fsum(loss.nll for loss in losses)
    return f"{total:.4f} nats over {pluralize(len(losses), 'token')}: {total / len(losses):.4f} a token"


def legend(*traces: Trace) -> list[str]:
    """What a newcomer needs to know to read the pictures."""
    lines: list[str] = []
    modes = [[token.piece for token in trace.inputs[: trace.prefix]] for trace in traces]
    names = list(dict.fromkeys(" ".join(pieces) for pieces in modes if pieces))
    if names:
        are = "is the mode token and says" if len(names) == 1 else "are mode tokens and say"
        lines.append(f"{', '.join(names)} before the inputs {are} which kind of denoiser it is.")
    told = [trace for trace in traces if trace.spans and trace.spans[0].sentinel is None]
    spans = [trace for trace in traces if trace not in told]
    late = "while training it is fed the right answers, one position late."
    if spans:
        lines.append(
            "▁ is a space. To the encoder a masked span is one <extra_id_N>. The decoder gives each span's "
            f"sentinel and then what stood there; {late}"
        )
    if told:
        space = "" if spans else "▁ is a space. "
        which = "Where the end is to be told, the" if spans else "The"
        lines.append(
            f"{space}{which} encoder gets the beginning of the text and the decoder gives the rest, without "
            f"any sentinel{'' if spans else f'; {late}'}{'.' if spans else ''}"
        )
    if any(trace.mask[-1] for trace in spans):
        lines.append("The text ends masked, as in training, so no sentinel closes the last span.")
    if any(trace.roll and not trace.mask[-1] for trace in spans):
        lines.append("Where text follows the last span one sentinel more closes it, as rolled masks allow.")
    lines += dict.fromkeys(
        f"<extra_id_{trace.lengths.spans}> closes the last span because text follows it. "
        "Masks drawn for training always reach the end, so training shows no closing sentinel."
        for trace in spans
        if not trace.roll and not trace.mask[-1]
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
        "target_ids": [token.id for token in trace.targets],
        "target_pieces": [token.piece for token in trace.targets],
        "lengths": asdict(trace.lengths),
        "drawn": trace.drawn,
        "noise_density": trace.noise_density,
        "mean_noise_span_length": trace.mean_noise_span_length,
        "seed": trace.seed,
        "notes": list(trace.notes),
        "denoiser": trace.denoiser,
        "mode_token": [token.piece for token in trace.inputs[: trace.prefix]],
        "place": None if trace.place is None else asdict(trace.place),
        "losses": [asdict(loss) for loss in trace.losses],
    }


def as_html(trace: Trace) -> str:
    """A page of its own, in light and dark, that needs nothing from outside."""
    title = "What T5 sees"
    return document(title, join([tag("h1", title), fragment(trace)]), [theme()])


def theme() -> str:
    """The stylesheet that a page with :func:`fragment` needs."""
    return stylesheet("t5smith.pages", "theme.css")


def fragment(trace: Trace, *, most: int | None = None, explain: bool = True) -> Html:
    """The picture of a trace, to be put into a page; of either array at most so many positions.

    Without `explain` it is one of several: its summary is short, and what all need to know is left out.
    """

    def more(count: int) -> Html | None:
        return tag("p", f"… {count:,} more; --full shows all", class_="note") if count > 0 else None

    cells = _decoder_cells(trace)
    shown = len(cells) if most is None else most
    return join(
        [
            tag("h3", "Text"),
            tag("p", f"{summary(trace) if explain else short_summary(trace)}.", class_="note"),
            None if trace.place is None else tag("p", f"{place(trace)}.", class_="note"),
            tag("p", marked_passage(trace), class_="passage"),
            tag("h3", "Encoder reads"),
            tag("ol", *(_cell(token) for token in trace.inputs[:most]), class_="strip"),
            more(len(trace.inputs) - shown) if most is not None else None,
            tag("h3", "Decoder is fed, and must answer"),
            tag("ol", *cells[:most], class_="strip decoder"),
            more(len(cells) - shown) if most is not None else None,
            tag("p", f"{loss_line(trace.losses)}.", class_="sum") if trace.losses else None,
            explanation(trace) if explain else None,
        ]
    )


def explanation(*traces: Trace) -> Html:
    """What a newcomer needs to know, and what was done other than asked."""
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
    """Text in the colour of a span, with its number; the spaces around it stay outside."""
    inner = text.strip()
    left, right = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return join([left, tag("mark", inner, tag("sup", str(span)), class_=f"s{span % SPAN_COLOURS}"), right])


def passage(trace: Trace) -> list[tuple[str, int | None]]:
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
    for position, (fed, label) in enumerate(zip(trace.decoder_inputs, trace.targets, strict=True)):
        colour = "" if label.span is None else f" s{label.span % SPAN_COLOURS}"
        cells.append(
            tag(
                "li",
                tag("span", str(position), class_="at"),
                tag("span", fed.piece, class_="fed"),
                tag("span", label.piece, tag("small", str(label.id)), class_=f"label{colour}"),
                _says(trace.losses[position]) if trace.losses else None,
            )
        )
    return cells


def _says(loss: TokenLoss) -> Html:
    """What a model says of a label: a bar as long as its probability, its nats, what else was likeliest."""
    return tag(
        "span",
        tag("span", tag("span", class_="bar", style=f"width:{100 * loss.probability:.1f}%"), class_="gauge"),
        f"{chance(loss.probability)}, {loss.nll:.2f} nats",
        tag("small", f"rank {loss.rank:,}"),
        tag("small", f"else {loss.other.piece} {chance(loss.other_probability)}"),
        class_="says",
    )


def chance(p: float) -> str:
    """A probability in few characters: 0.420, 0.013, 3e-05."""
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}"
