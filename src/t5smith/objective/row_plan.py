"""The plan of packed rows: a cycle of rows, and the items in each.

All windows of a denoiser take the same room, an item. So the row and the place of any window of a run follow
from its number, and where the items of a batch are is known before training.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Item:
    """The room that one window, or a pair of windows of prefix LM, takes in a row.

    Attributes:
      inputs, targets: encoder and decoder positions.
      weight: share of all windows; any positive number.
      windows: the number of windows, each a segment of the row.
    """

    inputs: int
    targets: int
    weight: float
    windows: int = 1


@dataclass(frozen=True)
class Placement:
    """The denoiser of each window, and where its inputs and targets go.

    Attributes:
      denoiser: its index.
      row: the row of the window.
      input_at, target_at: where the window's item begins in the row.
      segment: the number of the window in its row, from 1.
      window_in_item: 1 for the second window of a pair of prefix LM, else 0.
    """

    denoiser: Int[np.ndarray, " n"]
    row: Int[np.ndarray, " n"]
    input_at: Int[np.ndarray, " n"]
    target_at: Int[np.ndarray, " n"]
    segment: Int[np.ndarray, " n"]
    window_in_item: Int[np.ndarray, " n"]

    def __getitem__(self, chosen: Int[np.ndarray, " m"]) -> Placement:
        """The places of some of the windows."""
        return Placement(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class RowPlan:
    """The cycle of rows.

    Attributes:
      items: the item of each denoiser.
      input_length, target_length: encoder and decoder positions of a row, S and T.
      rows: for each row of the cycle, the denoisers whose items are in it.
      cycle: the places of the windows of one cycle, in the order of rows.
      before_row: (rows + 1,) the windows of the cycle before each row.
      row_items: the denoisers as in `rows`, -1 behind the last item of a row.
    """

    items: tuple[Item, ...]
    input_length: int
    target_length: int
    rows: tuple[tuple[int, ...], ...]
    cycle: Placement = field(init=False, repr=False, compare=False)
    before_row: Int[np.ndarray, " rows_and_1"] = field(init=False, repr=False, compare=False)
    row_items: Int[np.ndarray, "rows P"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table: list[tuple[int, ...]] = []
        before = [0]
        for number, row in enumerate(self.rows):
            inputs = targets = segment = 0
            for denoiser in row:
                item = self.items[denoiser]
                for window in range(item.windows):
                    segment += 1
                    table.append((denoiser, number, inputs, targets, segment, window))
                inputs += item.inputs
                targets += item.targets
            assert inputs <= self.input_length
            assert targets <= self.target_length
            before.append(len(table))
        object.__setattr__(self, "cycle", Placement(*np.array(table, np.int64).T))
        object.__setattr__(self, "before_row", np.array(before, np.int64))
        most = max(map(len, self.rows))
        padded = [[*row, *[-1] * (most - len(row))] for row in self.rows]
        object.__setattr__(self, "row_items", np.array(padded, np.int32))

    def place(self, q: Int[np.ndarray, " n"], first_row: int = 0) -> Placement:
        """The places of the windows q of a run; rows are counted from `first_row` of the run."""
        places = self.cycle[q % self.windows]
        return replace(places, row=q // self.windows * len(self.rows) + places.row - first_row)

    def items_of(self, first_row: int, rows: int) -> Int[np.ndarray, "B P"]:
        """The denoisers of the items of some rows of a run, in order; -1 behind the last item of a row."""
        return self.row_items[(first_row + np.arange(rows)) % len(self.rows)]

    @property
    def item_sizes(self) -> tuple[tuple[int, int], ...]:
        """Encoder and decoder positions of the item of each denoiser."""
        return tuple((item.inputs, item.targets) for item in self.items)

    @property
    def windows(self) -> int:
        """Windows per cycle."""
        return len(self.cycle.denoiser)

    @property
    def packed(self) -> bool:
        """Whether any row holds more than one window."""
        return self.windows > len(self.rows)

    @property
    def fill(self) -> float:
        """The share of the positions of inputs and targets that items take."""
        items = [self.items[denoiser] for row in self.rows for denoiser in row]
        used = sum(item.inputs + item.targets for item in items)
        return used / (len(self.rows) * (self.input_length + self.target_length))

    def shares(self) -> list[float]:
        """The share of the windows of each denoiser."""
        return (np.bincount(self.cycle.denoiser, minlength=len(self.items)) / self.windows).tolist()

    def first_window(self, row: int) -> int:
        """The number of windows in all rows of a run before this one."""
        cycles, row = divmod(row, len(self.rows))
        return cycles * self.windows + int(self.before_row[row])
