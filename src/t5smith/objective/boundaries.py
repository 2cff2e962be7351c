"""Spans that stay within a document: one that would cross the end of a document is moved off it.

The number of spans and of masked tokens stays what the lengths say. Of a span that crosses, the longest
part within one document is kept and grown by the tokens it lost, away from the document's end; where
there is no room, other spans of the row grow, or another part is kept. Only a row in which no room is found
so, because its documents are very short, keeps its spans as they were drawn.

Shapes: B windows, W tokens a window, N spans in all.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from t5smith.objective.spans import Spans


def keep_within_documents(spans: Spans, opens: Bool[np.ndarray, "B W"]) -> Spans:
    """Spans that cross no document's end, as many and masking as many tokens as before.

    A span at the end of the window stays there, so that no row gets a closing sentinel by it.

    Args:
      spans: as drawn.
      opens: True where a token is the first of a document.
    """
    document = np.cumsum(opens, axis=1, dtype=np.int32)
    start, stop = spans.start, spans.stop
    unsolved = np.zeros(spans.rows, bool)
    unsolved[spans.row[crosses_documents(spans, document)]] = True
    for keep in (_LONGEST, _FIRST, _LAST):
        if not unsolved.any():
            break
        mine = unsolved[spans.row]
        own = Spans(spans.rows, spans.row[mine], spans.start[mine], spans.stop[mine])
        moved = _moved(own, document, opens, keep)
        solved = unsolved & (moved.missing(own) == 0)
        start, stop = start.copy(), stop.copy()
        start[mine] = np.where(solved[own.row], moved.start, start[mine])
        stop[mine] = np.where(solved[own.row], moved.stop, stop[mine])
        unsolved &= ~solved
    return Spans(spans.rows, spans.row, start, stop)


_LONGEST, _FIRST, _LAST = range(3)
"""Which part of a span that crosses is kept: each is tried on the rows where the one before found no room."""


def _moved(
    spans: Spans, document: Int[np.ndarray, "B W"], opens: Bool[np.ndarray, "B W"], keep: int
) -> _Grower:
    """Spans of which one part is kept and grown; some rows may then still mask too few tokens."""
    start, stop = _parts_kept(spans, document, opens.shape[1], keep)
    lost = (spans.stop - spans.start) - (stop - start)
    moved = _Grower(spans.row, start, stop, opens)
    # First each by what it lost, then whoever has room by what its row still lacks.
    moved.grow_right(np.where(start > spans.start, lost, 0))
    moved.grow_left(np.where(stop < spans.stop, lost, 0))
    moved.grow_right(moved.shares(moved.room_right(), spans))
    moved.grow_left(moved.shares(moved.room_left(), spans))
    return moved


def crosses_documents(spans: Spans, document: Int[np.ndarray, "B W"]) -> Bool[np.ndarray, " N"]:
    """Which spans have tokens of more than one document."""
    return document[spans.row, spans.start] != document[spans.row, spans.stop - 1]


def _parts_kept(
    spans: Spans, document: Int[np.ndarray, "B W"], window: int, keep: int
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Of each span a stretch within one document; of a span that ends the window always the last."""
    length = spans.stop - spans.start
    span = np.repeat(np.arange(len(length)), length)
    within = np.arange(len(span)) - (np.cumsum(length) - length)[span]
    token = spans.start[span] + within
    of = document[spans.row[span], token]
    begins = np.flatnonzero((within == 0) | (of != np.roll(of, 1)))
    size = np.diff(np.append(begins, len(span)))
    # The last of those that rank highest in each span.
    rank = (size, -within[begins], within[begins])[keep]
    rank = np.where(token[begins] + size == window, window + 1, rank)
    best = np.lexsort((np.arange(len(begins)), rank, span[begins]))
    best = best[np.append(np.flatnonzero(np.diff(span[begins][best])), len(best) - 1)]
    start = token[begins[best]]
    return start, start + size[best]


class _Grower:
    """Spans that grow to either side as far as their document and their neighbours let them."""

    def __init__(
        self,
        row: Int[np.ndarray, " N"],
        start: Int[np.ndarray, " N"],
        stop: Int[np.ndarray, " N"],
        opens: Bool[np.ndarray, "B W"],
    ) -> None:
        W = opens.shape[1]
        place = np.arange(W)
        self.row, self.start, self.stop = row, start.copy(), stop.copy()
        first = np.maximum.accumulate(np.where(opens, place, 0), axis=1)
        later = np.where(opens, place, W)[:, ::-1]
        last = np.minimum.accumulate(np.pad(later, ((0, 0), (1, 0)), constant_values=W), axis=1)[:, -2::-1]
        self.lowest, self.highest = first[row, start], last[row, start]
        self.begins_row = np.diff(row, prepend=-1) > 0
        self.ends_row = np.diff(row, append=row[-1] + 1) > 0
        self.window = W

    def room_right(self) -> Int[np.ndarray, " N"]:
        """Tokens each span could take behind it and leave one before the next span."""
        limit = np.where(self.ends_row, self.window, np.roll(self.start, -1) - 1)
        # A last span that does not end the window must leave its text, or there would be none behind it.
        limit = np.where(self.ends_row & (self.stop < self.window), self.window - 1, limit)
        return np.maximum(np.minimum(limit, self.highest) - self.stop, 0)

    def room_left(self) -> Int[np.ndarray, " N"]:
        """Tokens each span could take before it and leave one behind the span before, or in the row."""
        limit = np.where(self.begins_row, 0, np.roll(self.stop, 1)) + 1
        return np.maximum(self.start - np.maximum(limit, self.lowest), 0)

    def grow_right(self, by: Int[np.ndarray, " N"]) -> None:
        """Grow each by so much, or as far as there is room."""
        self.stop += np.minimum(by, self.room_right())

    def grow_left(self, by: Int[np.ndarray, " N"]) -> None:
        """Grow each by so much, or as far as there is room."""
        self.start -= np.minimum(by, self.room_left())

    def missing(self, wanted: Spans) -> Int[np.ndarray, " B"]:
        """Tokens that each row masks fewer than it should."""
        lack = (wanted.stop - wanted.start) - (self.stop - self.start)
        total = np.zeros(wanted.rows, np.int64)
        np.add.at(total, self.row, lack)
        return total

    def shares(self, room: Int[np.ndarray, " N"], wanted: Spans) -> Int[np.ndarray, " N"]:
        """What a row lacks, given to its spans one after the other as far as each has room."""
        until = np.cumsum(room) - room
        begin = np.maximum.accumulate(np.where(self.begins_row, until, 0))
        return np.clip(self.missing(wanted)[self.row] - (until - begin), 0, room)
