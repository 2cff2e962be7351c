"""Batch b is a pure function of (store, objective, seed, b): there is no iterator state to restore.

Row r of a run is the same at any batch size: its windows and their masks follow from r alone.

Shapes: n windows, W tokens per window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import grain
import numpy as np
from absl import flags
from jaxtyping import Bool, Int

from t5smith.base.errors import T5smithError
from t5smith.objective.objective import Batch, Objective
from t5smith.objective.order import WindowOrder, temperature_weights
from t5smith.objective.rng import CHOICE, EVALUATION, TRAINING, uniforms
from t5smith.recipe.corpus import CorpusSettings
from t5smith.store.token_store import Split
from t5smith.text.corpus import named_weights

__all__ = [
    "Batch",
    "EvaluationBatches",
    "Objective",
    "TrainingBatches",
    "corpus_weights",
    "evaluation_batches",
    "held_out_windows",
    "prefetched",
]

_MAX_MASKS = 1 << 16
"""Rows of random numbers reserved for the masks of each held-out window."""
_HASHED_AT_ONCE = 1 << 18
"""Windows whose hashes are in memory together."""


@dataclass(frozen=True)
class TrainingBatches:
    """`batches[b]` is the global batch of step b, or one host's part of it. Access may be in any order.

    Attributes:
      split: the training text.
      objective: how windows are corrupted.
      batch_size: rows per global batch.
      seed: the seed of the run.
      shift_windows: see :class:`WindowOrder`.
      weights: shares of the split's corpora. Default: by their size.
      host, hosts: the index of this host and the number of hosts; each makes only its rows. The parts of all
        hosts, concatenated, are the global batch.

    Raises:
      T5smithError: a corpus is too short for one window.
    """

    split: Split
    objective: Objective
    batch_size: int
    seed: int
    shift_windows: bool = True
    weights: Sequence[float] | None = None
    host: int = 0
    hosts: int = 1
    order: WindowOrder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert 0 <= self.host < self.hosts
        assert self.batch_size % self.hosts == 0, "hosts have equal parts"
        corpora = self.split.corpora
        weights = self.weights or temperature_weights([max(corpus.tokens, 1) for corpus in corpora], 1.0)
        order = WindowOrder(corpora, weights, self.objective.window, self.seed, self.shift_windows)
        object.__setattr__(self, "order", order)

    def __getitem__(self, b: int) -> Batch:
        rows = self.batch_size // self.hosts
        return self.rows(b * self.batch_size + self.host * rows, rows)

    def first_window(self, row: int) -> int:
        """The number of windows in all rows of the run before this one."""
        return self.objective.plan.first_window(row)

    def rows(self, first: int, rows: int) -> Batch:
        """Rows `first` to `first + rows` of the run."""
        plan = self.objective.plan
        begin, end = plan.first_window(first), plan.first_window(first + rows)
        q = np.arange(begin, end)
        windows, document_starts = _read(self.split, self.objective, self.order.starts(q))
        drawn = uniforms(self.seed, TRAINING, begin, end - begin, self.objective.draws)
        batch = self.objective.packed_rows(windows, drawn, document_starts, plan.place(q, first), rows)
        return {**batch, "items": plan.items_of(first, rows)} if plan.packed else batch

    def one_window(self, q: int) -> tuple[Int[np.ndarray, " S"], Int[np.ndarray, " T"]]:
        """Inputs and targets of window q of the run, padded to the longest that a window can have."""
        at, objective = np.array([q]), self.objective
        windows, document_starts = _read(self.split, objective, self.order.starts(at))
        drawn = uniforms(self.seed, TRAINING, q, 1, objective.draws)
        denoiser = objective.plan.place(at).denoiser
        batch = objective.one_window_per_row(windows, drawn, document_starts, denoiser)
        return batch["input_ids"][0], batch["targets"][0]


def _read(
    split: Split, objective: Objective, starts: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, "n W"], Bool[np.ndarray, "n W"] | None]:
    """Windows by their first token, and where documents start in them if the objective needs that."""
    windows = split.windows_at(starts, objective.window)
    return windows, None if objective.cross_documents else split.document_starts(starts, objective.window)


def corpus_weights(settings: CorpusSettings, split: Split) -> list[float]:
    """The share of the training windows of each corpus of a split, by `corpus.weights` or temperature.

    Raises:
      T5smithError: the weights do not match the named corpora.
    """
    weights = named_weights(settings)
    names = [corpus.name for corpus in split.corpora]
    if weights and weights.keys() != set(names):
        raise T5smithError(
            f"it has the corpora {', '.join(names)}",
            where="store",
            expected=f"those that corpus.weights names: {', '.join(weights)}",
            fix="run `t5smith prepare`",
        )
    if weights:
        return [weights[corpus.name] for corpus in split.corpora]
    return temperature_weights([corpus.tokens for corpus in split.corpora], settings.temperature)


@runtime_checkable
class Numbered(Protocol):
    """Batches by number."""

    def __getitem__(self, b: int) -> Batch:
        """The batch of step b."""
        ...


def prefetched(batches: Numbered, start: int, stop: int, *, ahead: int, workers: int) -> Iterator[Batch]:
    """The batches of steps `start` to `stop`, made in the background by grain.

    Args:
      batches: the batches of the run.
      start: the first step.
      stop: the step after the last.
      ahead: the number of batches made ahead.
      workers: the number of processes that make them; 0: a thread of this process.
    """
    order = grain.MapDataset.range(start, stop).map(batches.__getitem__)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
    dataset = order.to_iter_dataset(options)
    if workers:
        # Grain reads an absl flag, which raises unless absl has parsed a command line.
        flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=ahead))
    return iter(dataset)


@dataclass(frozen=True)
class EvaluationBatches:
    """Held-out batches with fixed masks, the same for every checkpoint and run on the same store.

    A batch is made when it is asked for. Each window comes `masks_per_window` times, each time in its own row
    with a different mask, which depends only on the numbers of the window and of the mask. Denoisers
    alternate as in training; if there are several, `denoiser` (B, 1) has the index of each row's. The last
    batch may be smaller.

    Attributes:
      split: the held-out text.
      objective: how windows are corrupted.
      batch_size: rows per batch.
      masks_per_window: rows per window.
      windows: the numbers of the windows, in order.
    """

    split: Split
    objective: Objective
    batch_size: int
    masks_per_window: int
    windows: Int[np.ndarray, " n"]

    @property
    def rows(self) -> int:
        """Rows of all batches."""
        return len(self.windows) * self.masks_per_window

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.__getitem__, range(len(self)))

    def places(self, b: int) -> tuple[Int[np.ndarray, " B"], Int[np.ndarray, " B"]]:
        """The window and the number of the mask of each row of a batch."""
        if not 0 <= b < len(self):
            raise IndexError(b)
        rows = np.arange(b * self.batch_size, min((b + 1) * self.batch_size, self.rows))
        at, mask = np.divmod(rows, self.masks_per_window)
        return self.windows[at], mask

    def __getitem__(self, b: int) -> Batch:
        window, mask = self.places(b)
        masks, objective = self.masks_per_window, self.objective
        unique, row = np.unique(window, return_inverse=True)
        drawn = np.concatenate(
            [uniforms(0, EVALUATION, int(w) * _MAX_MASKS, masks, objective.draws) for w in unique]
        )[row * masks + mask]
        denoiser = objective.plan.place(window * masks + mask).denoiser
        tokens, document_starts = _read(self.split, objective, window * objective.window)
        batch = dict(objective.one_window_per_row(tokens, drawn, document_starts, denoiser))
        if len(objective.denoisers) > 1:
            batch["denoiser"] = denoiser[:, None]
        return batch


def evaluation_batches(
    split: Split, objective: Objective, *, batch_size: int, masks_per_window: int, windows: int = 0
) -> EvaluationBatches:
    """The held-out batches of some windows, which :func:`held_out_windows` chooses.

    Raises:
      T5smithError: the split is shorter than a window.
    """
    chosen = held_out_windows(split.window_count(objective.window), windows)
    return EvaluationBatches(split, objective, batch_size, masks_per_window, chosen)


def held_out_windows(available: int, windows: int) -> Int[np.ndarray, " n"]:
    """The numbers of the `windows` windows with the lowest hashes, in order; 0, or more than there are: all.

    A window's hash depends on its number alone: the same windows are chosen every time, from all over the
    text, and a smaller choice is part of a larger one.
    """
    if not 0 < windows < available:
        return np.arange(available)
    lowest, numbers = np.empty(0), np.empty(0, np.int64)
    for first in range(0, available, _HASHED_AT_ONCE):
        count = min(_HASHED_AT_ONCE, available - first)
        lowest = np.concatenate([lowest, uniforms(0, CHOICE, first, count, 1)[:, 0]])
        numbers = np.concatenate([numbers, first + np.arange(count)])
        kept = np.argsort(lowest, kind="stable")[:windows]
        lowest, numbers = lowest[kept], numbers[kept]
    return np.sort(numbers)
