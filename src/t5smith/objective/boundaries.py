"""Spans that stay within a document: a span that would cross a document boundary is moved off it.

The numbers of spans and of masked tokens do not change. Of a crossing span, the longest part within one
document is kept and extended, away from the boundary, by the tokens it lost. If there is no room, other
spans of the window are extended, or another part is kept. If there is still no room, because documents are
very short, the window keeps its spans as drawn.

Shapes: B windows, W tokens per window, N spans in the batch, P parts of spans within one document.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from t5smith.objective.spans import Spans


def keep_within_documents(spans: Spans, document_starts: Bool[np.ndarray, "B W"]) -> Spans:
    """Move spans so that none crosses a document boundary; the counts of spans and noise tokens stay.

    A span at the end of the window stays there, so that the window needs no closing sentinel.

    Args:
      spans: the spans as drawn.
      document_starts: True where a token is the first of a document.
    """
    document = np.cumsum(document_starts, axis=1, dtype=np.int32)
    start, stop = spans.start, spans.stop
    unsolved = np.zeros(spans.rows, bool)
    unsolved[spans.row[crosses_documents(spans, document)]] = True
    for keep in (_LONGEST, _FIRST, _LAST):
        if not unsolved.any():
            break
        chosen = unsolved[spans.row]
        drawn = Spans(spans.rows, spans.row[chosen], spans.start[chosen], spans.stop[chosen])
        moved = _moved(drawn, document, document_starts, keep)
        solved = unsolved & (moved.missing(drawn) == 0)
        start, stop = start.copy(), stop.copy()
        start[chosen] = np.where(solved[drawn.row], moved.start, start[chosen])
        stop[chosen] = np.where(solved[drawn.row], moved.stop, stop[chosen])
        unsolved &= ~solved
    return Spans(spans.rows, spans.row, start, stop)


_LONGEST, _FIRST, _LAST = range(3)
"""The part kept of a crossing span. Each is tried on the windows where the one before it found no room."""


def _moved(
    spans: Spans, document: Int[np.ndarray, "B W"], document_starts: Bool[np.ndarray, "B W"], keep: int
) -> _Grower:
    """Keep one part of each span and extend it; some windows may then still have too few masked tokens."""
    start, stop = _kept_parts(spans, document, document_starts.shape[1], keep)
    lost = (spans.stop - spans.start) - (stop - start)
    moved = _Grower(spans.row, start, stop, document_starts)
    # First each span by what it lost, then any span with room by what its window still lacks.
    moved.grow_right(np.where(start > spans.start, lost, 0))
    moved.grow_left(np.where(stop < spans.stop, lost, 0))
    moved.grow_right(moved.shares(moved.room_right(), spans))
    moved.grow_left(moved.shares(moved.room_left(), spans))
    return moved


def crosses_documents(spans: Spans, document: Int[np.ndarray, "B W"]) -> Bool[np.ndarray, " N"]:
    """Whether each span has tokens of more than one document."""
    return document[spans.row, spans.start] != document[spans.row, spans.stop - 1]


def _kept_parts(
    spans: Spans, document: Int[np.ndarray, "B W"], window: int, keep: int
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Of each span one part within one document, as starts and stops; the last one at the window's end."""
    length = spans.stop - spans.start
    span = np.repeat(np.arange(len(length)), length)
    within = np.arange(len(span)) - (np.cumsum(length) - length)[span]
    token = spans.start[span] + within
    document_of = document[spans.row[span], token]
    part = np.flatnonzero((within == 0) | (document_of != np.roll(document_of, 1)))
    size = np.diff(np.append(part, len(span)))
    # Of each span the part of the highest rank; the last of them if ranks are equal.
    rank = (size, -within[part], within[part])[keep]
    rank = np.where(token[part] + size == window, window + 1, rank)
    order = np.lexsort((np.arange(len(part)), rank, span[part]))
    best = order[np.append(np.flatnonzero(np.diff(span[part][order])), len(order) - 1)]
    start = token[part[best]]
    return start, start + size[best]


class _Grower:
    """Spans that are extended to either side, up to the ends of their document and their neighbours."""

    def __init__(
        self,
        row: Int[np.ndarray, " N"],
        start: Int[np.ndarray, " N"],
        stop: Int[np.ndarray, " N"],
        document_starts: Bool[np.ndarray, "B W"],
    ) -> None:
        W = document_starts.shape[1]
        position = np.arange(W)
        self.row, self.start, self.stop = row, start.copy(), stop.copy()
        first = np.maximum.accumulate(np.where(document_starts, position, 0), axis=1)
        next_start = np.where(document_starts, position, W)[:, ::-1]
        padded = np.pad(next_start, ((0, 0), (1, 0)), constant_values=W)
        last = np.minimum.accumulate(padded, axis=1)[:, -2::-1]
        self.lowest, self.highest = first[row, start], last[row, start]
        self.is_first = np.diff(row, prepend=-1) > 0
        self.is_last = np.diff(row, append=row[-1] + 1) > 0
        self.window = W

    def room_right(self) -> Int[np.ndarray, " N"]:
        """Tokens by which each span can grow to the right and leave one before the next span."""
        limit = np.where(self.is_last, self.window, np.roll(self.start, -1) - 1)
        # A last span that does not end the window must leave text after it.
        limit = np.where(self.is_last & (self.stop < self.window), self.window - 1, limit)
        return np.maximum(np.minimum(limit, self.highest) - self.stop, 0)

    def room_left(self) -> Int[np.ndarray, " N"]:
        """Tokens by which each span can grow to the left and leave one token of text before it."""
        limit = np.where(self.is_first, 0, np.roll(self.stop, 1)) + 1
        return np.maximum(self.start - np.maximum(limit, self.lowest), 0)

    def grow_right(self, by: Int[np.ndarray, " N"]) -> None:
        """Grow each span by `by` tokens, or as far as there is room."""
        self.stop += np.minimum(by, self.room_right())

    def grow_left(self, by: Int[np.ndarray, " N"]) -> None:
        """Grow each span by `by` tokens, or as far as there is room."""
        self.start -= np.minimum(by, self.room_left())

    def missing(self, wanted: Spans) -> Int[np.ndarray, " B"]:
        """Masked tokens that each window lacks."""
        lack = np.zeros(wanted.rows, np.int64)
        np.add.at(lack, self.row, (wanted.stop - wanted.start) - (self.stop - self.start))
        return lack

    def shares(self, room: Int[np.ndarray, " N"], wanted: Spans) -> Int[np.ndarray, " N"]:
        """What a window lacks, distributed over its spans from the first on, as far as each has room."""
        room_before = np.cumsum(room) - room
        row_begin = np.maximum.accumulate(np.where(self.is_first, room_before, 0))
        return np.clip(self.missing(wanted)[self.row] - (room_before - row_begin), 0, room)
