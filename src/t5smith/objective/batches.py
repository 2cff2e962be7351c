"""Batch b is a pure function of (store, objective, seed, b): no iterator state, nothing to restore.

Windows are visited in an order shuffled anew each epoch (grain), masks are drawn from (seed, b).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import grain
import numpy as np
from jaxtyping import Bool, Int

from t5smith.corpus.store import Split
from t5smith.objective.lengths import SpanLengths, check_sentinels, lengths_for_inputs
from t5smith.objective.spans import EVALUATION, TRAINING, corrupt, generator, noise_masks
from t5smith.recipe import ObjectiveSettings
from t5smith.vocab.vocabulary import Vocabulary

Batch = Mapping[str, Int[np.ndarray, "_ _"]]
"""`input_ids` (B, S) and `labels` (B, T), int32, padded with the pad id."""


@dataclass(frozen=True)
class Objective:
    """Span corruption with one vocabulary's control ids."""

    lengths: SpanLengths
    sentinel_ids: Int[np.ndarray, " sentinels"]
    eos_id: int
    pad_id: int

    @classmethod
    def create(cls, settings: ObjectiveSettings, vocabulary: Vocabulary) -> Objective:
        """Settle all lengths and check them against the sentinels there are.

        Raises:
          T5smithError: no window fits, or more spans than sentinels.
        """
        lengths = objective_lengths(settings)
        check_sentinels(lengths, len(vocabulary.sentinel_ids))
        return cls(lengths, vocabulary.sentinel_ids, vocabulary.eos_id, vocabulary.pad_id)

    def batch(self, windows: Int[np.ndarray, "B W"], rng: np.random.Generator) -> Batch:
        """Corrupt windows with fresh masks."""
        return self.masked(windows, noise_masks(rng, len(windows), self.lengths))

    def masked(self, windows: Int[np.ndarray, "B W"], masks: Bool[np.ndarray, "B W"]) -> Batch:
        """Corrupt windows with given masks."""
        inputs, targets = corrupt(
            windows,
            masks,
            sentinel_ids=self.sentinel_ids,
            eos_id=self.eos_id,
            pad_id=self.pad_id,
            input_length=self.lengths.inputs,
            target_length=self.lengths.targets,
        )
        return {"input_ids": inputs, "labels": targets}


def objective_lengths(settings: ObjectiveSettings) -> SpanLengths:
    """The lengths a recipe's objective works with."""
    return lengths_for_inputs(settings.input_length, settings.noise_density, settings.mean_noise_span_length)


@dataclass(frozen=True)
class TrainingBatches:
    """`batches[b]` is the global batch of step b, whoever asks and in whatever order.

    Raises:
      T5smithError: the split is too short for one window.
    """

    split: Split
    objective: Objective
    batch_size: int
    seed: int
    _order: grain.MapDataset = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        windows = self.split.window_count(self.objective.lengths.window)
        order = grain.MapDataset.range(windows).seed(self.seed).shuffle().repeat()
        object.__setattr__(self, "_order", order)

    def __getitem__(self, b: int) -> Batch:
        rows = range(b * self.batch_size, (b + 1) * self.batch_size)
        indices = np.fromiter((self._order[row] for row in rows), np.int64, self.batch_size)
        windows = self.split.windows(self.objective.lengths.window, indices)
        return self.objective.batch(windows, generator(self.seed, TRAINING, b))


def evaluation_batches(
    split: Split, objective: Objective, *, batch_size: int, masks_per_window: int, windows: int = 0
) -> list[Batch]:
    """Held-out batches on fixed masks: the same for every checkpoint and run on the same store.

    Each of the first `windows` windows (0: all) comes `masks_per_window` times, under different masks
    that depend on the window's place alone. The last batch may be smaller.
    """
    available = split.window_count(objective.lengths.window)
    chosen = np.arange(min(windows or available, available))
    indices = np.repeat(chosen, masks_per_window)
    # A stream a window: neither the batch size nor how many windows are asked for changes its masks.
    masks = np.concatenate(
        [noise_masks(generator(0, EVALUATION, int(w)), masks_per_window, objective.lengths) for w in chosen]
    )
    return [
        objective.masked(split.windows(objective.lengths.window, indices[at]), masks[at])
        for at in (slice(i, i + batch_size) for i in range(0, len(indices), batch_size))
    ]
