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
from t5smith.objective.spans import EVALUATION, SHIFTS, TRAINING, corrupt, generator, noise_masks
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

    Every epoch visits the windows in an order of its own and, with `shift_windows`, cuts the text into
    windows at another place: else the same words would always meet the same edge, which costs much when
    a small text is read many times (docs/decisions.md has the figure).

    Raises:
      T5smithError: the split is too short for one window.
    """

    split: Split
    objective: Objective
    batch_size: int
    seed: int
    shift_windows: bool = True
    _order: grain.MapDataset = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        order = grain.MapDataset.range(self.windows_an_epoch).seed(self.seed).shuffle().repeat()
        object.__setattr__(self, "_order", order)

    @property
    def windows_an_epoch(self) -> int:
        """Windows visited before any is visited again."""
        length = self.objective.lengths.window
        whole = self.split.window_count(length)
        # Shifted windows need room for the largest shift, if there is any to spare.
        return max(1, (len(self.split.tokens) - length + 1) // length) if self.shift_windows else whole

    def __getitem__(self, b: int) -> Batch:
        rows = np.arange(b * self.batch_size, (b + 1) * self.batch_size)
        indices = np.fromiter((self._order[int(row)] for row in rows), np.int64, self.batch_size)
        epochs = rows // self.windows_an_epoch
        shifts = {int(epoch): self._shift(int(epoch)) for epoch in np.unique(epochs)}
        offset = np.array([shifts[int(epoch)] for epoch in epochs])
        windows = self.split.windows(self.objective.lengths.window, indices, offset)
        return self.objective.batch(windows, generator(self.seed, TRAINING, b))

    def _shift(self, epoch: int) -> int:
        """Tokens passed over before the first window of an epoch; none in the first."""
        if not self.shift_windows or epoch == 0:
            return 0
        length = self.objective.lengths.window
        room = min(length - 1, len(self.split.tokens) - self.windows_an_epoch * length)
        return int(generator(self.seed, SHIFTS, epoch).integers(room + 1))


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
