"""The one function that decides lengths: of noise, spans, inputs and targets.

The mask, the store's windows, the array shapes and the checks before a run all come here, so they
cannot disagree. Rounding is Python's: float64, half to even. (t5 rounds in float32, which gives
another noise count at some lengths and densities; see docs/decisions.md.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from t5smith.base.errors import T5smithError

MAX_STRETCH = 1_000
"""A window is at most this many times as long as its inputs; more means a density of nearly 1."""


@dataclass(frozen=True)
class Masking:
    """What decides the lengths of a window besides its own.

    Attributes:
      noise_density: share of the tokens that are masked, over 0 and below 1.
      mean_noise_span_length: mean length of a masked span, 1 or more.
      roll: masks are turned by a random number of places, so that they may begin or end anywhere.
      eos: inputs and targets end with `</s>`.
      prefix: tokens put before the inputs, as a mode token.

    Raises:
      T5smithError: a density or mean span that cannot be used.
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
      noise: of these, how many are masked.
      spans: into how many spans the masked tokens are split when the mask is drawn.
      inputs: encoder positions: the prefix, the text kept, a sentinel per span, `</s>`.
      targets: decoder positions: a sentinel per span, the masked text, `</s>`.
      sentinels: sentinels needed; one more than spans if masks are rolled, in inputs and targets too: a
        rolled mask may cut a span in two, or end in text and then have a closing sentinel.
    """

    window: int
    noise: int
    spans: int
    inputs: int
    targets: int
    sentinels: int


def span_lengths(window: int, masking: Masking) -> SpanLengths:
    """Lengths for a window of so many tokens.

    Raises:
      T5smithError: the window has fewer than 2 tokens.
    """
    if window < 2:
        raise T5smithError(f"a window of {window} tokens cannot be masked", expected="at least 2 tokens")
    noise = min(max(round(window * masking.noise_density), 1), window - 1)
    # Every span has a token, and text stands before every span.
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
    """Lengths of the largest window whose inputs fit into `input_length` encoder positions.

    512 inputs at density .15 and mean span 3 hold a window of 568 and need 114 decoder positions.

    Raises:
      T5smithError: no window fits, or one over a thousand times as long would.
    """
    smallest = span_lengths(2, masking)
    if input_length < smallest.inputs:
        parts = ["a token", "a sentinel", *["</s>"] * masking.eos]
        parts += ["a sentinel more for rolled masks"] * masking.roll
        parts += [f"{masking.prefix} for the mode token"] * bool(masking.prefix)
        raise T5smithError(
            f"{input_length} cannot be used",
            where="input_length",
            expected=f"at least {smallest.inputs}: {', '.join(parts)}",
        )
    # Inputs never shrink as the window grows: one more token is one more kept, or one more masked.
    low, high = 2, MAX_STRETCH * input_length
    if span_lengths(high, masking).inputs <= input_length:
        raise T5smithError(
            f"at density {masking.noise_density} a window over {MAX_STRETCH} times the inputs would fit",
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
    """Refuse, before anything runs, more spans than there are sentinels.

    Args:
      lengths: the lengths in use.
      available: sentinels the vocabulary has.
      masking: what the lengths were made of.
      fixed: `input_length` or `window_length`: what stays when the mean span is made longer.
      where: what the lengths are of, for the message.

    Raises:
      T5smithError: with the numbers and a setting that works.
    """
    if lengths.sentinels <= available:
        return
    spans = available - masking.roll
    if spans < 1:
        fix = f"use a vocabulary with {lengths.sentinels} sentinels"
    else:
        # Few and long spans leave the inputs room for the largest window, and so for the most noise.
        longest = replace(masking, mean_noise_span_length=math.inf)
        most = lengths if fixed == "window_length" else lengths_for_inputs(lengths.inputs, longest)
        fix = (
            f"use a mean_noise_span_length of {math.ceil(10 * most.noise / spans) / 10} or more, "
            f"a shorter {fixed} or a lower noise_density"
        )
    raise T5smithError(
        f"a window of {lengths.window} tokens has {lengths.spans} masked spans "
        + ("and needs one sentinel more for rolled masks " if masking.roll else "")
        + f"but the vocabulary has {available} sentinels",
        where=where,
        fix=fix,
    )
