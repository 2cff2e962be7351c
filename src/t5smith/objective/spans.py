"""Span corruption for a whole batch at once: drawing masks, and making inputs and targets of them.

The method is that of Raffel et al., "Exploring the Limits of Transfer Learning" (2020), section 3.1.4;
masks are drawn as t5's `random_spans_noise_mask` draws them: the noise and the text are each split
uniformly at random into as many non-empty parts as there are spans, and interleaved, text first.

Shapes: B windows, W tokens a window, S input and T target positions.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from t5smith.errors import T5smithError
from t5smith.objective.lengths import SpanLengths

TRAINING, EVALUATION, EXAMPLES, SHIFTS = range(4)
"""Streams of random numbers; the same (seed, stream, step) always gives the same numbers."""


def generator(seed: int, stream: int, step: int) -> np.random.Generator:
    """The random numbers of one step, independent of those of every other step."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, stream, step))))


def noise_masks(rng: np.random.Generator, rows: int, lengths: SpanLengths) -> Bool[np.ndarray, "B W"]:
    """Draw a mask a row: `lengths.noise` True in `lengths.spans` spans, each with text before it.

    The first token is never masked, the last one always is.
    """
    noise = _random_parts(rng, rows, lengths.noise, lengths.spans)
    text = _random_parts(rng, rows, lengths.window - lengths.noise, lengths.spans)
    parts = np.stack([text, noise], axis=2).reshape(rows, -1)
    # A mask flips wherever a part begins; part 0 begins at token 0 and is text.
    flips = np.zeros((rows, lengths.window), np.int8)
    begins = np.cumsum(parts, axis=1)[:, :-1]
    flips[np.arange(rows)[:, None], begins] = 1
    return (np.cumsum(flips, axis=1, dtype=np.int32) & 1).astype(bool)


def _random_parts(rng: np.random.Generator, rows: int, total: int, parts: int) -> Int[np.ndarray, "B k"]:
    """Split `total` into `parts` sizes of one or more, every such split equally likely, once a row."""
    if parts == 1:
        return np.full((rows, 1), total)
    # Where to cut: parts-1 of the total-1 places between neighbours, without replacement.
    order = rng.random((rows, total - 1)).argpartition(parts - 2, axis=1)
    cuts = np.sort(order[:, : parts - 1], axis=1) + 1
    edges = np.pad(cuts, ((0, 0), (1, 1)), constant_values=((0, 0), (0, total)))
    return np.diff(edges, axis=1)


def corrupt(
    windows: Int[np.ndarray, "B W"],
    masks: Bool[np.ndarray, "B W"],
    *,
    sentinel_ids: Int[np.ndarray, " sentinels"],
    eos_id: int,
    pad_id: int,
    input_length: int,
    target_length: int,
) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B T"]]:
    """Encoder inputs and targets of masked windows, for any mask.

    Inputs are the text with each masked span replaced by one sentinel, then `</s>`. Targets are each
    span's sentinel followed by its tokens; then, if the window ends with text, a closing sentinel; then
    `</s>`. Span j has sentinel j in both. Rows shorter than the arrays are padded at the end.

    Raises:
      T5smithError: a row has more spans than sentinels, or does not fit into the arrays.
    """
    rows, _ = windows.shape
    starts = masks.copy()
    starts[:, 1:] &= ~masks[:, :-1]
    span = np.cumsum(starts, axis=1) - 1
    spans = span[:, -1] + 1
    closing = ~masks[:, -1]
    needed = int((spans + closing).max(initial=0))
    if needed > len(sentinel_ids):
        raise T5smithError(
            f"a mask needs {needed} sentinels but the vocabulary has {len(sentinel_ids)}",
            where="objective",
            fix="mask fewer or longer spans, or shorter windows",
        )
    sentinels = sentinel_ids[np.maximum(span, 0)]

    kept = ~masks | starts
    input_position = np.cumsum(kept, axis=1) - 1
    input_end = input_position[:, -1] + 1
    # A span's first token comes after its sentinel, so each span shifts what follows by one.
    target_position = np.cumsum(masks, axis=1) + span
    target_end = masks.sum(axis=1) + spans
    _check_fits("inputs", int(input_end.max(initial=0)) + 1, input_length)
    _check_fits("targets", int((target_end + closing).max(initial=0)) + 1, target_length)

    row = np.arange(rows)
    inputs = np.full((rows, input_length), pad_id, np.int32)
    at = np.nonzero(kept)
    inputs[at[0], input_position[at]] = np.where(masks, sentinels, windows)[at]
    inputs[row, input_end] = eos_id

    targets = np.full((rows, target_length), pad_id, np.int32)
    at = np.nonzero(masks)
    targets[at[0], target_position[at]] = windows[at]
    at = np.nonzero(starts)
    targets[at[0], target_position[at] - 1] = sentinels[at]
    targets[row[closing], target_end[closing]] = sentinel_ids[spans[closing]]
    targets[row, target_end + closing] = eos_id
    return inputs, targets


def _check_fits(what: str, needed: int, available: int) -> None:
    if needed > available:
        raise T5smithError(f"{what} of {needed} positions do not fit into {available}", where="objective")
