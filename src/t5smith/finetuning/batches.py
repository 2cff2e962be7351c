"""Batches of examples of tasks: batch b is a pure function of (examples, settings, seed, b).

Shapes: B rows, S input and T target positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from t5smith.base.errors import T5smithError
from t5smith.finetuning.examples import Examples
from t5smith.finetuning.packed import PackedRows
from t5smith.objective.batches import Batch, TrainingBatches
from t5smith.objective.objective import Objective
from t5smith.objective.order import WindowOrder, temperature_weights
from t5smith.objective.rng import SHIFTS, generator
from t5smith.objective.row_plan import Item, RowPlan
from t5smith.recipe.finetune.settings import DENOISING, FinetuneSettings
from t5smith.store.token_store import Corpus
from t5smith.vocabulary.vocabulary import Vocabulary

Pair = tuple[Int[np.ndarray, " s"], Int[np.ndarray, " t"]]
"""The ids of an input and of a target."""


class ExampleOrder(WindowOrder):
    """The order of examples: an example is a window of one token.

    Each epoch of a task is a permutation that is held in memory; the one that is computed entry by entry is
    slow for few entries.
    """

    def _starts_in(self, corpus: int, visits: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        count = self.windows_per_epoch(corpus)
        epochs, positions = np.divmod(visits, count)
        starts = np.empty(len(visits), np.int64)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            starts[chosen] = _permutation(self.seed, corpus, epoch, count)[positions[chosen]]
        return self.corpora[corpus].start + starts


@lru_cache(maxsize=8)
def _permutation(seed: int, corpus: int, epoch: int, count: int) -> Int[np.ndarray, " count"]:
    return generator(seed, SHIFTS, corpus, epoch).permutation(count)


@dataclass(frozen=True)
class PairObjective(Objective):
    """The shapes of rows of inputs and targets; nothing is masked.

    Attributes:
      several: whether a row holds several examples.
    """

    several: bool = False

    @classmethod
    def of(cls, settings: FinetuneSettings, vocabulary: Vocabulary) -> PairObjective:
        """The objective of the settings."""
        S, T = settings.input_length, settings.target_length
        plan = RowPlan((Item(S, T, 1.0),), S, T, ((0,),))
        ids = vocabulary.sentinel_ids, vocabulary.eos_id, vocabulary.pad_id
        return cls((), plan, *ids, several=settings.packing)

    def batch_shapes(self, rows: int) -> dict[str, tuple[int, int]]:
        """The shapes of the arrays of a batch of training."""
        shapes = super().batch_shapes(rows)
        if self.several:
            shapes |= {"input_segments": shapes["input_ids"], "target_segments": shapes["targets"]}
        return shapes

    def describe_shape(self) -> str:
        """The shape of a row, for people."""
        what = "as many examples as fit" if self.several else "one example"
        return f"each row: {what} in {self.input_length} input + {self.target_length} target tokens"


@dataclass(frozen=True)
class Denoising:
    """Windows of the run's text as examples.

    Attributes:
      batches: of the text; only their windows are used, by number.
      share: of all examples.
    """

    batches: TrainingBatches
    share: float

    @property
    def windows(self) -> int:
        """Windows per epoch."""
        return sum(self.batches.order.windows_per_epoch(n) for n in range(len(self.batches.order.corpora)))

    @property
    def room(self) -> tuple[int, int]:
        """The longest input and target."""
        inputs, targets = zip(*(spec.max_lengths for spec in self.batches.objective.denoisers), strict=True)
        return max(inputs), max(targets)

    def pair(self, number: int) -> Pair:
        """A window of the run: as the training on text would have it, with a row of its own."""
        inputs, targets = self.batches.one_window(number)
        pad = self.batches.objective.pad_id
        return inputs[inputs != pad], targets[targets != pad]


@dataclass(frozen=True)
class TaskBatches:
    """`batches[b]` is the batch of step b. Access may be in any order.

    Attributes:
      examples: of all tasks.
      objective: the shapes of rows.
      settings: the table `[finetune]`.
      batch_size: rows per batch.
      seed: of the run.
      denoising: windows of text among the examples.

    Raises:
      T5smithError: windows of text are longer than rows.
    """

    examples: Examples
    objective: PairObjective
    settings: FinetuneSettings
    batch_size: int
    seed: int
    denoising: Denoising | None = None
    order: WindowOrder = field(init=False, repr=False, compare=False)
    packed: PackedRows | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tasks, weights = self.examples.tasks, self.weights()
        if self.denoising is not None:
            total, share = tasks[-1].stop, self.denoising.share
            tasks = [*tasks, Corpus(DENOISING, total, total + self.denoising.windows)]
            weights = [*(weight * (1 - share) for weight in weights), share]
            self._check_room(self.denoising.room)
        object.__setattr__(self, "order", ExampleOrder(tasks, weights, 1, self.seed, shift_windows=False))
        room = self.objective.input_length, self.objective.target_length
        packed = PackedRows(self._lengths, room, self.seed) if self.objective.several else None
        object.__setattr__(self, "packed", packed)

    def weights(self) -> list[float]:
        """The share of each task among the examples of tasks."""
        given = [task.weight for task in self.settings.tasks.values() if task.weight is not None]
        if given:
            return [weight / sum(given) for weight in given]
        return temperature_weights([task.tokens for task in self.examples.tasks], self.settings.temperature)

    def __getitem__(self, b: int) -> Batch:
        shapes = self.objective.batch_shapes(self.batch_size)
        batch = {name: np.zeros(shape, np.int32) for name, shape in shapes.items()}
        batch["input_ids"][:] = batch["targets"][:] = self.objective.pad_id
        for row in range(self.batch_size):
            number = b * self.batch_size + row
            at = [0, 0]
            for segment, q in enumerate([number] if self.packed is None else self.packed[number], 1):
                for side, ids in enumerate(self.pair(q)):
                    to = slice(at[side], at[side] + len(ids))
                    batch[("input_ids", "targets")[side]][row, to] = ids
                    if self.packed is not None:
                        batch[("input_segments", "target_segments")[side]][row, to] = segment
                    at[side] = to.stop
        return batch

    def pair(self, q: int) -> Pair:
        """The ids of example q of the run."""
        start = int(self.order.starts(np.array([q]))[0])
        text = start - self.examples.tasks[-1].stop
        if text < 0:
            return self.examples.ids(0, start), self.examples.ids(1, start)
        assert self.denoising is not None
        # The windows come in the order of pre-training, with its shifts and masks.
        return self.denoising.pair(int(self.order.visits(np.array([q]))[0]))

    def first_window(self, row: int) -> int:
        """The number of examples in all rows before this one."""
        return row if self.packed is None else self.packed.first_example(row)

    def _lengths(self, numbers: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n 2"]:
        starts = self.order.starts(numbers)
        total = self.examples.tasks[-1].stop
        room = self.denoising.room if self.denoising else (0, 0)
        known = self.examples.lengths[np.minimum(starts, total - 1)]
        return np.where(starts[:, None] < total, known, np.array(room))

    def _check_room(self, needed: Sequence[int]) -> None:
        for name, need in zip(("input_length", "target_length"), needed, strict=True):
            have = getattr(self.settings, name)
            if need > have:
                raise T5smithError(
                    f"{have} cannot be used with denoising",
                    where=f"finetune.{name}",
                    expected=f"{need} or more, as a window of text takes under [objective]",
                    fix=f"set it to {need}, or lower objective.input_length",
                )
