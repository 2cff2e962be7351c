"""Rows of a batch, window by window: what the model is given in one line of its arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from t5smith.inspection.batch import Given
from t5smith.inspection.spans import read
from t5smith.inspection.trace import Place, TokenLoss, Trace, trace_of
from t5smith.objective.objective import Objective
from t5smith.store.token_store import Split
from t5smith.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from t5smith.inspection.token_losses import Measure


@dataclass(frozen=True)
class Row:
    """One row of a batch.

    Attributes:
      title: which row it is, for people; "" for a text of no store.
      windows: the windows in it; more than one if it is packed.
      input_length, target_length: positions of the row, padding counted.
    """

    title: str
    windows: tuple[Trace, ...]
    input_length: int
    target_length: int

    @property
    def input_padding(self) -> int:
        """Positions of the inputs that hold nothing."""
        return self.input_length - sum(len(one.inputs) for one in self.windows)

    @property
    def target_padding(self) -> int:
        """Positions of the targets that hold nothing."""
        return self.target_length - sum(len(one.targets) for one in self.windows)


def rows_of(
    given: Given,
    objective: Objective,
    vocabulary: Vocabulary,
    split: Split,
    *,
    of: str,
    seed: int,
    rows: Sequence[int],
    measure: Measure | None = None,
) -> list[Row]:
    """Some rows of a batch of a store.

    Args:
      given: the batch.
      objective: what made it.
      vocabulary: of the store.
      split: the text it is of.
      of: the batch, for people: `batch 3`.
      seed: of the masks.
      rows: which rows.
      measure: gives the losses of a batch by a model, if these are to be shown.
    """
    given = given.only(rows)
    reading = read(given, objective)
    S, T = given.arrays["input_ids"].shape[1], given.arrays["targets"].shape[1]
    losses: Mapping[int, tuple[TokenLoss, ...]] = {}
    if measure is not None:
        from t5smith.inspection.token_losses import of_windows

        losses = of_windows(measure(given.arrays), reading, vocabulary)
    found: list[Row] = []
    for new, row in enumerate(rows):
        traces = [
            trace_of(
                number,
                given,
                reading,
                objective,
                vocabulary,
                seed=seed,
                place=_place(number, row, given, split, objective),
                losses=losses.get(number, ()),
            )
            for number in np.flatnonzero(given.row == new).tolist()
        ]
        found.append(Row(f"Row {row} of {of}", _placed(traces, given, new), S, T))
    return found


def _placed(traces: Sequence[Trace], given: Given, row: int) -> tuple[Trace, ...]:
    """The windows of a row with the positions at which each begins in it."""
    if "input_segments" not in given.arrays:
        return tuple(traces)
    begins = [given.arrays[f"{side}_segments"][row] for side in ("input", "target")]
    placed: list[Trace] = []
    for trace in traces:
        assert trace.place is not None
        at = [int(np.argmax(segments == trace.place.segment)) for segments in begins]
        placed.append(replace(trace, place=replace(trace.place, input_at=at[0], target_at=at[1])))
    return tuple(placed)


def _place(number: int, row: int, given: Given, split: Split, objective: Objective) -> Place:
    start, stop = int(given.start[number]), int(given.start[number]) + objective.window
    first, last = np.searchsorted(split.ends, [start, stop - 1], side="right").tolist()
    return Place(
        split=split.name,
        window=int(given.number[number]),
        mask=int(given.mask[number]),
        corpus=split.corpora[int(given.corpus[number])].name,
        start=start,
        stop=stop,
        documents=(first, last),
        row=row,
        segment=int(given.segment[number]),
        input_at=0,
        target_at=0,
    )
