"""What the encoder and the decoder see of one window, all of it as plain values.

The arrays are made by the very functions that training uses and are read back here; only the mask of a
text may be chosen by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from t5smith.inspection.batch import Given
from t5smith.inspection.manual_masks import Surface, runs
from t5smith.inspection.spans import Reading, Side
from t5smith.objective.lengths import SpanLengths
from t5smith.objective.objective import Objective
from t5smith.vocabulary.vocabulary import Vocabulary


@dataclass(frozen=True)
class Span:
    """Neighbouring masked tokens, `start` to `stop`, and the sentinel that stands for them.

    The part of a text that prefix LM leaves to be told has no sentinel.
    """

    start: int
    stop: int
    sentinel: str | None
    sentinel_id: int | None
    text: str


@dataclass(frozen=True)
class Token:
    """One position of an array. `span` says which masked span it belongs to or stands for."""

    id: int
    piece: str
    span: int | None = None


@dataclass(frozen=True)
class TokenLoss:
    """What a model says of one label.

    Attributes:
      probability: of the label.
      nll: its cross-entropy in nats.
      rank: 1 if no other id is more likely.
      other, other_probability: the likeliest of the other ids.
      log_z: logsumexp of the logits.
      kind: `text`, `sentinel` or `eos`, as the evaluation counts.
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
      window: which window of the run, or of the held-out split.
      mask: the number of its mask.
      corpus: the corpus it begins in.
      start, stop: its tokens in the split.
      documents: the numbers of its first and last document in the split, from 0.
      row, segment: where it is in the batch; segments of a row count from 1.
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
    """One window of text as an objective turns it into what the model is given and asked for.

    Attributes:
      text: the text after the tokenizer's normalisation.
      tokens: the text's tokens.
      mask: which of them are masked.
      spans: the masked spans, in order.
      inputs: what the encoder reads, without padding.
      decoder_inputs: what the decoder is fed: the targets shifted right by one from the pad id.
      targets: what the decoder must predict.
      inputs_text: the inputs as text, without `</s>`.
      targets_text: the targets as text, without `</s>`.
      lengths: the lengths as they came out; `targets` and `sentinels` count a closing sentinel too.
      drawn: whether the mask was drawn as in training; else it was given.
      noise_density: the density of a drawn mask.
      mean_noise_span_length: the mean span of a drawn mask; None if the end of the text is to be told.
      seed: the seed of a drawn mask.
      notes: what was done other than asked.
      denoiser: what drew the mask, in a few words; "" if it was given.
      prefix: how many of the inputs are the mode token.
      eos: whether inputs and targets end with `</s>`.
      roll: whether masks are turned by a random number of places.
      place: where the window comes from, if from a store.
      losses: for every label what a model says of it, if one was asked.
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
    window: int,
    given: Given,
    reading: Reading,
    objective: Objective,
    vocabulary: Vocabulary,
    *,
    seed: int,
    drawn: bool = True,
    place: Place | None = None,
    notes: Sequence[str] = (),
    losses: tuple[TokenLoss, ...] = (),
) -> Trace:
    """The trace of one window of a batch, read off the batch's arrays.

    Args:
      window: its number in the batch.
      given: the batch.
      reading: what was read off its arrays.
      objective: what made it.
      vocabulary: of the text.
      seed: of the masks.
      drawn: whether the mask was drawn.
      place: where the window comes from.
      notes: what was done other than asked.
      losses: what a model says of its targets.
    """
    task = objective.denoisers[int(given.task[window])]
    ids, mask = given.windows[window], reading.masked[window]
    inputs, targets = (_of(side, window) for side in (reading.inputs, reading.targets))
    surface = Surface.of(vocabulary, ids)
    spans, told = list(runs(mask)), task.lengths is None
    closing = int(reading.closing[window])
    sentinels = [None] * len(spans) if told else objective.sentinel_ids[: len(spans)].tolist()
    answers = _labels(vocabulary, targets, 0 if told else None, len(spans), task.eos)
    asked = reading.inputs.sentinel[reading.inputs.window == window].tolist()
    return Trace(
        text=surface.text,
        tokens=_tokens(vocabulary, ids, _span_of_each(mask)),
        mask=tuple(mask.tolist()),
        spans=tuple(
            Span(
                start,
                stop,
                None if sentinel is None else vocabulary.pieces([sentinel])[0],
                sentinel,
                surface.between(start, stop),
            )
            for (start, stop), sentinel in zip(spans, sentinels, strict=True)
        ),
        inputs=_tokens(vocabulary, inputs, [None if number < 0 else number for number in asked]),
        decoder_inputs=(*_tokens(vocabulary, [vocabulary.pad_id], [None]), *answers[:-1]),
        targets=answers,
        inputs_text=_text(vocabulary, inputs, task.eos),
        targets_text=_text(vocabulary, targets, task.eos),
        lengths=SpanLengths(
            window=len(ids),
            noise=int(mask.sum()),
            spans=len(spans),
            inputs=len(inputs),
            targets=len(targets),
            sentinels=0 if told else len(spans) + closing,
        ),
        drawn=drawn,
        noise_density=task.denoiser.noise_density,
        mean_noise_span_length=task.denoiser.mean_noise_span_length,
        seed=seed,
        notes=tuple(notes),
        denoiser=task.denoiser.title if drawn else "",
        prefix=len(task.prefix),
        eos=task.eos,
        roll=objective.roll and not told,
        place=place,
        losses=losses,
    )


def _of(side: Side, window: int) -> np.ndarray:
    return side.ids[side.window == window]


def _span_of_each(mask: np.ndarray) -> list[int | None]:
    """For every token of the text the span it is in."""
    of: list[int | None] = [None] * len(mask)
    for span, (start, stop) in enumerate(runs(mask)):
        of[start:stop] = [span] * (stop - start)
    return of


def _labels(
    vocabulary: Vocabulary, targets: np.ndarray, current: int | None, spans: int, eos: bool
) -> tuple[Token, ...]:
    """The targets; what follows a sentinel is of its span, but a closing sentinel and `</s>` are of none."""
    of: list[int | None] = []
    for label in targets.tolist():
        number = vocabulary.sentinel_number(label)
        if number is not None:
            current = number if number < spans else None
        of.append(None if eos and len(of) == len(targets) - 1 else current)
    return _tokens(vocabulary, targets, of)


def _tokens(
    vocabulary: Vocabulary, ids: Iterable[int] | np.ndarray, spans: Sequence[int | None]
) -> tuple[Token, ...]:
    whole = [int(i) for i in ids]
    return tuple(
        Token(i, piece, span)
        for i, piece, span in zip(whole, vocabulary.readable_pieces(whole), spans, strict=True)
    )


def _text(vocabulary: Vocabulary, ids: np.ndarray, eos: bool) -> str:
    """Ids as text, the last `</s>` left off and every control piece set off by spaces."""
    whole = [int(i) for i in (ids[:-1] if eos else ids)]
    parts = [
        text if vocabulary.is_text[i] else f" {text.strip()} "
        for i, text in zip(whole, vocabulary.decode_each(whole), strict=True)
    ]
    return " ".join("".join(parts).split())
