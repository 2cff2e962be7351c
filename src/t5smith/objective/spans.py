"""The masked spans of a whole batch: drawn at random, or rotated.

The method is that of Raffel et al., "Exploring the Limits of Transfer Learning" (2020), section 3.1.4.
Spans are drawn as by t5's `random_spans_noise_mask`: the noise and the text are each split uniformly at
random into as many non-empty parts as there are spans, and the parts are interleaved, text first.

A span is stored as its row, start and stop, not as a mask: a window of 568 tokens has 28 spans, and work on
28 numbers is cheaper than on 568. There is no loop over rows, only one over the spans of a row.

Shapes: B windows, W tokens per window, k spans per window, N spans in the batch, d random numbers per window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from t5smith.objective.lengths import SpanLengths


@dataclass(frozen=True)
class Spans:
    """The masked spans of several windows, sorted by window and position.

    Attributes:
      rows: the number of windows, B. A window may have no span.
      row: (N,) the window of each span.
      start, stop: (N,) the first token of each span, and the one after its last. Spans never touch.
    """

    rows: int
    row: Int[np.ndarray, " N"]
    start: Int[np.ndarray, " N"]
    stop: Int[np.ndarray, " N"]

    def masks(self, window: int) -> Bool[np.ndarray, "B W"]:
        """One mask per window: True where a token is masked."""
        flips = np.zeros((self.rows, window + 1), np.int8)
        flips[self.row, self.start] = 1
        flips[self.row, self.stop] = 1
        return (np.cumsum(flips[:, :-1], axis=1, dtype=np.int32) & 1).astype(bool)

    @classmethod
    def of_masks(cls, masks: Bool[np.ndarray, "B W"]) -> Spans:
        """The inverse of :meth:`masks`: each run of True becomes a span."""
        rows, window = masks.shape
        framed = np.zeros((rows, window + 2), np.int8)
        framed[:, 1:-1] = masks
        row, edge = np.nonzero(np.diff(framed, axis=1))
        return cls(rows, row[::2], edge[::2], edge[1::2])


def draws_needed(lengths: SpanLengths) -> int:
    """The number of random numbers per window, d, that :func:`draw_spans` needs."""
    return _draws(lengths.noise, lengths.spans) + _draws(lengths.window - lengths.noise, lengths.spans)


def draw_spans(uniforms: Float[np.ndarray, "B d"], lengths: SpanLengths) -> Spans:
    """Mask `lengths.noise` tokens of each window in `lengths.spans` spans, with text before each span.

    All such masks are equally likely. The first token is never masked, the last one always is.

    Args:
      uniforms: random numbers in [0, 1), at least :func:`draws_needed` per window.
      lengths: the lengths of a window.
    """
    rows, k = len(uniforms), lengths.spans
    noise_ends, text_ends = _part_ends(uniforms, (lengths.noise, lengths.window - lengths.noise), k)
    # Before span j there are j + 1 parts of text and j parts of noise.
    stop = text_ends + noise_ends
    start = text_ends.copy()
    start[:, 1:] += noise_ends[:, :-1]
    return Spans(rows, np.repeat(np.arange(rows), k), start.reshape(-1), stop.reshape(-1))


def _draws(total: int, parts: int) -> int:
    """Random numbers that choose parts - 1 of total - 1 cut points, or the complement if that is smaller."""
    return min(parts - 1, total - parts)


def _part_ends(
    uniforms: Float[np.ndarray, "B d"], totals: tuple[int, int], parts: int
) -> list[Int[np.ndarray, "B k"]]:
    """The ends of the parts when each total is split into non-empty parts, all splits equally likely."""
    rows = len(uniforms)
    # A total can be cut between any two neighbours. The cuts are drawn, or the points without a cut if fewer.
    draws = [_draws(total, parts) for total in totals]
    points = [total - 1 for total in totals]
    if draws[0] == draws[1]:
        drawn = _choose(uniforms, draws[0], points)
    else:
        drawn = [
            *_choose(uniforms[:, : draws[0]], draws[0], points[:1]),
            *_choose(uniforms[:, draws[0] :], draws[1], points[1:]),
        ]
    part_ends: list[Int[np.ndarray, "B k"]] = []
    for chosen, count, total in zip(drawn, draws, totals, strict=True):
        ends = np.full((rows, parts), total)
        if parts > 1:
            cuts = chosen if count == parts - 1 else ~chosen
            ends[:, :-1] = (np.flatnonzero(cuts) % (total - 1) + 1).reshape(rows, parts - 1)
        part_ends.append(ends)
    return part_ends


def _choose(
    uniforms: Float[np.ndarray, "B d"], m: int, points: list[int]
) -> list[Bool[np.ndarray, "B points"]]:
    """Choose m of n points in each row, all choices equally likely; once for each n in `points`.

    Floyd's algorithm (Bentley & Floyd, "A sample of brilliance", 1987): draw i is uniform over the first
    n - m + i + 1 points; if the drawn point is taken already, the last of these is taken instead.
    """
    rows = len(uniforms)
    size = np.repeat(points, rows)
    offset = np.cumsum(size) - size
    last = size - m + np.arange(m)[:, None]
    numbers = np.concatenate([uniforms[:, i * m : (i + 1) * m] for i in range(len(points))])
    drawn = (np.ascontiguousarray(numbers.T) * (last + 1)).astype(np.int64) + offset
    last += offset
    chosen = np.zeros(int(size.sum()), bool)
    for point, fallback in zip(drawn, last, strict=True):
        chosen[np.where(chosen[point], fallback, point)] = True
    edges = np.cumsum(points)[:-1] * rows
    return [part.reshape(rows, -1) for part in np.split(chosen, edges)]


def roll_spans(spans: Spans, by: Int[np.ndarray, " B"], window: int) -> Spans:
    """Rotate the mask of each window by `by` tokens, as t5's `random_roll`.

    A span that crosses the end of the window becomes two. So a rolled mask may have one extra span, begin
    with noise, or end with text.
    """
    masks = spans.masks(window)
    source = (np.arange(window) - by[:, None]) % window
    return Spans.of_masks(np.take_along_axis(masks, source, axis=1))
