"""The one function that decides lengths: of noise, spans, inputs and targets.

The mask, the store's windows, the array shapes and the checks before a run all come here, so they
cannot disagree. Rounding is Python's: float64, half to even. (t5 rounds in float32, which gives
another noise count at some lengths and densities; see docs/decisions.md.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from t5smith.errors import T5smithError

MAX_STRETCH = 1_000
"""A window is at most this many times as long as its inputs; more means a density of nearly 1."""


@dataclass(frozen=True)
class SpanLengths:
    """All lengths of one span-corrupted window, in tokens.

    Attributes:
      window: tokens of text before corruption.
      noise: of these, how many are masked.
      spans: into how many spans the masked tokens fall; as many sentinels are needed.
      inputs: encoder positions: text kept, a sentinel per span, `</s>`.
      targets: decoder positions: a sentinel per span, the masked text, `</s>`.
    """

    window: int
    noise: int
    spans: int
    inputs: int
    targets: int


def span_lengths(window: int, noise_density: float, mean_noise_span_length: float) -> SpanLengths:
    """Lengths for a window of so many tokens.

    Raises:
      T5smithError: window < 2, density outside (0, 1) or mean span below 1.
    """
    if window < 2:
        raise T5smithError(f"a window of {window} tokens cannot be masked", expected="at least 2 tokens")
    if not 0 < noise_density < 1:
        raise T5smithError(
            f"{noise_density} cannot be used", where="noise_density", expected="0 < density < 1"
        )
    if not mean_noise_span_length >= 1:
        raise T5smithError(
            f"{mean_noise_span_length} cannot be used", where="mean_noise_span_length", expected="1 or more"
        )
    noise = min(max(round(window * noise_density), 1), window - 1)
    # Every span has a token, and text stands before every span.
    spans = min(max(round(noise / mean_noise_span_length), 1), window - noise)
    return SpanLengths(window, noise, spans, inputs=window - noise + spans + 1, targets=noise + spans + 1)


def lengths_for_inputs(input_length: int, noise_density: float, mean_noise_span_length: float) -> SpanLengths:
    """Lengths of the largest window whose inputs fit into `input_length` encoder positions.

    512 inputs at density .15 and mean span 3 hold a window of 568 and need 114 decoder positions.

    Raises:
      T5smithError: no window fits, or one over a thousand times as long would.
    """
    if input_length < 3:
        raise T5smithError(
            f"{input_length} cannot be used",
            where="input_length",
            expected="at least 3: a token, a sentinel, </s>",
        )
    best = span_lengths(2, noise_density, mean_noise_span_length)
    # Inputs never shrink as the window grows: one more token is one more kept, or one more masked.
    while (
        longer := span_lengths(best.window + 1, noise_density, mean_noise_span_length)
    ).inputs <= input_length:
        best = longer
        if best.window > MAX_STRETCH * input_length:
            raise T5smithError(
                f"at density {noise_density} a window over {MAX_STRETCH} times the inputs would fit",
                where="objective.noise_density",
                fix="lower the density or shorten mean_noise_span_length",
            )
    return best


def check_sentinels(lengths: SpanLengths, available: int, *, reserve: int = 0) -> None:
    """Refuse, before anything runs, more spans than there are sentinels.

    Args:
      lengths: the lengths in use.
      available: sentinels the vocabulary has.
      reserve: sentinels needed besides, as the closing one of masks that may end with text.

    Raises:
      T5smithError: with the numbers and the ways out.
    """
    if lengths.spans + reserve > available:
        mean = _mean_that_works(lengths, available - reserve)
        raise T5smithError(
            f"a window of {lengths.window} tokens has {lengths.spans} masked spans but the vocabulary has "
            f"{available} sentinels",
            where="objective",
            fix=f"use a mean_noise_span_length of {mean:.1f} or more, a shorter input_length or a lower "
            "noise_density",
        )


def _mean_that_works(lengths: SpanLengths, spans: int) -> float:
    """A mean span at which the same inputs need at most so many sentinels; longer spans, longer windows."""
    density = lengths.noise / lengths.window
    tenths = math.ceil(10 * lengths.noise / max(spans, 1))
    # One span too many is allowed for, since the density is known only as a ratio of whole numbers.
    while lengths_for_inputs(lengths.inputs, density, tenths / 10).spans >= max(spans, 2):
        tenths += 1
    return tenths / 10
