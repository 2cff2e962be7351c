"""Counts over many windows as the model is given them, beside what theory says they come to.

Spans are read off the arrays, so the figures are of what training gets, whatever made it.

Shapes: n windows, W tokens a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from t5smith.inspection.batch import Given
from t5smith.inspection.spans import Reading, read
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
from t5smith.recipe.symbols import SENTINELS
from t5smith.store.token_store import Split

TEXT_IDS = 1_000
"""Ids of text in windows that are made up."""


@dataclass
class Tally:
    """Counts over the windows of one denoiser.

    Attributes:
      task: the denoiser.
      theory: what is expected of a window.
      share: the share of the windows that is wanted for it.
      windows: how many were seen.
      masked: (W,) how often each place was masked.
      span_lengths, text_lengths: (W + 1,) how many spans and stretches of text there were of each length.
      closing: closing sentinels.
      sentinels: the most in the targets of a window.
      inputs, targets: positions in use.
      crossing: spans that have tokens of more than one document.
      ends: ends of documents that lie within a window.
      ends_in_spans: of these, how many lie within a span.
      ends_expected: how many would by theory.
      scores: by class of token: nats, right predictions, tokens; where a model was asked.
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
        """Spans in all."""
        return int(self.span_lengths.sum())

    @property
    def noise(self) -> int:
        """Masked tokens in all."""
        return int(self.masked.sum())

    def add(self, given: Given, reading: Reading, mine: Int[np.ndarray, " m"]) -> None:
        """Count these windows of a batch."""
        W = self.task.window
        masked = reading.masked[mine]
        self.windows += len(mine)
        self.masked += masked.sum(axis=0)
        number = np.full(len(given.row), -1)
        number[mine] = np.arange(len(mine))
        of = number[reading.spans.row]
        chosen = of >= 0
        start, stop, row = reading.spans.start[chosen], reading.spans.stop[chosen], of[chosen]
        self.span_lengths += np.bincount(stop - start, minlength=W + 1)
        edges = np.diff(np.pad(~masked, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        text = np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]
        self.text_lengths += np.bincount(text, minlength=W + 1)
        self.closing += int(reading.closing[mine].sum())
        if self.task.lengths is not None:
            spans = np.bincount(row, minlength=len(mine))
            self.sentinels = max(self.sentinels, int((spans + reading.closing[mine]).max(initial=0)))
        self.inputs += int(reading.inputs.used[mine].sum())
        self.targets += int(reading.targets.used[mine].sum())
        opens = given.opens[mine]
        opens = opens & (np.arange(W) > 0)  # a document that begins the window ends outside it
        document = np.cumsum(opens, axis=1, dtype=np.int32)
        self.crossing += int(
            crosses_documents(type(reading.spans)(len(mine), row, start, stop), document).sum()
        )
        self.ends += int(opens.sum())
        self.ends_in_spans += int((opens[:, 1:] & masked[:, 1:] & masked[:, :-1]).sum())
        self.ends_expected += float(opens.sum(axis=0) @ self.theory.joined)


@dataclass(frozen=True)
class Stats:
    """Counts over some batches.

    Attributes:
      source: what the windows are of, for people.
      objective: what made the batches.
      batches, rows: how many were seen; a row is padded to `input_length` and `target_length`.
      tallies: one a denoiser.
      corpora: for each corpus its name, its windows, and the share that is wanted; None if it is not known.
      documents: whether the windows are of real documents.
    """

    source: str
    objective: Objective
    batches: int
    rows: int
    input_length: int
    target_length: int
    tallies: tuple[Tally, ...]
    corpora: tuple[tuple[str, int, float | None], ...]
    documents: bool

    @property
    def windows(self) -> int:
        """Windows in all."""
        return sum(tally.windows for tally in self.tallies)


def count(
    given: Iterable[tuple[Given, Float[np.ndarray, "n 3 3"] | None]],
    objective: Objective,
    *,
    source: str,
    corpora: Sequence[tuple[str, float | None]] = (),
    documents: bool = True,
) -> Stats:
    """Count over batches.

    Args:
      given: the batches, each with the scores of its windows where a model was asked.
      objective: what made them.
      source: what they are of, for people.
      corpora: the names of the split's corpora and their wanted shares.
      documents: whether the windows are of real documents.
    """
    shares = objective.plan.shares()
    tallies = tuple(
        Tally(task, theory(task, roll=objective.roll and task.lengths is not None), share)
        for task, share in zip(objective.denoisers, shares, strict=True)
    )
    batches = rows = inputs = targets = 0
    seen = np.zeros(len(corpora), np.int64)
    for batch, scores in given:
        reading = read(batch, objective)
        for number, tally in enumerate(tallies):
            mine = np.flatnonzero(batch.task == number)
            if len(mine):
                tally.add(batch, reading, mine)
                if scores is not None:
                    tally.scores += scores[mine].sum(axis=0)
        if corpora:
            seen += np.bincount(batch.corpus, minlength=len(seen))
        batches, rows = batches + 1, rows + batch.rows
        inputs, targets = (batch.arrays[name].shape[1] for name in ("input_ids", "targets"))
    named = tuple(
        (name, windows, share) for (name, share), windows in zip(corpora, seen.tolist(), strict=True)
    )
    return Stats(source, objective, batches, rows, inputs, targets, tallies, named, documents)


def made_up(settings: ObjectiveSettings, batch_size: int, seed: int) -> TrainingBatches:
    """Training batches of an objective on windows of no text, with T5's hundred sentinels.

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
