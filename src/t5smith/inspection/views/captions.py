"""The sentences of the views: what a window is, where it is from, and what a newcomer needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import TYPE_CHECKING

from t5smith.base.wrapping import pluralize
from t5smith.inspection.results import Row
from t5smith.inspection.trace import TokenLoss, Trace

if TYPE_CHECKING:
    from t5smith.inspection.statistics import Statistics


def summary(trace: Trace) -> str:
    """The lengths in a line, with the settings of a drawn mask."""
    lengths, mean = trace.lengths, trace.mean_noise_span_length
    masked = f"{lengths.noise} masked ({lengths.noise / lengths.window:.2%})"
    if trace.drawn and mean is None:
        settings = f"share of targets {trace.noise_density:g} on average"
        line = f"{lengths.window} tokens, the last {lengths.noise} to be predicted"
    else:
        rolled = ", rolled" if trace.roll else ""
        settings = f"density {trace.noise_density:g}, mean span {mean:g}{rolled}" if mean else ""
        line = f"{lengths.window} tokens, {masked} in {pluralize(lengths.spans, 'span')}"
    return f"{line} ({settings}, seed {trace.seed})" if trace.drawn else line


def short_summary(trace: Trace) -> str:
    """The denoiser and the lengths in a short line, for one of several windows."""
    lengths = trace.lengths
    if trace.mean_noise_span_length is None:
        return f"{trace.denoiser}; {lengths.noise} of {lengths.window} tokens to be predicted"
    spans = pluralize(lengths.spans, "span")
    return f"{trace.denoiser}; {lengths.noise} of {lengths.window} tokens masked in {spans}"


def place(trace: Trace) -> str:
    """Where a window of a store is from, in a line."""
    at = trace.place
    assert at is not None
    window = f"Window {at.window:,}" + (" of the run" if at.split == "train" else f" with mask {at.mask}")
    first, last = at.documents
    documents = f"document {first:,}" if first == last else f"documents {first:,} to {last:,}"
    corpus = f" (corpus {at.corpus})" if at.corpus != at.split else ""
    in_row = ""
    if at.input_at or at.target_at:
        in_row = f"; in the row from input {at.input_at} and target {at.target_at}"
    return (
        f"{window}: tokens {at.start:,} to {at.stop:,} of the {at.split} split{corpus}, {documents}{in_row}"
    )


def row_line(row: Row) -> str:
    """The shape of a row in a line, with its padding."""

    def positions(kind: str, length: int, padding: int) -> str:
        return f"{length} {kind} tokens" + (f" ({padding} padding)" if padding else "")

    inputs = positions("input", row.input_length, row.input_padding)
    targets = positions("target", row.target_length, row.target_padding)
    return f"{inputs}, {targets}, {pluralize(len(row.windows), 'window')}"


def loss_line(losses: Sequence[TokenLoss]) -> str:
    """How the losses of a window's targets sum up."""
    total = fsum(loss.nll for loss in losses)
    return (
        f"{total:.4f} nats over {pluralize(len(losses), 'token')}: {total / len(losses):.4f} nats per token"
    )


def statistics_line(statistics: Statistics) -> str:
    """What was counted, in a line."""
    batches = "1 batch" if statistics.batches == 1 else f"{statistics.batches:,} batches"
    shape = f"{statistics.input_length} input and {statistics.target_length} target tokens"
    windows = f"{pluralize(statistics.windows, 'window')} of {statistics.objective.window} tokens"
    return f"{statistics.source}; {batches}, {pluralize(statistics.rows, 'row')} of {shape}, {windows}"


def legend(*traces: Trace) -> list[str]:
    """What a newcomer needs to know to read the traces."""
    lines: list[str] = []
    modes = [[token.piece for token in trace.inputs[: trace.prefix]] for trace in traces]
    names = list(dict.fromkeys(" ".join(pieces) for pieces in modes if pieces))
    if names:
        are = "is the mode token and names" if len(names) == 1 else "are mode tokens and name"
        lines.append(f"{', '.join(names)} before the inputs {are} the kind of denoiser.")
    prefix_lm = [trace for trace in traces if trace.spans and trace.spans[0].sentinel is None]
    spans = [trace for trace in traces if trace not in prefix_lm]
    if spans:
        lines.append(
            "▁ is a space. In the inputs, a sentinel, <extra_id_N>, replaces each masked span. The targets "
            "are each sentinel, followed by the tokens that it replaced."
        )
    if prefix_lm:
        prefix = "For a denoiser without spans, the" if spans else "▁ is a space. The"
        lines.append(
            f"{prefix} inputs are the beginning of the text and the targets are the rest, without sentinels."
        )
    if traces:
        lines.append("In training, the decoder input is the targets shifted right by one position.")
    for trace in spans:
        noise, window = trace.lengths.noise, trace.lengths.window
        if trace.drawn and round(trace.noise_density * window, 9) != noise:
            lines.append(
                f"{noise} of {window} tokens are {noise / window:.2%}, not {trace.noise_density:.2%}: "
                "the number of masked tokens is rounded."
            )
            break
    if any(trace.mask[-1] for trace in spans):
        lines.append("The text ends with a masked span, as in training, so no sentinel closes the last span.")
    if any(trace.roll and not trace.mask[-1] for trace in spans):
        lines.append("Where text follows the last span, one more sentinel closes it: the masks are rolled.")
    lines += dict.fromkeys(
        f"<extra_id_{trace.lengths.spans}> closes the last span because text follows it. Masks drawn for "
        "training always reach the end of the text and need no closing sentinel."
        for trace in spans
        if not trace.roll and not trace.mask[-1]
    )
    return lines


def passage(trace: Trace) -> list[tuple[str, int | None]]:
    """The text split where masking begins and ends; each part with the number of its span."""
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


def probability(p: float) -> str:
    """A probability in few characters: 0.420, 0.013, 3e-05."""
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}"
