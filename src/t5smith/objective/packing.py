"""Packing: which windows share a row, so that rows of one shape are full although windows differ in size.

All windows of a denoiser take the same room, an item, so packing is planned once, before training: rows
follow a cycle of patterns, and each pattern lists the items that share a row. The choice of patterns is the
cutting-stock problem (Gilmore & Gomory 1961), here a small linear program. The cycle, row and item of
window q follow from q alone, so nothing is buffered and there is no state to restore.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linprog

from t5smith.base.errors import T5smithError
from t5smith.objective.row_plan import Item, RowPlan

TARGET_FILL = 0.95
"""Rows are made longer until this share of their positions is filled."""
MAX_ITEMS_LONG = 4
"""Rows are at most this many times as long as the longest item."""
LENGTH_MULTIPLE = 16
"""Row lengths are multiples of this, which suits accelerators."""
MAX_PATTERNS = 20_000
MAX_ROWS = 500
"""Rows per cycle; the shares of the denoisers are exact to about one part in this many."""


@lru_cache(maxsize=32)
def plan_rows(items: tuple[Item, ...], input_length: int | None = None) -> RowPlan:
    """Plan the cycle of rows.

    Args:
      items: the item of each denoiser.
      input_length: encoder positions per row. Default: those of the largest item if rows are then 95 % full,
        else the fewest with which they are.

    Raises:
      T5smithError: an item is longer than a row, or a row can be filled in too many ways.
    """
    largest = max(item.inputs for item in items), max(item.targets for item in items)
    if input_length is not None and input_length < largest[0]:
        raise T5smithError(
            f"{input_length} cannot be used",
            where="objective.input_length",
            expected=f"at least {largest[0]}, the inputs of one window",
            fix="lower objective.window_length or remove objective.input_length",
        )
    if len(items) == 1 and input_length is None:
        return RowPlan(items, *largest, ((0,),))
    best: _Mix | None = None
    for inputs, targets in _shapes(items, largest, input_length):
        mix = _solve(items, inputs, targets)
        if mix is not None and (best is None or mix.fill > best.fill):
            best = mix
            if best.fill >= TARGET_FILL and input_length is None:
                break
    assert best is not None, "each item fits into a row of its own"
    return best.plan(items)


def _shapes(
    items: Sequence[Item], largest: tuple[int, int], input_length: int | None
) -> Iterator[tuple[int, int]]:
    """Row shapes to try, smallest first. The ratio of targets to inputs is about that of the items."""
    yield input_length or largest[0], largest[1]
    weights = np.array([item.weight / item.windows for item in items])
    ratio = float(weights @ [item.targets for item in items] / (weights @ [item.inputs for item in items]))
    if input_length is not None:
        # The inputs are fixed: try all numbers of targets that may help.
        top = max(largest[1], int(input_length * ratio * 1.3))
        yield from ((input_length, targets) for targets in _multiples(largest[1], top))
        return
    shapes = [
        (inputs, targets)
        for inputs in _multiples(largest[0], MAX_ITEMS_LONG * largest[0])
        for targets in _multiples(
            max(largest[1], int(inputs * ratio * 0.9)), max(largest[1], int(inputs * ratio * 1.2))
        )
    ]
    yield from sorted(shapes, key=lambda shape: (sum(shape), shape))


def _multiples(low: int, high: int) -> range:
    return range(-(-low // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, high + LENGTH_MULTIPLE, LENGTH_MULTIPLE)


@dataclass(frozen=True)
class _Mix:
    """How often to use each pattern of a row shape.

    Attributes:
      shape: inputs and targets of a row.
      patterns: how many items of each denoiser a pattern has.
      share: the share of the rows that have each pattern.
      fill: the share of all positions that items then take.
    """

    shape: tuple[int, int]
    patterns: Int[np.ndarray, "patterns denoisers"]
    share: Float[np.ndarray, " patterns"]
    fill: float

    def plan(self, items: tuple[Item, ...]) -> RowPlan:
        """The cycle, with a whole number of rows of each pattern."""
        windows = np.array([item.windows for item in items])
        counts = _row_counts(self.share, self.patterns * windows, _shares(items))
        return RowPlan(items, *self.shape, _interleaved(self.patterns, counts))


def _solve(items: Sequence[Item], inputs: int, targets: int) -> _Mix | None:
    """The fewest rows of a shape that hold the windows in the right shares; None if that is infeasible."""
    patterns = np.array(list(_patterns(items, inputs, targets)), np.int64)
    windows = np.array([item.windows for item in items])
    solution: Any = linprog(
        np.ones(len(patterns)),
        A_eq=(patterns * windows).T,
        b_eq=_shares(items),
        bounds=(0, None),
        method="highs",
    )
    if not solution.success:
        return None
    rows = solution.x
    size = np.array([item.inputs + item.targets for item in items])
    fill = float(rows @ patterns @ size) / (float(rows.sum()) * (inputs + targets))
    return _Mix((inputs, targets), patterns, rows / rows.sum(), fill)


def _shares(items: Sequence[Item]) -> Float[np.ndarray, " denoisers"]:
    weights = np.array([item.weight for item in items], np.float64)
    return weights / weights.sum()


def _patterns(items: Sequence[Item], inputs: int, targets: int) -> Iterator[tuple[int, ...]]:
    """All ways to fill a row, as the number of items of each denoiser; an error if there are over 20,000."""

    def fill(denoiser: int, inputs: int, targets: int) -> Iterator[tuple[int, ...]]:
        if denoiser == len(items):
            yield ()
            return
        item = items[denoiser]
        for count in range(min(inputs // item.inputs, targets // item.targets) + 1):
            for rest in fill(denoiser + 1, inputs - count * item.inputs, targets - count * item.targets):
                yield (count, *rest)

    for number, pattern in enumerate(fill(0, inputs, targets)):
        # The first pattern is the empty row.
        if number > MAX_PATTERNS:
            raise T5smithError(
                f"rows of {inputs} inputs can be filled in over {MAX_PATTERNS:,} ways",
                where="objective.input_length",
                fix="lower it, raise objective.window_length, or use fewer denoisers",
            )
        if number:
            yield pattern


def _row_counts(
    share: Float[np.ndarray, " patterns"],
    windows: Int[np.ndarray, "patterns denoisers"],
    wanted: Float[np.ndarray, " denoisers"],
) -> Int[np.ndarray, " patterns"]:
    """Rows of each pattern in the shortest cycle whose shares of windows are as exact as the best of all."""

    def error(counts: Int[np.ndarray, " patterns"]) -> float:
        used = counts @ windows
        return float(np.abs(used / used.sum() - wanted).max())

    shortest = int((share > 1e-9).sum())
    cycles = [np.rint(share * rows).astype(np.int64) for rows in range(shortest, MAX_ROWS + 1)]
    cycles = [counts for counts in cycles if ((counts @ windows) > 0).all()]
    tolerance = max(min(map(error, cycles)), 1 / MAX_ROWS)
    return next(counts for counts in cycles if error(counts) <= tolerance)


def _interleaved(
    patterns: Int[np.ndarray, "patterns denoisers"], counts: Int[np.ndarray, " patterns"]
) -> tuple[tuple[int, ...], ...]:
    """The rows of the cycle, with the rows of each pattern spread evenly."""
    positions = [
        ((i + 0.5) / count, number) for number, count in enumerate(counts.tolist()) for i in range(count)
    ]
    return tuple(
        tuple(np.repeat(np.arange(patterns.shape[1]), patterns[number]).tolist())
        for _, number in sorted(positions)
    )
