"""Span corruption row by row: the published algorithm as it is usually written.

Ours is benchmarked against it and tested with it, so it shares no code. It follows Raffel et al., "Exploring
the Limits of Transfer Learning" (2020), section 3.1.4, step by step: shuffle the starts of segments, number
the segments, interleave text and noise, and put sentinels where spans begin. Each row costs some thirty calls
of NumPy on short arrays.

Shapes: B windows, W tokens per window, S input and T target positions, k segments.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from t5smith.objective.lengths import SpanLengths


def draw_mask(rng: np.random.Generator, lengths: SpanLengths) -> Bool[np.ndarray, " W"]:
    """The mask of one window: True where a token is masked."""
    noise = _segment_lengths(rng, lengths.noise, lengths.spans)
    text = _segment_lengths(rng, lengths.window - lengths.noise, lengths.spans)
    interleaved = np.stack([text, noise], axis=1).reshape(-1)
    begins = np.zeros(lengths.window, np.int64)
    begins[np.cumsum(interleaved)[:-1]] = 1
    return np.cumsum(begins) % 2 == 1


def _segment_lengths(rng: np.random.Generator, items: int, segments: int) -> Int[np.ndarray, " k"]:
    """Split items into non-empty segments, all splits equally likely."""
    is_start = np.arange(items - 1) < segments - 1
    rng.shuffle(is_start)
    segment = np.cumsum(np.concatenate([[False], is_start]))
    return np.bincount(segment, minlength=segments)


def corrupt_row(
    window: Int[np.ndarray, " W"],
    mask: Bool[np.ndarray, " W"],
    sentinel_ids: Int[np.ndarray, " sentinels"],
    eos_id: int,
) -> tuple[Int[np.ndarray, " S"], Int[np.ndarray, " T"]]:
    """Inputs and targets of one window that begins with text and ends with noise."""
    return (
        _replace_spans(window, mask, sentinel_ids, eos_id),
        _replace_spans(window, ~mask, sentinel_ids, eos_id),
    )


def _replace_spans(
    window: Int[np.ndarray, " W"],
    masked: Bool[np.ndarray, " W"],
    sentinel_ids: Int[np.ndarray, " sentinels"],
    eos_id: int,
) -> Int[np.ndarray, " n"]:
    """The window with each masked span replaced by the next sentinel, then `</s>`."""
    before = np.concatenate([[False], masked[:-1]])
    begins = masked & ~before
    number = np.cumsum(begins) - 1
    replaced = np.where(begins, sentinel_ids[np.maximum(number, 0)], window)
    kept = replaced[~(masked & before)]
    return np.concatenate([kept, [eos_id]]).astype(np.int32)


def corrupt_batch(
    rng: np.random.Generator,
    windows: Int[np.ndarray, "B W"],
    lengths: SpanLengths,
    sentinel_ids: Int[np.ndarray, " sentinels"],
    eos_id: int,
) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B T"]]:
    """A batch, row by row."""
    rows = [corrupt_row(window, draw_mask(rng, lengths), sentinel_ids, eos_id) for window in windows]
    return np.stack([inputs for inputs, _ in rows]), np.stack([targets for _, targets in rows])
