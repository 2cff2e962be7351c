"""Packing: which windows share a row, so that rows of one shape are full though windows differ.

A denoiser turns every window into an item of one size, so the question is settled once, before training:
rows follow a cycle of patterns, each saying which denoisers' items lie side by side. How the patterns are
chosen is the cutting-stock problem (Gilmore & Gomory 1961), a small linear program here. Window q has its
place in (cycle, row, item) by its number alone, so nothing is buffered and nothing has to be restored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linprog

from t5smith.base.errors import T5smithError

FULL_ENOUGH = 0.95
"""Rows are made longer until so many of their positions are filled."""
LONGEST = 4
"""Rows are at most so many times as long as the longest item."""
GRID = 16
"""Row lengths are multiples of this, which suits accelerators."""
MAX_PATTERNS = 20_000
MAX_ROWS = 500
"""Rows of a cycle; the shares of the denoisers are right to about one part in as many."""


@dataclass(frozen=True)
class Item:
    """What one window, or two that belong together, take of a row.

    Attributes:
      inputs, targets: encoder and decoder positions.
      windows: how many windows, each a segment.
      weight: its windows' share of all windows; any positive number.
    """

    inputs: int
    targets: int
    weight: float
    windows: int = 1


@dataclass(frozen=True)
class RowPlan:
    """The cycle of rows. Arrays have an entry a window of the cycle, in the order of rows.

    Attributes:
      items: the kinds of items.
      input_length, target_length: the shape of a row.
      rows: for each row of the cycle, the numbers of the items in it.
    """

    items: tuple[Item, ...]
    input_length: int
    target_length: int
    rows: tuple[tuple[int, ...], ...]
    denoiser: Int[np.ndarray, " windows"] = field(init=False, repr=False, compare=False)
    row: Int[np.ndarray, " windows"] = field(init=False, repr=False, compare=False)
    input_at: Int[np.ndarray, " windows"] = field(init=False, repr=False, compare=False)
    target_at: Int[np.ndarray, " windows"] = field(init=False, repr=False, compare=False)
    segment: Int[np.ndarray, " windows"] = field(init=False, repr=False, compare=False)
    window_in_item: Int[np.ndarray, " windows"] = field(init=False, repr=False, compare=False)
    before_row: Int[np.ndarray, " rows_and_1"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table: list[tuple[int, ...]] = []
        before = [0]
        for number, row in enumerate(self.rows):
            inputs = targets = segment = 0
            for kind in row:
                item = self.items[kind]
                for place in range(item.windows):
                    segment += 1
                    table.append((kind, number, inputs, targets, segment, place))
                inputs += item.inputs
                targets += item.targets
            assert inputs <= self.input_length
            assert targets <= self.target_length
            before.append(len(table))
        columns = np.array(table, np.int64).T
        for name, column in zip(
            ("denoiser", "row", "input_at", "target_at", "segment", "window_in_item"), columns, strict=True
        ):
            object.__setattr__(self, name, column)
        object.__setattr__(self, "before_row", np.array(before, np.int64))

    @property
    def windows(self) -> int:
        """Windows in a cycle."""
        return len(self.denoiser)

    @property
    def packed(self) -> bool:
        """Whether any row holds more than one window."""
        return self.windows > len(self.rows)

    @property
    def fill(self) -> float:
        """Share of the positions of inputs and targets that items take."""
        used = sum(self.items[kind].inputs + self.items[kind].targets for row in self.rows for kind in row)
        return used / (len(self.rows) * (self.input_length + self.target_length))

    def shares(self) -> list[float]:
        """For each kind of item the share of the windows that it gets."""
        return (np.bincount(self.denoiser, minlength=len(self.items)) / self.windows).tolist()

    def first_window(self, row: int) -> int:
        """How many windows the rows before this one take, from the beginning of a run."""
        cycles, row = divmod(row, len(self.rows))
        return cycles * self.windows + int(self.before_row[row])


def plan_rows(items: Sequence[Item], input_length: int | None = None) -> RowPlan:
    """The cycle of rows for some kinds of items.

    Args:
      items: the kinds.
      input_length: encoder positions of a row. Left out: those of the largest item if that leaves few
        places empty, else the fewest with which rows are 95 % full.

    Raises:
      T5smithError: an item is longer than a row, or rows hold so many that there is no end of patterns.
    """
    return _plan_rows(tuple(items), input_length)


@lru_cache(maxsize=32)
def _plan_rows(items: tuple[Item, ...], input_length: int | None) -> RowPlan:
    largest = max(item.inputs for item in items), max(item.targets for item in items)
    if input_length is not None and input_length < largest[0]:
        raise T5smithError(
            f"{input_length} cannot be used",
            where="objective.input_length",
            expected=f"at least {largest[0]}, what one window takes",
            fix="lower objective.window_length or leave out objective.input_length",
        )
    if len(items) == 1 and input_length is None:
        return RowPlan(items, *largest, ((0,),))
    best: _Filling | None = None
    for inputs, targets in _shapes(items, largest, input_length):
        filling = _fill(items, inputs, targets)
        if filling is not None and (best is None or filling.full > best.full):
            best = filling
            if best.full >= FULL_ENOUGH and input_length is None:
                break
    assert best is not None, "each item fits into a row of its own"
    return best.plan(items)


def _shapes(
    items: Sequence[Item], largest: tuple[int, int], input_length: int | None
) -> Iterator[tuple[int, int]]:
    """Row shapes to try, the smallest first. Targets are about in proportion to inputs."""
    yield input_length or largest[0], largest[1]
    weights = np.array([item.weight / item.windows for item in items])
    ratio = float(weights @ [item.targets for item in items] / (weights @ [item.inputs for item in items]))
    if input_length is not None:
        # Rows of given inputs: as many targets as may be of use.
        top = max(largest[1], int(input_length * ratio * 1.3))
        yield from ((input_length, targets) for targets in _multiples(largest[1], top))
        return
    shapes = [
        (inputs, targets)
        for inputs in _multiples(largest[0], LONGEST * largest[0])
        for targets in _multiples(
            max(largest[1], int(inputs * ratio * 0.9)), max(largest[1], int(inputs * ratio * 1.2))
        )
    ]
    yield from sorted(shapes, key=lambda shape: (sum(shape), shape))


def _multiples(low: int, high: int) -> range:
    return range(-(-low // GRID) * GRID, high + GRID, GRID)


@dataclass(frozen=True)
class _Filling:
    """How often to use each pattern of a row shape, and how full the rows then are."""

    shape: tuple[int, int]
    patterns: Int[np.ndarray, "patterns kinds"]
    often: Float[np.ndarray, " patterns"]
    full: float

    def plan(self, items: tuple[Item, ...]) -> RowPlan:
        """The cycle in whole rows."""
        windows = np.array([item.windows for item in items])
        counts = _whole(self.often, self.patterns * windows, _shares(items))
        return RowPlan(items, *self.shape, _interleaved(self.patterns, counts))


def _fill(items: Sequence[Item], inputs: int, targets: int) -> _Filling | None:
    """As few rows of a shape as can be, with the windows in the right shares; None if it cannot be."""
    patterns = np.array(list(_patterns(items, inputs, targets)), np.int64)
    windows = np.array([item.windows for item in items])
    found: Any = linprog(
        np.ones(len(patterns)),
        A_eq=(patterns * windows).T,
        b_eq=_shares(items),
        bounds=(0, None),
        method="highs",
    )
    if not found.success:
        return None
    size = np.array([item.inputs + item.targets for item in items])
    full = float(found.x @ patterns @ size) / (float(found.x.sum()) * (inputs + targets))
    return _Filling((inputs, targets), patterns, found.x / found.x.sum(), full)


def _shares(items: Sequence[Item]) -> Float[np.ndarray, " kinds"]:
    weights = np.array([item.weight for item in items], np.float64)
    return weights / weights.sum()


def _patterns(items: Sequence[Item], inputs: int, targets: int) -> Iterator[tuple[int, ...]]:
    """Every way to fill a row, as how many of each item.

    Raises:
      T5smithError: there are far too many.
    """
    found = 0

    def rest(kind: int, inputs: int, targets: int) -> Iterator[tuple[int, ...]]:
        if kind == len(items):
            yield ()
            return
        item = items[kind]
        for count in range(min(inputs // item.inputs, targets // item.targets) + 1):
            for others in rest(kind + 1, inputs - count * item.inputs, targets - count * item.targets):
                yield (count, *others)

    for pattern in rest(0, inputs, targets):
        if any(pattern):
            found += 1
            if found > MAX_PATTERNS:
                raise T5smithError(
                    f"rows of {inputs} inputs can be filled in over {MAX_PATTERNS:,} ways",
                    where="objective.input_length",
                    fix="lower it, raise objective.window_length, or use fewer denoisers",
                )
            yield pattern


def _whole(
    often: Float[np.ndarray, " patterns"],
    windows: Int[np.ndarray, "patterns kinds"],
    wanted: Float[np.ndarray, " kinds"],
) -> Int[np.ndarray, " patterns"]:
    """Whole rows of each pattern: the shortest cycle whose shares are as good as those of the longest."""

    def error(counts: np.ndarray) -> float:
        taken = counts @ windows
        return float(np.abs(taken / taken.sum() - wanted).max())

    used = int((often > 1e-9).sum())
    cycles = [np.rint(often * rows).astype(np.int64) for rows in range(used, MAX_ROWS + 1)]
    cycles = [counts for counts in cycles if ((counts @ windows) > 0).all()]
    enough = max(min(map(error, cycles)), 1 / MAX_ROWS)
    return next(counts for counts in cycles if error(counts) <= enough)


def _interleaved(
    patterns: Int[np.ndarray, "patterns kinds"], counts: Int[np.ndarray, " patterns"]
) -> tuple[tuple[int, ...], ...]:
    """Patterns in turn, each as evenly over the cycle as can be."""
    places = [
        ((i + 0.5) / count, number) for number, count in enumerate(counts.tolist()) for i in range(count)
    ]
    return tuple(
        tuple(np.repeat(np.arange(patterns.shape[1]), patterns[number]).tolist())
        for _, number in sorted(places)
    )
