"""Encoder inputs and targets of a whole batch of windows with masked spans.

Inputs and targets are both the window read in steps of one, except for a jump at every span: over its tokens
in the inputs, over the text before it in the targets. The running sum of the steps is the token to read.

Shapes: B windows, W tokens per window, N spans in the batch, S input and T target positions, L is S or T.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from t5smith.base.errors import T5smithError
from t5smith.objective.spans import Spans


def corrupt(
    windows: Int[np.ndarray, "B W"],
    spans: Spans,
    *,
    sentinel_ids: Int[np.ndarray, " sentinels"],
    eos_id: int | None,
    pad_id: int,
    input_length: int,
    target_length: int,
    prefix: tuple[int, ...] = (),
) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B T"]]:
    """Encoder inputs and targets of windows with masked spans, wherever the spans are.

    Inputs are the prefix and the text with each masked span replaced by one sentinel, then `</s>`. Targets
    are each span's sentinel followed by its tokens; then, if the window ends with text, a closing sentinel;
    then `</s>`. Span j has sentinel j in both. Rows are padded at the end.

    Args:
      windows: token ids.
      spans: the masked spans.
      sentinel_ids: `sentinel_ids[j]` replaces span j.
      eos_id: id of `</s>`, or None to write none.
      pad_id: id of padding.
      input_length: S.
      target_length: T.
      prefix: ids put before the inputs.

    Raises:
      T5smithError: a window has more spans than there are sentinels, or does not fit into the arrays.
    """
    W = windows.shape[1]
    eos = int(eos_id is not None)
    counts = _count(spans, W)
    closing = counts.ends_with_text
    needed = int((counts.spans + closing).max(initial=0))
    if needed > len(sentinel_ids):
        raise T5smithError(
            f"a mask needs {needed} sentinels but the vocabulary has {len(sentinel_ids)}",
            where="objective",
            fix="mask fewer or longer spans, or shorter windows",
        )
    input_end = len(prefix) + W - counts.noise + counts.spans
    target_end = counts.noise + counts.spans + closing
    _check_fits("inputs", int(input_end.max(initial=0)) + eos, input_length)
    _check_fits("targets", int(target_end.max(initial=0)) + eos, target_length)

    sentinels = sentinel_ids[counts.number]
    inputs = _inputs(windows, spans, counts, sentinels, input_length, prefix)
    _end_rows(inputs, input_end, eos_id, pad_id)
    targets = _targets(windows, spans, counts, sentinels, target_length)
    targets[closing, target_end[closing] - 1] = sentinel_ids[counts.spans[closing]]
    _end_rows(targets, target_end, eos_id, pad_id)
    return inputs, targets


class _Counts(NamedTuple):
    """Counts from which the positions of spans in inputs and targets follow.

    Attributes:
      spans, noise: (B,) spans and masked tokens of each window.
      ends_with_text: (B,) whether text follows the last span.
      number: (N,) of each span in its window, from 0.
      noise_before: (N,) masked tokens of the window before the span.
    """

    spans: Int[np.ndarray, " B"]
    noise: Int[np.ndarray, " B"]
    ends_with_text: Bool[np.ndarray, " B"]
    number: Int[np.ndarray, " N"]
    noise_before: Int[np.ndarray, " N"]


def _count(spans: Spans, window: int) -> _Counts:
    row, length = spans.row, spans.stop - spans.start
    count = np.bincount(row, minlength=spans.rows)
    first = np.cumsum(count) - count
    noise_until = np.cumsum(length)
    noise = np.diff(np.concatenate([[0], noise_until])[np.concatenate([first, [len(row)]])])
    ends_with_text = np.ones(spans.rows, bool)
    ends_with_text[row[spans.stop == window]] = False
    noise_before = noise_until - length - (np.cumsum(noise) - noise)[row]
    return _Counts(count, noise, ends_with_text, np.arange(len(row)) - first[row], noise_before)


def _inputs(
    windows: Int[np.ndarray, "B W"],
    spans: Spans,
    counts: _Counts,
    sentinels: Int[np.ndarray, " N"],
    input_length: int,
    prefix: tuple[int, ...],
) -> Int[np.ndarray, "B S"]:
    """Encoder inputs; whatever follows the text is for :func:`_end_rows` to overwrite."""
    rows, W = windows.shape
    at = len(prefix) + spans.start - counts.noise_before + counts.number
    step = _ones(rows, input_length)
    # A sentinel at the very end (without `</s>`) has no next position to jump to.
    inside = at + 1 < input_length
    step[spans.row[inside], at[inside] + 1] = (spans.stop - spans.start)[inside]
    step[:, 0] = np.arange(rows) * W - len(prefix)
    inputs = _read(windows.reshape(-1), step)
    inputs[spans.row, at] = sentinels
    if prefix:
        inputs[:, : len(prefix)] = prefix
    return inputs


def _targets(
    windows: Int[np.ndarray, "B W"],
    spans: Spans,
    counts: _Counts,
    sentinels: Int[np.ndarray, " N"],
    target_length: int,
) -> Int[np.ndarray, "B T"]:
    """Targets without closing sentinels; whatever follows is for :func:`_end_rows` to overwrite."""
    rows, W = windows.shape
    begin = np.arange(rows) * W
    text_before = spans.start - np.where(counts.number > 0, np.roll(spans.stop, 1), 0)
    at = counts.noise_before + counts.number
    step = _ones(rows, target_length)
    step[:, 0] = begin
    step[spans.row, at] = np.where(counts.number > 0, text_before, begin[spans.row] + text_before - 1)
    targets = _read(windows.reshape(-1), step)
    targets[spans.row, at] = sentinels
    return targets


class _Scratch(threading.local):
    """Memory that each thread reuses: fresh memory costs a page fault per four kilobytes."""

    ones = np.empty(0, np.int64)


_scratch = _Scratch()


def _ones(rows: int, length: int) -> Int[np.ndarray, "B L"]:
    """An array of ones, valid until this thread's next call."""
    size = rows * length
    if _scratch.ones.size < size:
        _scratch.ones = np.empty(size, np.int64)
    ones = _scratch.ones[:size].reshape(rows, length)
    ones.fill(1)
    return ones


def _read(flat: Int[np.ndarray, " BW"], step: Int[np.ndarray, "B L"]) -> Int[np.ndarray, "B L"]:
    """The ids at the running sums of the steps, which are overwritten; sums past the end read the last id."""
    return flat.take(np.cumsum(step, axis=1, out=step), mode="clip").astype(np.int32, copy=False)


def _end_rows(
    ids: Int[np.ndarray, "B L"], end: Int[np.ndarray, " B"], eos_id: int | None, pad_id: int
) -> None:
    """Write `</s>` after the last id of each row, and padding after that."""
    rows, size = ids.shape
    if eos_id is not None:
        ids[np.arange(rows), end] = eos_id
        end = end + 1
    if int(end.min(initial=size)) < size:
        ids[np.arange(size) >= end[:, None]] = pad_id


def _check_fits(what: str, needed: int, available: int) -> None:
    if needed > available:
        raise T5smithError(f"{what} of {needed} positions do not fit into {available}", where="objective")
