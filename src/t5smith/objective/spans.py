"""Span corruption for a whole batch at once: drawing spans, and making inputs and targets of them.

The method is that of Raffel et al., "Exploring the Limits of Transfer Learning" (2020), section 3.1.4;
spans are drawn as t5's `random_spans_noise_mask` draws them: the noise and the text are each split
uniformly at random into as many non-empty parts as there are spans, and interleaved, text first.

Spans are kept as places, three numbers a span, and not as masks: a window of 568 tokens has 28 spans, and
work on 28 is less than on 568. No loop runs over rows; the only one runs over the spans of a row.

Shapes: B windows, W tokens a window, S input and T target positions, k spans a row, N spans in all.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from t5smith.base.errors import T5smithError
from t5smith.objective.lengths import SpanLengths


@dataclass(frozen=True)
class Spans:
    """Masked spans of several windows, those of a row after each other and in order.

    Attributes:
      rows: how many windows; a window may have no span.
      row: (N,) which window each span is in.
      start, stop: (N,) its first token, and the one after its last. Spans do not touch each other.
    """

    rows: int
    row: Int[np.ndarray, " N"]
    start: Int[np.ndarray, " N"]
    stop: Int[np.ndarray, " N"]

    def masks(self, window: int) -> Bool[np.ndarray, "B W"]:
        """The same as a mask a row: True where a token is masked."""
        flips = np.zeros((self.rows, window + 1), np.int8)
        flips[self.row, self.start] = 1
        flips[self.row, self.stop] = 1
        return (np.cumsum(flips[:, :-1], axis=1, dtype=np.int32) & 1).astype(bool)

    @classmethod
    def of_masks(cls, masks: Bool[np.ndarray, "B W"]) -> Spans:
        """The spans of masks: each run of True is one."""
        rows, window = masks.shape
        framed = np.zeros((rows, window + 2), np.int8)
        framed[:, 1:-1] = masks
        row, edge = np.nonzero(np.diff(framed, axis=1))
        return cls(rows, row[::2], edge[::2], edge[1::2])


def draws_needed(lengths: SpanLengths) -> int:
    """How many random numbers :func:`draw_spans` takes a row."""
    return _draws(lengths.noise, lengths.spans) + _draws(lengths.window - lengths.noise, lengths.spans)


def draw_spans(uniforms: Float[np.ndarray, "B d"], lengths: SpanLengths) -> Spans:
    """Draw `lengths.noise` masked tokens in `lengths.spans` spans a row, each with text before it.

    Every such choice is equally likely. The first token is never masked, the last one always is.

    Args:
      uniforms: random numbers in [0, 1), at least :func:`draws_needed` a row.
      lengths: of a row.
    """
    rows, k = len(uniforms), lengths.spans
    noise_ends, text_ends = _part_ends(uniforms, (lengths.noise, lengths.window - lengths.noise), k)
    # Span j stands behind j + 1 parts of text and j parts of noise.
    stop = text_ends + noise_ends
    start = text_ends.copy()
    start[:, 1:] += noise_ends[:, :-1]
    return Spans(rows, np.repeat(np.arange(rows), k), start.reshape(-1), stop.reshape(-1))


def _draws(total: int, parts: int) -> int:
    """Random numbers it takes to choose parts - 1 of total - 1 places, or those that are not chosen."""
    return min(parts - 1, total - parts)


def _part_ends(
    uniforms: Float[np.ndarray, "B d"], totals: tuple[int, int], parts: int
) -> list[Int[np.ndarray, "B k"]]:
    """Where the parts end when each total is split into so many non-empty ones, all splits equally likely."""
    rows = len(uniforms)
    # Cuts are among the places between neighbours; whichever are fewer, cuts or places left whole, are drawn.
    draws = [_draws(total, parts) for total in totals]
    places = [total - 1 for total in totals]
    if draws[0] == draws[1]:
        cuts = _choose(uniforms, draws[0], places)
    else:
        cuts = [
            *_choose(uniforms[:, : draws[0]], draws[0], places[:1]),
            *_choose(uniforms[:, draws[0] :], draws[1], places[1:]),
        ]
    found: list[Int[np.ndarray, "B k"]] = []
    for cut, drawn, total in zip(cuts, draws, totals, strict=True):
        ends = np.full((rows, parts), total)
        if parts > 1:
            chosen = cut if drawn == parts - 1 else ~cut
            ends[:, :-1] = (np.flatnonzero(chosen) % (total - 1) + 1).reshape(rows, parts - 1)
        found.append(ends)
    return found


def _choose(
    uniforms: Float[np.ndarray, "B d"], m: int, places: list[int]
) -> list[Bool[np.ndarray, "B places"]]:
    """Mark m of the places in each row, every choice equally likely; once for each number of places.

    Floyd's algorithm (Bentley & Floyd, "A sample of brilliance", 1987): the i-th draw is from the first
    places - m + i + 1; if it falls on one that is taken, the last of these is taken instead.
    """
    rows = len(uniforms)
    size = np.repeat(places, rows)
    base = np.cumsum(size) - size
    last = size - m + np.arange(m)[:, None]
    numbers = np.concatenate([uniforms[:, i * m : (i + 1) * m] for i in range(len(places))])
    drawn = (np.ascontiguousarray(numbers.T) * (last + 1)).astype(np.int64) + base
    last += base
    chosen = np.zeros(int(size.sum()), bool)
    for one, instead in zip(drawn, last, strict=True):
        chosen[np.where(chosen[one], instead, one)] = True
    edges = np.cumsum(places)[:-1] * rows
    return [part.reshape(rows, -1) for part in np.split(chosen, edges)]


def roll_spans(spans: Spans, by: Int[np.ndarray, " B"], window: int) -> Spans:
    """Turn each row by so many places, as t5's `random_roll`: what leaves at the end enters at the start.

    A span that is cut by that becomes two, so that a rolled row may have a span more, may begin with noise
    and may end with text.
    """
    masks = spans.masks(window)
    source = (np.arange(window) - by[:, None]) % window
    return Spans.of_masks(np.take_along_axis(masks, source, axis=1))


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
    """Encoder inputs and targets of windows with masked spans, wherever these are.

    Inputs are the prefix and the text with each masked span replaced by one sentinel, then `</s>`. Targets
    are each span's sentinel followed by its tokens; then, if the window ends with text, a closing sentinel;
    then `</s>`. Span j has sentinel j in both. Rows shorter than the arrays are padded at the end.

    Args:
      windows: ids.
      spans: what is masked of them.
      sentinel_ids: `sentinel_ids[j]` stands for span j.
      eos_id: id of `</s>`, or None to leave it out of both.
      pad_id: what fills a row up.
      input_length: S.
      target_length: T.
      prefix: ids put before the inputs.

    Raises:
      T5smithError: a row has more spans than sentinels, or does not fit into the arrays.
    """
    rows, W = windows.shape
    eos = int(eos_id is not None)
    row, start = spans.row, spans.start
    length = spans.stop - start
    count = np.bincount(row, minlength=rows)
    first = np.cumsum(count) - count
    behind = np.cumsum(length)
    noise = np.diff(np.concatenate([[0], behind])[np.concatenate([first, [len(row)]])])
    closing = np.ones(rows, bool)
    closing[row[spans.stop == W]] = False
    needed = int((count + closing).max(initial=0))
    if needed > len(sentinel_ids):
        raise T5smithError(
            f"a mask needs {needed} sentinels but the vocabulary has {len(sentinel_ids)}",
            where="objective",
            fix="mask fewer or longer spans, or shorter windows",
        )
    input_end = len(prefix) + W - noise + count
    target_end = noise + count + closing
    _check_fits("inputs", int(input_end.max(initial=0)) + eos, input_length)
    _check_fits("targets", int(target_end.max(initial=0)) + eos, target_length)

    number = np.arange(len(row)) - first[row]
    before = behind - length - (np.cumsum(noise) - noise)[row]
    sentinel = sentinel_ids[number]
    flat = windows.reshape(-1)
    begin = np.arange(rows) * W

    # Both arrays are the window read in steps of one, but for a jump at every span: over its tokens in the
    # inputs, over the text before it in the targets. The sum of the steps says where to read.
    step = _steps(rows, input_length)
    at = len(prefix) + start - before + number
    # Without `</s>` the last sentinel may stand at the very end, where nothing is read any more.
    inside = slice(None) if eos else at + 1 < input_length
    step[row[inside], at[inside] + 1] = length[inside]
    step[:, 0] = begin - len(prefix)
    inputs = _read(flat, step)
    inputs[row, at] = sentinel
    if prefix:
        inputs[:, : len(prefix)] = prefix
    _end(inputs, input_end, eos_id, pad_id)

    step = _steps(rows, target_length)
    text = start - np.where(number > 0, np.roll(spans.stop, 1), 0)
    at = before + number
    step[:, 0] = begin
    step[row, at] = np.where(number > 0, text, begin[row] + text - 1)
    targets = _read(flat, step)
    targets[row, at] = sentinel
    targets[closing, target_end[closing] - 1] = sentinel_ids[count[closing]]
    _end(targets, target_end, eos_id, pad_id)
    return inputs, targets


class _Scratch(threading.local):
    """Memory that is used again: asking for it anew costs a page fault every four kilobytes."""

    steps = np.empty(0, np.int64)


_scratch = _Scratch()


def _steps(rows: int, length: int) -> Int[np.ndarray, "B L"]:
    """An array of ones, which the next call in this thread uses again."""
    size = rows * length
    if _scratch.steps.size < size:
        _scratch.steps = np.empty(size, np.int64)
    steps = _scratch.steps[:size].reshape(rows, length)
    steps.fill(1)
    return steps


def _read(flat: Int[np.ndarray, " n"], step: Int[np.ndarray, "B L"]) -> Int[np.ndarray, "B L"]:
    """The ids at the running sums of the steps; places beyond the ends are overwritten later."""
    return flat.take(np.cumsum(step, axis=1, out=step), mode="clip").astype(np.int32, copy=False)


def _end(ids: Int[np.ndarray, "B L"], end: Int[np.ndarray, " B"], eos_id: int | None, pad_id: int) -> None:
    """Write `</s>` behind each row's last id, and padding behind that."""
    rows, size = ids.shape
    if eos_id is not None:
        ids[np.arange(rows), end] = eos_id
        end = end + 1
    if int(end.min(initial=size)) < size:
        ids[np.arange(size) >= end[:, None]] = pad_id


def _check_fits(what: str, needed: int, available: int) -> None:
    if needed > available:
        raise T5smithError(f"{what} of {needed} positions do not fit into {available}", where="objective")
