"""Batch b is a pure function of (store, objective, seed, b): no iterator state, nothing to restore.

Row r of a run is the same at any batch size: which windows it holds, in which order they come and how they
are masked all follow from its number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import grain
import numpy as np
from absl import flags

from t5smith.objective.objective import Batch, Objective
from t5smith.objective.order import WindowOrder, temperature_weights
from t5smith.objective.rng import EVALUATION, TRAINING, uniforms
from t5smith.recipe.corpus import CorpusSettings
from t5smith.store.token_store import Split
from t5smith.text.corpus import named_weights

__all__ = ["Batch", "Objective", "TrainingBatches", "corpus_weights", "evaluation_batches", "prefetched"]

_MASKS = 1 << 16
"""Rows of random numbers set apart for the masks of one held-out window."""


@dataclass(frozen=True)
class TrainingBatches:
    """`batches[b]` is the global batch of step b, or one host's part of it, in whatever order one asks.

    Attributes:
      split: the training text.
      objective: what is done to it.
      batch_size: rows of a global batch.
      seed: of the run.
      shift_windows: see :class:`WindowOrder`.
      weights: shares of the split's corpora; left out: by their size.
      host, hosts: only the rows of the host of this number, of so many; the parts of all hosts, one after
        the other, are the global batch.

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
        own = self.batch_size // self.hosts
        return self.rows(b * self.batch_size + self.host * own, own)

    def rows(self, first: int, rows: int) -> Batch:
        """So many rows of the run from one on."""
        plan = self.objective.plan
        begin, end = plan.first_window(first), plan.first_window(first + rows)
        q = np.arange(begin, end)
        cycle = q % plan.windows
        row = q // plan.windows * len(plan.rows) + plan.row[cycle] - first
        windows, opens = _read(self.split, self.objective, self.order.starts(q))
        drawn = uniforms(self.seed, TRAINING, begin, end - begin, self.objective.draws)
        return self.objective.rows(windows, drawn, opens, cycle, row, rows)


def _read(split: Split, objective: Objective, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Windows by their first token, and where documents begin in them if that matters."""
    windows = split.windows_at(starts, objective.window)
    return windows, None if objective.cross_documents else split.document_starts(starts, objective.window)


def corpus_weights(settings: CorpusSettings, split: Split) -> list[float]:
    """The share of the training windows that each corpus of a split gets.

    Raises:
      T5smithError: weights that are not one for each named corpus.
    """
    given = named_weights(settings)
    if given:
        return [given[corpus.name] for corpus in split.corpora]
    return temperature_weights([corpus.tokens for corpus in split.corpora], settings.temperature)


def prefetched(
    batches: TrainingBatches, start: int, stop: int, *, ahead: int, workers: int
) -> Iterator[Batch]:
    """Batches from one step to another, made in the background by grain.

    Args:
      batches: which batches.
      start: the first step.
      stop: the step after the last.
      ahead: how many batches are made ahead.
      workers: processes to make them in; 0: a thread of this one.
    """
    order = grain.MapDataset.range(start, stop).map(batches.__getitem__)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
    dataset = order.to_iter_dataset(options)
    if workers:
        # Grain asks absl for a flag, which refuses while nobody has read the command line with it.
        flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=ahead))
    return iter(dataset)


def evaluation_batches(
    split: Split, objective: Objective, *, batch_size: int, masks_per_window: int, windows: int = 0
) -> list[Batch]:
    """Held-out batches on fixed masks: the same for every checkpoint and run on the same store.

    Each of the first `windows` windows (0: all) comes `masks_per_window` times, each time in a row of its
    own under another mask that depends on the window's place and the mask's number alone; denoisers take
    turns as in training, and `denoiser` (B, 1) says which it was where there are several. The last batch
    may be smaller.
    """
    available = split.window_count(objective.window)
    chosen = np.arange(min(windows or available, available))
    index = np.repeat(chosen, masks_per_window)
    drawn = np.concatenate(
        [uniforms(0, EVALUATION, int(w) * _MASKS, masks_per_window, objective.draws) for w in chosen]
    )
    number = index * masks_per_window + np.tile(np.arange(masks_per_window), len(chosen))
    task = objective.plan.denoiser[number % objective.plan.windows]
    batches: list[Batch] = []
    for at in (slice(i, i + batch_size) for i in range(0, len(index), batch_size)):
        read, opens = _read(split, objective, index[at] * objective.window)
        batch = dict(objective.one_window_per_row(read, drawn[at], opens, task[at]))
        if len(objective.denoisers) > 1:
            batch["denoiser"] = task[at][:, None]
        batches.append(batch)
    return batches
