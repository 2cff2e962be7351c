"""A batch as the model gets it, where each of its windows comes from, and which tokens are masked.

The arrays are those that training and evaluation take. The origin of a window follows from its number. What
is masked is read from the arrays: sentinels delimit the spans, and the text between them is compared with
the window. No mask is drawn again, so what is shown is what the arrays contain.

Shapes: n windows, W tokens per window, B rows, S input and T target positions per row, p used positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Int

from t5smith.objective.objective import Batch, Objective
from t5smith.objective.spans import Spans
from t5smith.recipe.evaluate import EvaluateSettings
from t5smith.store.token_store import Split

if TYPE_CHECKING:
    from t5smith.objective.batches import TrainingBatches


@dataclass(frozen=True, eq=False)
class Positions:
    """The positions of inputs or targets that are not padding, row by row.

    Attributes:
      index: (p,) their indices in the flattened array.
      ids: (p,) their token ids.
      window: (p,) the window that each belongs to.
      offset: (p,) the position within its window's inputs or targets, from 0.
      count: (n,) positions of each window.
      sentinel: (p,) the number of the sentinel; -1 for all other tokens.
      is_text: (p,) neither a sentinel, nor the mode token, nor the `</s>` at the end.
    """

    index: Int[np.ndarray, " p"]
    ids: Int[np.ndarray, " p"]
    window: Int[np.ndarray, " p"]
    offset: Int[np.ndarray, " p"]
    count: Int[np.ndarray, " n"]
    sentinel: Int[np.ndarray, " p"]
    is_text: Bool[np.ndarray, " p"]


@dataclass(frozen=True, eq=False)
class InspectedBatch:
    """A batch and its windows, in the order of rows, and within a row of segments.

    Attributes:
      arrays: what the model gets.
      objective: what made it.
      windows: (n, W) the text before corruption.
      row: (n,) the row of the batch that each window is in.
      segment: (n,) its number within the row, from 1.
      denoiser: (n,) the number of its denoiser.
      number: (n,) the number of the window: within the run, or within the held-out split.
      mask: (n,) the number of its mask; a held-out window has several.
      start: (n,) the position of its first token in the split.
      split: the text that the windows are from; None if they are not from a store.
    """

    arrays: Batch
    objective: Objective
    windows: Int[np.ndarray, "n W"]
    row: Int[np.ndarray, " n"]
    segment: Int[np.ndarray, " n"]
    denoiser: Int[np.ndarray, " n"]
    number: Int[np.ndarray, " n"]
    mask: Int[np.ndarray, " n"]
    start: Int[np.ndarray, " n"]
    split: Split | None = None

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return len(self.arrays["targets"])

    @cached_property
    def corpus(self) -> Int[np.ndarray, " n"]:
        """The corpus that each window begins in; a held-out window may extend into the next."""
        assert self.split is not None
        return np.searchsorted([corpus.stop for corpus in self.split.corpora], self.start, side="right")

    @cached_property
    def document_starts(self) -> Bool[np.ndarray, "n W"]:
        """Which tokens begin a document."""
        if self.split is None:
            return np.zeros(self.windows.shape, np.bool_)
        return self.split.document_starts(self.start, self.windows.shape[1])

    @cached_property
    def inputs(self) -> Positions:
        """The positions of the inputs."""
        return _positions(self, "input", self.prefix)

    @cached_property
    def targets(self) -> Positions:
        """The positions of the targets."""
        return _positions(self, "target", np.zeros_like(self.prefix))

    @cached_property
    def closing(self) -> Bool[np.ndarray, " n"]:
        """Whether the targets of a window have a sentinel that closes the last span."""
        in_inputs, in_targets = (
            np.bincount(side.window[side.sentinel >= 0], minlength=len(self.row))
            for side in (self.inputs, self.targets)
        )
        return in_targets > in_inputs

    @cached_property
    def spans(self) -> Spans:
        """The masked spans; for prefix LM the part to be predicted."""
        W, is_prefix_lm = self.windows.shape[1], [task.lengths is None for task in self.objective.denoisers]
        row, start, stop = _sentinel_spans(self)
        prefix_lm = np.flatnonzero(np.array(is_prefix_lm)[self.denoiser])
        kept = (self.inputs.count - self.prefix - self.eos)[prefix_lm]
        row, start, stop = (
            np.concatenate(pair)
            for pair in ((row, prefix_lm), (start, kept), (stop, np.full_like(prefix_lm, W)))
        )
        order = np.argsort(row, kind="stable")
        return Spans(len(self.row), row[order], start[order], stop[order])

    @cached_property
    def masked(self) -> Bool[np.ndarray, "n W"]:
        """Which tokens of the text are masked; inputs and targets must contain the whole text."""
        masked = self.spans.masks(self.windows.shape[1])
        for name, side, mine in (("inputs", self.inputs, ~masked), ("targets", self.targets, masked)):
            assert np.array_equal(self.windows[mine], side.ids[side.is_text]), (
                f"{name} do not match their text"
            )
        return masked

    @cached_property
    def eos(self) -> Int[np.ndarray, " n"]:
        """1 for each window whose inputs and targets end with `</s>`, else 0."""
        return np.array([task.eos for task in self.objective.denoisers], np.int64)[self.denoiser]

    @cached_property
    def prefix(self) -> Int[np.ndarray, " n"]:
        """Mode tokens at the beginning of each window's inputs."""
        return np.array([len(task.prefix) for task in self.objective.denoisers])[self.denoiser]

    def first_rows(self, rows: int) -> InspectedBatch:
        """The same batch with its first rows only."""
        mine = self.row < rows
        names = ("windows", "row", "segment", "denoiser", "number", "mask", "start")
        arrays = {name: array[:rows] for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, **{name: getattr(self, name)[mine] for name in names})


def training_batch(batches: TrainingBatches, b: int) -> InspectedBatch:
    """The batch of step b, exactly as training gets it."""
    plan, size, objective = batches.objective.plan, batches.batch_size, batches.objective
    first = b * size
    number = np.arange(plan.first_window(first), plan.first_window(first + size))
    at = plan.place(number, first)
    start = batches.order.starts(number)
    return InspectedBatch(
        batches[b],
        objective,
        batches.split.windows_at(start, objective.window),
        row=at.row,
        segment=at.segment,
        denoiser=at.denoiser,
        number=number,
        mask=np.zeros_like(number),
        start=start,
        split=batches.split,
    )


def held_out_batches(
    split: Split, objective: Objective, settings: EvaluateSettings
) -> Iterator[InspectedBatch]:
    """The batches of the evaluation, with its fixed masks; each window is in a row of its own."""
    from t5smith.objective.batches import evaluation_batches

    batches = evaluation_batches(
        split,
        objective,
        batch_size=settings.batch_size,
        masks_per_window=settings.masks_per_window,
        windows=settings.windows,
    )
    for b, batch in enumerate(batches):
        number, mask = batches.places(b)
        row = np.arange(len(number))
        start = number * objective.window
        yield InspectedBatch(
            {name: batch[name] for name in ("input_ids", "targets")},
            objective,
            split.windows_at(start, objective.window),
            row=row,
            segment=np.ones_like(row),
            denoiser=batch["denoiser"][:, 0] if "denoiser" in batch else np.zeros_like(row),
            number=number,
            mask=mask,
            start=start,
            split=split,
        )


def text_batch(
    arrays: Batch, objective: Objective, windows: Int[np.ndarray, "n W"], denoiser: Int[np.ndarray, " n"]
) -> InspectedBatch:
    """Windows that are not from a store, each in a row of its own."""
    row = np.arange(len(windows))
    zero = np.zeros_like(row)
    return InspectedBatch(arrays, objective, windows, row, zero + 1, denoiser, row, zero, zero)


def _positions(
    batch: InspectedBatch, name: Literal["input", "target"], prefix: Int[np.ndarray, " n"]
) -> Positions:
    """The used positions of one side; `prefix` is the number of mode tokens before each window."""
    objective, n = batch.objective, len(batch.row)
    ids = batch.arrays["input_ids" if name == "input" else "targets"]
    segments = batch.arrays.get(f"{name}_segments", (ids != objective.pad_id).astype(np.int32))
    window_of = np.full((len(ids), int(batch.segment.max(initial=0)) + 1), -1)
    window_of[batch.row, batch.segment] = np.arange(n)
    window = window_of[np.arange(len(ids))[:, None], segments].reshape(-1)
    index = np.flatnonzero(window >= 0)
    window, ids = window[index], ids.reshape(-1)[index]
    count = np.bincount(window, minlength=n)
    offset = np.arange(len(index)) - (np.cumsum(count) - count)[window]
    inner = (offset >= prefix[window]) & (offset < (count - batch.eos)[window])
    sentinel_of = np.full(int(max(ids.max(initial=0), objective.sentinel_ids.max())) + 1, -1)
    sentinel_of[objective.sentinel_ids] = np.arange(len(objective.sentinel_ids))
    sentinel = np.where(inner, sentinel_of[ids], -1)
    return Positions(index, ids, window, offset, count, sentinel, inner & (sentinel < 0))


def _sentinel_spans(
    batch: InspectedBatch,
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Window, start and stop of the spans that sentinels replace: span j has sentinel j on both sides."""
    inputs, targets = batch.inputs, batch.targets
    at_input, at_target = np.flatnonzero(inputs.sentinel >= 0), np.flatnonzero(targets.sentinel >= 0)
    row, number = inputs.window[at_input], inputs.sentinel[at_input]
    text_before = inputs.offset[at_input] - batch.prefix[row] - number
    # A span ends at the next sentinel of its window's targets, or at their end.
    window, offset = targets.window[at_target], targets.offset[at_target]
    is_last = np.append(window[1:], -1) != window
    end = np.where(is_last, (targets.count - batch.eos)[window], np.append(offset[1:], 0))
    paired = targets.sentinel[at_target] < np.bincount(row, minlength=len(batch.row))[window]
    assert np.array_equal(row, window[paired])
    assert np.array_equal(number, targets.sentinel[at_target][paired]), "sentinels do not pair"
    start = text_before + (offset - targets.sentinel[at_target])[paired]
    return row, start, start + (end - offset - 1)[paired]
