"""One window as the encoder and the decoder see it, as plain values.

Everything is read from the arrays that training and evaluation take; only the mask of a text may be chosen
by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from t5smith.inspection.batch import InspectedBatch
from t5smith.inspection.manual_masks import Surface, runs
from t5smith.objective.lengths import SpanLengths
from t5smith.vocabulary.vocabulary import Vocabulary
from t5smith.vocabulary.white_space import visible


@dataclass(frozen=True)
class Span:
    """Adjacent masked tokens, `start` to `stop`, and the sentinel that replaces them; prefix LM has none."""

    start: int
    stop: int
    sentinel: str | None
    sentinel_id: int | None
    text: str


@dataclass(frozen=True)
class Token:
    """One position of an array. `span` is the number of the masked span that it belongs to or replaces."""

    id: int
    piece: str
    span: int | None = None


@dataclass(frozen=True)
class TokenLoss:
    """What a model predicts at one position of the targets.

    Attributes:
      probability: of the target.
      nll: its cross-entropy in nats.
      rank: of the target; 1 if no other id is more likely.
      other, other_probability: the most likely of the other ids.
      log_z: logsumexp of the logits.
      kind: `text`, `sentinel` or `eos`, the classes of the evaluation.
    """

    probability: float
    nll: float
    rank: int
    other: Token
    other_probability: float
    log_z: float
    kind: str


@dataclass(frozen=True)
class Place:
    """Where a window of a store comes from.

    Attributes:
      split: `train` or `valid`.
      window: its number in the run, or in the held-out split.
      mask: the number of its mask.
      corpus: the corpus it begins in.
      start, stop: its tokens within the split.
      documents: the numbers of its first and last document in the split, from 0.
      row, segment: its place in the batch; the segments of a row are numbered from 1.
      input_at, target_at: its first position in the row's inputs and targets.
    """

    split: str
    window: int
    mask: int
    corpus: str
    start: int
    stop: int
    documents: tuple[int, int]
    row: int
    segment: int
    input_at: int
    target_at: int


@dataclass(frozen=True)
class Trace:
    """One window of text, and the inputs and targets that an objective makes of it.

    Attributes:
      text: the text after the tokenizer's normalisation.
      tokens: the text's tokens.
      mask: which of them are masked.
      spans: the masked spans, in order.
      inputs: the encoder's inputs, without padding.
      decoder_inputs: the targets shifted right by one; the first is the pad id.
      targets: what the decoder learns to predict.
      inputs_text: the inputs as text, without `</s>`.
      targets_text: the targets as text, without `</s>`.
      lengths: actual lengths; `targets` and `sentinels` include a closing sentinel.
      drawn: whether the mask was drawn as in training; else it was chosen by hand.
      noise_density: the density of a drawn mask.
      mean_noise_span_length: the mean span length of a drawn mask; None for prefix LM.
      seed: the seed of a drawn mask.
      notes: where the mask differs from the requested one.
      denoiser: the name of the denoiser that drew the mask; "" for a mask chosen by hand.
      prefix: number of inputs that are the mode token.
      eos: whether inputs and targets end with `</s>`.
      roll: whether masks are rotated by a random offset.
      place: where in the store the window is from, if it is.
      losses: for each target what a model predicts, if one is used.
    """

    text: str
    tokens: tuple[Token, ...]
    mask: tuple[bool, ...]
    spans: tuple[Span, ...]
    inputs: tuple[Token, ...]
    decoder_inputs: tuple[Token, ...]
    targets: tuple[Token, ...]
    inputs_text: str
    targets_text: str
    lengths: SpanLengths
    drawn: bool
    noise_density: float
    mean_noise_span_length: float | None
    seed: int
    notes: tuple[str, ...] = ()
    denoiser: str = ""
    prefix: int = 0
    eos: bool = True
    roll: bool = False
    place: Place | None = None
    losses: tuple[TokenLoss, ...] = ()


def trace_of(
    batch: InspectedBatch,
    window: int,
    vocabulary: Vocabulary,
    *,
    seed: int,
    drawn: bool = True,
    notes: Sequence[str] = (),
    losses: tuple[TokenLoss, ...] = (),
) -> Trace:
    """The trace of one window of a batch, given its number; the other arguments are attributes of `Trace`."""
    task = batch.objective.denoisers[int(batch.denoiser[window])]
    ids, mask = batch.windows[window], batch.masked[window]
    inputs, targets = (side.ids[side.window == window] for side in (batch.inputs, batch.targets))
    is_prefix_lm = task.lengths is None
    spans = _spans(batch, window, vocabulary)
    sentinels = batch.inputs.sentinel[batch.inputs.window == window].tolist()
    target_tokens = _target_tokens(vocabulary, targets, 0 if is_prefix_lm else None, len(spans), task.eos)
    span_of: list[int | None] = [None] * len(ids)
    for number, span in enumerate(spans):
        span_of[span.start : span.stop] = [number] * (span.stop - span.start)
    return Trace(
        text=Surface.of(vocabulary, ids).text,
        tokens=_tokens(vocabulary, ids, span_of),
        mask=tuple(mask.tolist()),
        spans=spans,
        inputs=_tokens(vocabulary, inputs, [None if number < 0 else number for number in sentinels]),
        decoder_inputs=(*_tokens(vocabulary, [vocabulary.pad_id], [None]), *target_tokens[:-1]),
        targets=target_tokens,
        inputs_text=_text(vocabulary, inputs, task.eos),
        targets_text=_text(vocabulary, targets, task.eos),
        lengths=SpanLengths(
            window=len(ids),
            noise=int(mask.sum()),
            spans=len(spans),
            inputs=len(inputs),
            targets=len(targets),
            sentinels=0 if is_prefix_lm else len(spans) + int(batch.closing[window]),
        ),
        drawn=drawn,
        noise_density=task.denoiser.noise_density,
        mean_noise_span_length=task.denoiser.mean_noise_span_length,
        seed=seed,
        notes=tuple(notes),
        denoiser=task.denoiser.title if drawn else "",
        prefix=len(task.prefix),
        eos=task.eos,
        roll=batch.objective.roll and not is_prefix_lm,
        place=None if batch.split is None else _place(batch, window),
        losses=losses,
    )


def _spans(batch: InspectedBatch, window: int, vocabulary: Vocabulary) -> tuple[Span, ...]:
    surface = Surface.of(vocabulary, batch.windows[window])
    is_prefix_lm = batch.objective.denoisers[int(batch.denoiser[window])].lengths is None
    spans: list[Span] = []
    for number, (start, stop) in enumerate(runs(batch.masked[window])):
        sentinel = None if is_prefix_lm else int(batch.objective.sentinel_ids[number])
        piece = None if sentinel is None else vocabulary.pieces([sentinel])[0]
        spans.append(Span(start, stop, piece, sentinel, surface.between(start, stop)))
    return tuple(spans)


def _place(batch: InspectedBatch, window: int) -> Place:
    assert batch.split is not None
    start, row = int(batch.start[window]), int(batch.row[window])
    stop = start + batch.windows.shape[1]
    first, last = np.searchsorted(batch.split.ends, [start, stop - 1], side="right").tolist()
    input_at, target_at = (
        int(side.index[side.window == window][0]) - row * batch.arrays[name].shape[1]
        for side, name in ((batch.inputs, "input_ids"), (batch.targets, "targets"))
    )
    return Place(
        split=batch.split.name,
        window=int(batch.number[window]),
        mask=int(batch.mask[window]),
        corpus=batch.split.corpora[int(batch.corpus[window])].name,
        start=start,
        stop=stop,
        documents=(first, last),
        row=row,
        segment=int(batch.segment[window]),
        input_at=input_at,
        target_at=target_at,
    )


def _target_tokens(
    vocabulary: Vocabulary, targets: np.ndarray, span: int | None, spans: int, eos: bool
) -> tuple[Token, ...]:
    """The targets; tokens after a sentinel are of its span, a closing sentinel and `</s>` are of none."""
    span_of: list[int | None] = []
    for target in targets.tolist():
        number = vocabulary.sentinel_number(target)
        if number is not None:
            span = number if number < spans else None
        span_of.append(None if eos and len(span_of) == len(targets) - 1 else span)
    return _tokens(vocabulary, targets, span_of)


def _tokens(
    vocabulary: Vocabulary, ids: Iterable[int] | np.ndarray, spans: Sequence[int | None]
) -> tuple[Token, ...]:
    numbers = [int(i) for i in ids]
    return tuple(
        Token(i, piece, span)
        for i, piece, span in zip(numbers, vocabulary.readable_pieces(numbers), spans, strict=True)
    )


def _text(vocabulary: Vocabulary, ids: np.ndarray, eos: bool) -> str:
    """Ids as one line of text without the last `</s>`, with spaces around every control piece."""
    numbers = [int(i) for i in (ids[:-1] if eos else ids)]
    parts = [
        text if vocabulary.is_text[i] else f" {text.strip()} "
        for i, text in zip(numbers, vocabulary.decode_each(numbers), strict=True)
    ]
    if vocabulary.keeps_whitespace:
        return visible("".join(parts)).strip()
    return " ".join("".join(parts).split())
