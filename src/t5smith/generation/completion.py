"""What a model wrote for an input, as text: spans in place of sentinels, or a text of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from t5smith.generation.decoding import Output
from t5smith.generation.modes import Mode
from t5smith.generation.stops import kept_tokens
from t5smith.vocabulary.vocabulary import Vocabulary


@dataclass(frozen=True)
class Completion:
    """What a model wrote for one input.

    Attributes:
      ids: decoded ids without padding, with `</s>` if the model wrote it.
      text: those ids as text, with sentinels, up to a stop string.
      fills: for each sentinel of the input, in order, the text decoded after the same sentinel; "" if the
        model did not write that sentinel.
      filled: the input with the sentinels replaced by their fills; the input continued, if the mode continues
        texts; `text`, if the input has no sentinels. A sentinel that the model did not write stays.
      unanswered: the sentinels of the input that the model did not write.
      cut: whether the output did not end within the largest number of tokens.
      mode: the mode token before the input, or "".
      continued: whether the output continues the input (prefix LM).
      log_probs: of each id by the model alone, in nats; empty unless they are asked for.
      score: of beam search: the sum of log probabilities, divided by the length penalty.
      others: the other outputs for the same input, if several are asked for.
    """

    ids: tuple[int, ...]
    text: str
    fills: tuple[str, ...]
    filled: str
    unanswered: tuple[str, ...] = ()
    cut: bool = False
    mode: str = ""
    continued: bool = False
    log_probs: tuple[float, ...] = ()
    score: float | None = None
    others: tuple[Completion, ...] = ()


def completion(
    vocabulary: Vocabulary,
    inputs: Sequence[int],
    outputs: Sequence[Output],
    mode: Mode | None = None,
    stop: Sequence[str] = (),
) -> Completion:
    """The outputs for an input as text; the first one has the others.

    Args:
      vocabulary: the model's.
      inputs: the ids of the input, without mode token and `</s>`.
      outputs: one or more.
      mode: in which the model completed the input.
      stop: the stop strings.
    """
    first, *others = [_one(vocabulary, inputs, one, mode or Mode("", ()), stop) for one in outputs]
    return replace(first, others=tuple(others))


def _one(
    vocabulary: Vocabulary, inputs: Sequence[int], output: Output, mode: Mode, stop: Sequence[str]
) -> Completion:
    decoded, stopped = list(output.ids), kept_tokens(stop, vocabulary, output.ids) if stop else None
    text = vocabulary.decode(decoded)
    if stopped:
        decoded = decoded[: stopped[0]]
        text = vocabulary.decode(decoded)
        # A space at the beginning of an output is no part of its text.
        at = text.rfind(stopped[1])
        text = text[: max(at, 0)] if vocabulary.keeps_whitespace else text[: max(at, 0)].rstrip()
    spans = dict(reversed(list(spans_of(vocabulary, decoded))))
    fills: list[str] = []
    filled: list[int] = []
    unanswered: list[int] = []
    for token in inputs:
        number = vocabulary.sentinel_number(token)
        if number is None:
            filled.append(token)
        else:
            if number not in spans:
                unanswered.append(token)
            fills.append(vocabulary.decode(spans.get(number, [])))
            filled += spans.get(number, [token])
    whole = vocabulary.decode(filled) if fills else text
    if mode.continues:
        whole = vocabulary.decode(filled)
        if not fills:
            joined = f"{whole}{text}" if vocabulary.keeps_whitespace else f"{whole} {text}"
            whole = joined if vocabulary.keeps_whitespace else joined.strip()
    cut = vocabulary.eos_id not in decoded and stopped is None
    return Completion(
        output.ids,
        text,
        tuple(fills),
        whole,
        unanswered=tuple(vocabulary.pieces(unanswered)),
        # A model that never learned to end its output has done its work when it has filled in all spans.
        cut=cut and (mode.ends or bool(unanswered)),
        mode=mode.token,
        continued=mode.continues,
        log_probs=output.log_probs,
        score=output.score,
    )


def spans_of(vocabulary: Vocabulary, targets: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """The spans in targets: the number of each sentinel and the text ids after it."""
    number: int | None = None
    span: list[int] = []
    for token in (*targets, vocabulary.eos_id):
        sentinel = vocabulary.sentinel_number(token)
        if sentinel is not None or token == vocabulary.eos_id:
            if number is not None:
                yield number, span
            number, span = sentinel, []
            if token == vocabulary.eos_id:
                return
        else:
            span.append(token)
