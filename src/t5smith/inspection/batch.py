"""A batch as the model is given it, and where each window in it comes from.

The arrays are those that training and evaluation take; what is known of a window beside them follows from
its number, by the same order of windows and the same plan of rows.

Shapes: n windows, W tokens a window, B rows, S input and T target positions a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from t5smith.objective.objective import Batch, Objective
from t5smith.recipe.evaluate import EvaluateSettings
from t5smith.store.token_store import Split

if TYPE_CHECKING:
    from t5smith.objective.batches import TrainingBatches


@dataclass(frozen=True)
class Given:
    """A batch, and what each window in it is: windows in the order of rows, and within a row of segments.

    Attributes:
      arrays: what the model is given.
      windows: (n, W) the text before corruption.
      row: (n,) the row of the batch that each window is in.
      segment: (n,) its number in the row, from 1.
      task: (n,) the number of its denoiser.
      number: (n,) which window it is: of the run, or of the held-out split.
      mask: (n,) the number of its mask; a held-out window has several.
      start: (n,) the place of its first token in the split; -1 if it is of none.
      corpus: (n,) the number of the split's corpus that it is from.
      opens: (n, W) which tokens begin a document.
    """

    arrays: Batch
    windows: Int[np.ndarray, "n W"]
    row: Int[np.ndarray, " n"]
    segment: Int[np.ndarray, " n"]
    task: Int[np.ndarray, " n"]
    number: Int[np.ndarray, " n"]
    mask: Int[np.ndarray, " n"]
    start: Int[np.ndarray, " n"]
    corpus: Int[np.ndarray, " n"]
    opens: Bool[np.ndarray, "n W"]

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return len(self.arrays["targets"])

    def only(self, rows: Sequence[int]) -> Given:
        """The same batch with these rows alone, in this order."""
        chosen = np.concatenate([np.flatnonzero(self.row == row) for row in rows])
        new = np.full(self.rows, -1)
        new[list(rows)] = np.arange(len(rows))
        return Given(
            {name: array[list(rows)] for name, array in self.arrays.items()},
            row=new[self.row[chosen]],
            **{
                name: getattr(self, name)[chosen]
                for name in ("windows", "segment", "task", "number", "mask", "start", "corpus", "opens")
            },
        )


def training_batch(batches: TrainingBatches, b: int) -> Given:
    """The batch of step b, exactly as training gets it."""
    plan, size = batches.objective.plan, batches.batch_size
    first = b * size
    q = np.arange(plan.first_window(first), plan.first_window(first + size))
    at = plan.place(q, first)
    return _given(
        batches[b],
        batches.split,
        batches.objective,
        row=at.row,
        segment=at.segment,
        task=at.denoiser,
        number=q,
        mask=np.zeros_like(q),
        start=batches.order.starts(q),
    )


def held_out_batches(split: Split, objective: Objective, settings: EvaluateSettings) -> Iterator[Given]:
    """The batches of the evaluation, on its fixed masks; each window is in a row of its own."""
    from t5smith.objective.batches import evaluation_batches

    masks = settings.masks_per_window
    begin = 0
    for batch in evaluation_batches(
        split,
        objective,
        batch_size=settings.batch_size,
        masks_per_window=masks,
        windows=settings.windows,
    ):
        rows = np.arange(len(batch["targets"]))
        at, begin = begin + rows, begin + len(rows)
        yield _given(
            {name: batch[name] for name in ("input_ids", "targets")},
            split,
            objective,
            row=rows,
            segment=np.ones_like(rows),
            task=batch["denoiser"][:, 0] if "denoiser" in batch else np.zeros_like(rows),
            number=at // masks,
            mask=at % masks,
            start=at // masks * objective.window,
        )


def alone(arrays: Batch, windows: Int[np.ndarray, "n W"], task: Int[np.ndarray, " n"]) -> Given:
    """Windows of no store, each in a row of its own."""
    n = np.arange(len(windows))
    none = np.zeros_like(n)
    return Given(
        arrays, windows, n, none + 1, task, n, none, none - 1, none, np.zeros(windows.shape, np.bool_)
    )


def _given(
    arrays: Batch,
    split: Split,
    objective: Objective,
    *,
    row: Int[np.ndarray, " n"],
    segment: Int[np.ndarray, " n"],
    task: Int[np.ndarray, " n"],
    number: Int[np.ndarray, " n"],
    mask: Int[np.ndarray, " n"],
    start: Int[np.ndarray, " n"],
) -> Given:
    stops = np.array([corpus.stop for corpus in split.corpora])
    return Given(
        arrays,
        split.windows_at(start, objective.window),
        row,
        segment,
        task,
        number,
        mask,
        start,
        # Held-out windows may lie across the end of a corpus: each is of the one it begins in.
        np.searchsorted(stops, start, side="right"),
        split.document_starts(start, objective.window),
    )
