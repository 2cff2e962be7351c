"""Span corruption one row at a time: the published algorithm as it is usually written.

This is what ours is measured against and tested with. It follows the description in Raffel et al., "Exploring
the Limits of Transfer Learning" (2020), section 3.1.4, step by step: shuffle where segments begin, number
the segments, lay text and noise down in turn, and put sentinels where spans begin. Every row costs some
thirty calls of NumPy on short arrays.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from t5smith.objective.lengths import SpanLengths


def draw_mask(rng: np.random.Generator, lengths: SpanLengths) -> Bool[np.ndarray, " W"]:
    """The mask of one window."""
    noise = _segment_lengths(rng, lengths.noise, lengths.spans)
    text = _segment_lengths(rng, lengths.window - lengths.noise, lengths.spans)
    in_turn = np.stack([text, noise], axis=1).reshape(-1)
    begins = np.zeros(lengths.window, np.int64)
    begins[np.cumsum(in_turn)[:-1]] = 1
    return np.cumsum(begins) % 2 == 1


def _segment_lengths(rng: np.random.Generator, items: int, segments: int) -> Int[np.ndarray, " k"]:
    """Split so many items into so many non-empty segments, every such split equally likely."""
    begins_one = np.arange(items - 1) < segments - 1
    rng.shuffle(begins_one)
    segment = np.cumsum(np.concatenate([[False], begins_one]))
    return np.bincount(segment, minlength=segments)


def corrupt_row(
    window: Int[np.ndarray, " W"],
    mask: Bool[np.ndarray, " W"],
    sentinel_ids: Int[np.ndarray, " sentinels"],
    eos_id: int,
) -> tuple[Int[np.ndarray, " S"], Int[np.ndarray, " T"]]:
    """Inputs and targets of one window that begins with text and ends with noise."""
    return (
        _sentinels_for(window, mask, sentinel_ids, eos_id),
        _sentinels_for(window, ~mask, sentinel_ids, eos_id),
    )


def _sentinels_for(
    window: Int[np.ndarray, " W"],
    hidden: Bool[np.ndarray, " W"],
    sentinel_ids: Int[np.ndarray, " sentinels"],
    eos_id: int,
) -> Int[np.ndarray, " n"]:
    """The window with each hidden run replaced by the next sentinel, and `</s>` behind it."""
    before = np.concatenate([[False], hidden[:-1]])
    begins = hidden & ~before
    number = np.cumsum(begins) - 1
    replaced = np.where(begins, sentinel_ids[np.maximum(number, 0)], window)
    shown = replaced[~(hidden & before)]
    return np.concatenate([shown, [eos_id]]).astype(np.int32)


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
