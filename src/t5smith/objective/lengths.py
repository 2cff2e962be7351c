"""The one function that decides lengths: of noise, spans, inputs and targets.

Masks, windows, array shapes and the checks before a run all use it, so they cannot disagree. Rounding is
Python's: float64, half to even. (t5 rounds in float32, which gives a different noise count at some lengths
and densities; see docs/decisions.md.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from t5smith.base.errors import T5smithError

MAX_WINDOW_TO_INPUTS = 1_000
"""A window is at most this many times as long as its inputs; more would mean a density of nearly 1."""


@dataclass(frozen=True)
class Masking:
    """How windows are masked: with the window length, this decides all other lengths.

    Attributes:
      noise_density: share of the tokens that are masked, above 0 and below 1.
      mean_noise_span_length: mean length of a masked span in tokens, 1 or more.
      roll: masks are rotated by a random offset.
      eos: inputs and targets end with `</s>`.
      prefix: number of tokens put before the inputs, as a mode token.

    Raises:
      T5smithError: density or mean span out of range.
    """

    noise_density: float
    mean_noise_span_length: float
    roll: bool = False
    eos: bool = True
    prefix: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.noise_density < 1:
            raise T5smithError(
                f"{self.noise_density} cannot be used", where="noise_density", expected="0 < density < 1"
            )
        if not self.mean_noise_span_length >= 1:
            raise T5smithError(
                f"{self.mean_noise_span_length} cannot be used",
                where="mean_noise_span_length",
                expected="1 or more",
            )


@dataclass(frozen=True)
class SpanLengths:
    """All lengths of one span-corrupted window, in tokens.

    Attributes:
      window: tokens of text before corruption.
      noise: masked tokens.
      spans: masked spans in a mask as drawn.
      inputs: encoder positions: the prefix, the unmasked text, one sentinel per span, `</s>`.
      targets: decoder positions: one sentinel per span, the masked text, `</s>`.
      sentinels: sentinels needed. If masks are rolled this is one more than spans, also in inputs and
        targets: rotation may split a span, or leave text at the end, which needs a closing sentinel.
    """

    window: int
    noise: int
    spans: int
    inputs: int
    targets: int
    sentinels: int


def span_lengths(window: int, masking: Masking) -> SpanLengths:
    """The lengths of a window of `window` tokens.

    Raises:
      T5smithError: the window has fewer than 2 tokens.
    """
    if window < 2:
        raise T5smithError(f"a window of {window} tokens cannot be masked", expected="at least 2 tokens")
    noise = min(max(round(window * masking.noise_density), 1), window - 1)
    # Every span has at least one token, and at least one token of text before it.
    spans = min(max(round(noise / masking.mean_noise_span_length), 1), window - noise)
    sentinels = spans + masking.roll
    return SpanLengths(
        window,
        noise,
        spans,
        inputs=masking.prefix + window - noise + sentinels + masking.eos,
        targets=noise + sentinels + masking.eos,
        sentinels=sentinels,
    )


def lengths_for_inputs(input_length: int, masking: Masking) -> SpanLengths:
    """The lengths of the largest window whose inputs fit into `input_length` encoder positions.

    512 inputs at density .15 and mean span 3 hold a window of 568 tokens; its targets have 114 positions.

    Raises:
      T5smithError: no window fits, or a window over a thousand times as long as the inputs would.
    """
    smallest = span_lengths(2, masking)
    if input_length < smallest.inputs:
        parts = ["one token", "one sentinel"]
        if masking.eos:
            parts.append("</s>")
        if masking.roll:
            parts.append("one extra sentinel for rolled masks")
        if masking.prefix:
            parts.append(f"{masking.prefix} for the mode token")
        raise T5smithError(
            f"{input_length} cannot be used",
            where="input_length",
            expected=f"at least {smallest.inputs}: {', '.join(parts)}",
        )
    # Bisection is valid: a longer window never has fewer inputs.
    low, high = 2, MAX_WINDOW_TO_INPUTS * input_length
    if span_lengths(high, masking).inputs <= input_length:
        raise T5smithError(
            f"at density {masking.noise_density} a window over {MAX_WINDOW_TO_INPUTS} times as long as the "
            "inputs would fit",
            where="objective.noise_density",
            fix="lower the density or shorten mean_noise_span_length",
        )
    while high - low > 1:
        middle = (low + high) // 2
        fits = span_lengths(middle, masking).inputs <= input_length
        low, high = (middle, high) if fits else (low, middle)
    return span_lengths(low, masking)


def check_sentinels(
    lengths: SpanLengths, available: int, masking: Masking, *, fixed: str, where: str = "objective"
) -> None:
    """Check, before anything runs, that there is a sentinel for every span.

    Args:
      lengths: the lengths in use.
      available: the number of sentinels in the vocabulary.
      masking: the masking that gave these lengths.
      fixed: `input_length` or `window_length`: the setting that stays when the mean span is made longer.
      where: where the setting is, for the message.

    Raises:
      T5smithError: too few sentinels; the message has the numbers and a setting that works.
    """
    if lengths.sentinels <= available:
        return
    spans = available - masking.roll
    if spans < 1:
        fix = f"use a vocabulary with {lengths.sentinels} sentinels"
    else:
        # With longer spans the inputs hold a larger window, which has more noise; a single span has the most.
        single_span = replace(masking, mean_noise_span_length=math.inf)
        most = lengths if fixed == "window_length" else lengths_for_inputs(lengths.inputs, single_span)
        fix = (
            f"use a mean_noise_span_length of {math.ceil(10 * most.noise / spans) / 10} or more, "
            f"a shorter {fixed} or a lower noise_density"
        )
    raise T5smithError(
        f"a window of {lengths.window} tokens has {lengths.spans} masked spans "
        + ("and needs one extra sentinel for rolled masks " if masking.roll else "")
        + f"but the vocabulary has {available} sentinels",
        where=where,
        fix=fix,
    )
