"""Which examples share a row: by their lengths, chunk after chunk of the order, so nothing has to be kept.

Each chunk of examples is packed by itself, the largest first and each into the fullest row that has room
(best fit decreasing, Johnson 1973); its rows are then shuffled. The row of an example follows from the
lengths of the examples before it, which are counted once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Int

from t5smith.objective.rng import SHIFTS, generator

CHUNK = 1024
"""Examples that are packed together."""
EXACT = 8
"""Chunks whose examples are counted row by row."""
KEPT = 64
"""Chunks whose rows are kept in memory."""


@dataclass
class PackedRows:
    """The rows of a run, each a list of numbers of examples of its order.

    Attributes:
      lengths_of: tokens of input and target (n, 2) of examples by their numbers in the order.
      room: tokens of input and target that a row has.
      seed: of the run.
    """

    lengths_of: Callable[[Int[np.ndarray, " n"]], Int[np.ndarray, "n 2"]]
    room: tuple[int, int]
    seed: int
    _before: list[int] = field(default_factory=lambda: [0], init=False)
    _kept: dict[int, list[list[int]]] = field(default_factory=dict[int, list[list[int]]], init=False)
    _lock: Any = field(default_factory=Lock, init=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """A process of its own counts again."""
        return PackedRows, (self.lengths_of, self.room, self.seed)

    def __getitem__(self, row: int) -> list[int]:
        """The examples of a row."""
        with self._lock:
            while self._before[-1] <= row:
                self._before.append(self._before[-1] + len(self._rows(len(self._before) - 1)))
            chunk = bisect_right(self._before, row) - 1
            return self._rows(chunk)[row - self._before[chunk]]

    def first_example(self, row: int) -> int:
        """The number of examples in all rows before this one; far ahead, by the mean of the first rows."""
        self[0]
        with self._lock:
            while len(self._before) <= EXACT and self._before[-1] < row:
                self._before.append(self._before[-1] + len(self._rows(len(self._before) - 1)))
            if row > self._before[min(EXACT, len(self._before) - 1)]:
                return round(row * EXACT * CHUNK / self._before[EXACT])
            chunk = bisect_right(self._before, max(row - 1, 0)) - 1
            within = self._rows(chunk)[: row - self._before[chunk]]
        return chunk * CHUNK + sum(map(len, within))

    def _rows(self, chunk: int) -> list[list[int]]:
        if chunk not in self._kept:
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[chunk] = self._packed(chunk)
        return self._kept[chunk]

    def _packed(self, chunk: int) -> list[list[int]]:
        numbers = np.arange(chunk * CHUNK, (chunk + 1) * CHUNK)
        lengths = self.lengths_of(numbers)
        # Where one side of the rows is fuller than the other, that side decides.
        weight = (lengths / np.array(self.room)).max(axis=1)
        rows: list[list[int]] = []
        free = np.zeros((len(numbers), 2), np.int64)
        for at in np.argsort(-weight, kind="stable").tolist():
            need = lengths[at]
            left = (free[: len(rows)] - need).min(axis=1) if rows else np.empty(0, np.int64)
            fits = np.flatnonzero(left >= 0)
            if len(fits):
                row = int(fits[np.argmin(free[fits].sum(axis=1))])
            else:
                row = len(rows)
                rows.append([])
                free[row] = self.room
            rows[row].append(int(numbers[at]))
            free[row] -= need
        order = generator(self.seed, SHIFTS, chunk).permutation(len(rows))
        return [rows[row] for row in order]
