"""Statistics of many windows as the model gets them, with the values that theory predicts.

Spans are read from the arrays, so the statistics describe what training gets.

Shapes: n windows, W tokens per window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from t5smith.inspection.batch import InspectedBatch
from t5smith.inspection.theory import Theory, theory
from t5smith.objective.batches import TrainingBatches
from t5smith.objective.boundaries import crosses_documents
from t5smith.objective.denoisers import (
    DenoiserSpec,
    ObjectiveSettings,
    denoisers_of,
    fixed_input_length,
    resolve_lengths,
)
from t5smith.objective.objective import Objective
from t5smith.objective.packing import plan_rows
from t5smith.objective.spans import Spans
from t5smith.recipe.symbols import SENTINELS
from t5smith.store.token_store import Split

TEXT_IDS = 1_000
"""Distinct text ids in synthetic windows."""


@dataclass
class DenoiserCounts:
    """Counts over the windows of one denoiser.

    Attributes:
      task: the denoiser.
      theory: the expected values of a window.
      share: the share of the windows that it should have.
      windows: number of windows.
      masked: (W,) how often each position is masked.
      span_lengths, text_lengths: (W + 1,) number of spans, and of stretches of text between them, by length.
      closing: closing sentinels.
      sentinels: the most sentinels in the targets of one window.
      inputs, targets: positions that are not padding.
      crossing: spans with tokens of more than one document.
      ends: ends of documents within a window.
      ends_in_spans: ends of documents within a span.
      ends_expected: the value of `ends_in_spans` that theory predicts.
      scores: by class of token: nats, correct predictions, tokens; zero without a model.
    """

    task: DenoiserSpec
    theory: Theory
    share: float
    windows: int = 0
    masked: Int[np.ndarray, " W"] = field(init=False)
    span_lengths: Int[np.ndarray, " W_and_1"] = field(init=False)
    text_lengths: Int[np.ndarray, " W_and_1"] = field(init=False)
    closing: int = 0
    sentinels: int = 0
    inputs: int = 0
    targets: int = 0
    crossing: int = 0
    ends: int = 0
    ends_in_spans: int = 0
    ends_expected: float = 0.0
    scores: Float[np.ndarray, "3 3"] = field(init=False)

    def __post_init__(self) -> None:
        W = self.task.window
        self.masked = np.zeros(W, np.int64)
        self.span_lengths, self.text_lengths = np.zeros(W + 1, np.int64), np.zeros(W + 1, np.int64)
        self.scores = np.zeros((3, 3))

    @property
    def spans(self) -> int:
        """All spans."""
        return int(self.span_lengths.sum())

    @property
    def noise(self) -> int:
        """All masked tokens."""
        return int(self.masked.sum())

    def add(self, batch: InspectedBatch, mine: Int[np.ndarray, " m"]) -> None:
        """Count these windows of a batch."""
        W = self.task.window
        masked, closing = batch.masked[mine], batch.closing[mine]
        spans = _spans_of(batch, mine)
        self.windows += len(mine)
        self.masked += masked.sum(axis=0)
        self.span_lengths += np.bincount(spans.stop - spans.start, minlength=W + 1)
        text = Spans.of_masks(~masked)
        self.text_lengths += np.bincount(text.stop - text.start, minlength=W + 1)
        self.closing += int(closing.sum())
        if self.task.lengths is not None:
            per_window = np.bincount(spans.row, minlength=len(mine))
            self.sentinels = max(self.sentinels, int((per_window + closing).max(initial=0)))
        self.inputs += int(batch.inputs.count[mine].sum())
        self.targets += int(batch.targets.count[mine].sum())
        # A document that begins the window ends outside it.
        starts = batch.document_starts[mine] & (np.arange(W) > 0)
        document = np.cumsum(starts, axis=1, dtype=np.int32)
        self.crossing += int(crosses_documents(spans, document).sum())
        self.ends += int(starts.sum())
        self.ends_in_spans += int((starts[:, 1:] & masked[:, 1:] & masked[:, :-1]).sum())
        self.ends_expected += float(starts.sum(axis=0) @ self.theory.joined)


def _spans_of(batch: InspectedBatch, windows: Int[np.ndarray, " m"]) -> Spans:
    """The spans of some windows of a batch, numbered by their place in `windows`."""
    number = np.full(len(batch.row), -1)
    number[windows] = np.arange(len(windows))
    row = number[batch.spans.row]
    mine = row >= 0
    return Spans(len(windows), row[mine], batch.spans.start[mine], batch.spans.stop[mine])


@dataclass(frozen=True)
class Statistics:
    """Counts over several batches.

    Attributes:
      source: where the windows are from.
      objective: what made the batches.
      batches, rows: their number; a row is padded to `input_length` and `target_length`.
      denoisers: the counts of each denoiser.
      corpora: for each corpus its name, its windows, and the share it should have; None if unknown.
      documents: whether the windows are from real documents.
    """

    source: str
    objective: Objective
    batches: int
    rows: int
    input_length: int
    target_length: int
    denoisers: tuple[DenoiserCounts, ...]
    corpora: tuple[tuple[str, int, float | None], ...]
    documents: bool

    @property
    def windows(self) -> int:
        """All windows."""
        return sum(one.windows for one in self.denoisers)


def count(
    batches: Iterable[tuple[InspectedBatch, Float[np.ndarray, "n 3 3"] | None]],
    objective: Objective,
    *,
    source: str,
    corpora: Sequence[tuple[str, float | None]] = (),
    documents: bool = True,
) -> Statistics:
    """Count over batches.

    Args:
      batches: the batches, each with the scores of its windows if a model is used.
      objective: what made them.
      source: where the windows are from.
      corpora: the names of the split's corpora and the shares they should have.
      documents: whether the windows are from real documents.
    """
    denoisers = tuple(
        DenoiserCounts(task, theory(task, roll=objective.roll and task.lengths is not None), share)
        for task, share in zip(objective.denoisers, objective.plan.shares(), strict=True)
    )
    n_batches = rows = inputs = targets = 0
    by_corpus = np.zeros(len(corpora), np.int64)
    for batch, scores in batches:
        for number, counts in enumerate(denoisers):
            mine = np.flatnonzero(batch.denoiser == number)
            if len(mine):
                counts.add(batch, mine)
                if scores is not None:
                    counts.scores += scores[mine].sum(axis=0)
        if corpora:
            by_corpus += np.bincount(batch.corpus, minlength=len(by_corpus))
        n_batches, rows = n_batches + 1, rows + batch.rows
        inputs, targets = (batch.arrays[name].shape[1] for name in ("input_ids", "targets"))
    named = tuple(
        (name, windows, share) for (name, share), windows in zip(corpora, by_corpus.tolist(), strict=True)
    )
    return Statistics(source, objective, n_batches, rows, inputs, targets, denoisers, named, documents)


def synthetic_batches(settings: ObjectiveSettings, batch_size: int, seed: int) -> TrainingBatches:
    """Training batches of an objective on synthetic windows, with T5's hundred sentinels.

    Raises:
      T5smithError: no window fits, more spans than sentinels, or a table that cannot be used.
    """
    modes = sorted({denoiser.prefix for denoiser in denoisers_of(settings)} - {""})
    first_mode = 2 + SENTINELS
    ids = {name: (first_mode + i,) for i, name in enumerate(modes)} | {"": ()}
    tasks = resolve_lengths(
        settings, SENTINELS, [ids[denoiser.prefix] for denoiser in denoisers_of(settings)]
    )
    plan = plan_rows(tuple(task.item for task in tasks), fixed_input_length(settings))
    objective = Objective(
        tasks,
        plan,
        np.arange(2, first_mode, dtype=np.int32),
        eos_id=1,
        pad_id=0,
        roll=settings.roll,
        cross_documents=settings.cross_documents,
    )
    tokens = np.arange(64 * objective.window) % TEXT_IDS + first_mode + len(modes)
    split = Split("train", tokens.astype("<u2"), np.array([len(tokens)], np.int64), 0)
    return TrainingBatches(split, objective, batch_size, seed, settings.shift_windows)
