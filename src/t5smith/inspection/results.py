"""The three things that can be inspected: a text, rows of a batch, and statistics of many batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.inspection.query import Query
from t5smith.inspection.text import inspect_text
from t5smith.inspection.trace import TokenLoss, Trace, trace_of
from t5smith.objective.denoisers import describe
from t5smith.recipe.recipe import Recipe
from t5smith.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from t5smith.inspection.batch import InspectedBatch
    from t5smith.inspection.statistics import Statistics
    from t5smith.training.setup import Setup

BATCHES = 20
"""Training batches that are counted by default."""


@dataclass(frozen=True)
class Row:
    """One row of a batch.

    Attributes:
      title: which row it is; "" for a text that is not from a store.
      windows: the windows in it; more than one if it is packed.
      input_length, target_length: positions of the row, including padding.
    """

    title: str
    windows: tuple[Trace, ...]
    input_length: int
    target_length: int

    @property
    def input_padding(self) -> int:
        """Padding positions of the inputs."""
        return self.input_length - sum(len(one.inputs) for one in self.windows)

    @property
    def target_padding(self) -> int:
        """Padding positions of the targets."""
        return self.target_length - sum(len(one.targets) for one in self.windows)


def rows_of(
    batch: InspectedBatch,
    vocabulary: Vocabulary,
    *,
    title: str,
    seed: int,
    losses: Mapping[int, tuple[TokenLoss, ...]] | None = None,
) -> tuple[Row, ...]:
    """The rows of a batch of a store.

    Args:
      batch: the batch.
      vocabulary: of the store.
      title: names the batch: `training batch 3`.
      seed: of the masks.
      losses: for each window what a model predicts, if that is to be shown.
    """
    S, T = batch.arrays["input_ids"].shape[1], batch.arrays["targets"].shape[1]
    traces = [
        trace_of(batch, window, vocabulary, seed=seed, losses=(losses or {}).get(window, ()))
        for window in range(len(batch.row))
    ]
    return tuple(
        Row(
            f"Row {row} of {title}",
            tuple(traces[window] for window in np.flatnonzero(batch.row == row).tolist()),
            S,
            T,
        )
        for row in range(batch.rows)
    )


@dataclass(frozen=True)
class Inspection:
    """What the views show.

    Attributes:
      title: what it is.
      rows: rows of a store, or a row for each denoiser of a text.
      statistics: counts over batches, instead of rows.
      model: the model that the losses are from; "" without losses.
      z_loss: the weight of the squared log-partition function in the run's loss.
    """

    title: str
    rows: tuple[Row, ...] = ()
    statistics: Statistics | None = None
    model: str = ""
    z_loss: float = 0.0


def inspected_text(query: Query, text: str, noise: Sequence[str]) -> Inspection:
    """A text under each denoiser, or under a mask chosen by hand.

    Raises:
      T5smithError: what :func:`inspect_text` raises.
    """
    recipe = query.recipe
    traces = inspect_text(text, recipe.objective, query.vocabulary, noise, recipe.seed, query.loss)
    rows = tuple(Row("", (trace,), len(trace.inputs), len(trace.targets)) for trace in traces)
    return Inspection("What T5 sees", rows, model=query.model_name, z_loss=query.z_loss)


def inspected_rows(query: Query, batch: int, rows: int, *, held_out: bool) -> Inspection:
    """The first rows of a training batch exactly as training gets it, or of a batch of the evaluation.

    Raises:
      T5smithError: no store, no such batch, or an invalid setting.
    """
    from t5smith.inspection.batch import training_batch

    setup = query.setup
    if held_out:
        title = f"held-out batch {batch}"
        found = next(islice(_held_out_batches(setup), batch, None), None)
        if found is None:
            raise _no_such_batch(batch)
    else:
        title = f"training batch {batch}"
        found = training_batch(setup.batches(), batch)
    found = found.first_rows(rows)
    shown = rows_of(
        found,
        setup.vocabulary,
        title=title,
        seed=0 if held_out else setup.recipe.seed,
        losses=None if query.loss is None else query.loss(found).by_window(),
    )
    title = f"{title.capitalize()} of {setup.recipe.name}"
    return Inspection(title, shown, model=query.model_name, z_loss=query.z_loss)


def inspected_batches(query: Query, first: int, batches: int | None, *, held_out: bool) -> Inspection:
    """Statistics of batches from `first` on: of a run's store, or of synthetic windows without a run.

    Raises:
      T5smithError: no such batch, or an invalid setting.
    """
    from t5smith.inspection.batch import training_batch
    from t5smith.inspection.statistics import count, synthetic_batches
    from t5smith.objective.batches import corpus_weights

    if not query.has_run:
        objective = query.recipe.objective
        synthetic = synthetic_batches(objective, 32, query.recipe.seed)
        found = ((training_batch(synthetic, b), None) for b in range(first, first + (batches or BATCHES)))
        title = "Synthetic windows (no text)"
        source = f"{title}: {describe(objective)}"
        statistics = count(found, synthetic.objective, source=source, documents=False)
        return Inspection(title, statistics=statistics)
    setup = query.setup
    name, corpora = setup.recipe.name, (setup.store.valid if held_out else setup.store.train).corpora
    shares: Sequence[float | None] = [None] * len(corpora)
    if held_out:
        title = f"Held-out windows of {name}"
        stop = None if batches is None else first + batches
        chosen: Iterable[InspectedBatch] = islice(_held_out_batches(setup), first, stop)
    else:
        last = first + (batches or BATCHES) - 1
        title = f"Training batches {first} to {last} of {name}"
        training = setup.batches()
        chosen = (training_batch(training, b) for b in range(first, last + 1))
        weights = np.asarray(corpus_weights(setup.recipe.corpus, setup.store.train))
        shares = (weights / weights.sum()).tolist()
    statistics = count(
        _scored(query, chosen),
        setup.objective,
        source=f"{title}: {describe(setup.recipe.objective)}",
        corpora=[(corpus.name, share) for corpus, share in zip(corpora, shares, strict=True)],
    )
    if not statistics.windows:
        raise _no_such_batch(first)
    return Inspection(title, statistics=statistics, model=query.model_name, z_loss=query.z_loss)


def _no_such_batch(batch: int) -> T5smithError:
    return T5smithError(
        f"there is no held-out batch {batch}",
        where="--batch",
        expected="a smaller number; batches begin at 0",
    )


def _scored(query: Query, batches: Iterable[InspectedBatch]) -> Iterable[tuple[InspectedBatch, Any]]:
    """Batches with the scores of their windows, if a model is used; with a progress bar."""
    if query.loss is None:
        yield from ((batch, None) for batch in batches)
        return
    from t5smith.base.progress import progress

    with progress("inspect", None, "windows") as bar:
        for batch in batches:
            yield batch, query.loss(batch).sums()
            bar.advance(len(batch.row))


def _held_out_batches(setup: Setup) -> Iterable[InspectedBatch]:
    from t5smith.inspection.batch import held_out_batches

    return held_out_batches(setup.store.valid, setup.objective, setup.recipe.evaluate)


def inspect_rows(
    run: str | Path,
    batch: int = 0,
    rows: int = 1,
    *,
    held_out: bool = False,
    model: str | Path | None = None,
    recipe: Recipe | None = None,
) -> tuple[Row, ...]:
    """The first rows of a run's batch exactly as training gets it, window by window.

    Args:
      run: the run folder.
      batch: the number of the batch, from 0.
      rows: number of rows.
      held_out: a batch of the evaluation, with its fixed masks, instead of a training batch.
      model: a run or model folder; each target then has its probability and nats by that model.
      recipe: its objective replaces the run's; all of it is used if the run folder has none.

    Raises:
      T5smithError: no prepared store, no such batch, or the model has a different vocabulary.
    """
    return inspected_rows(Query.create(run, model, recipe), batch, rows, held_out=held_out).rows


def inspect_counts(
    run: str | Path | None = None,
    recipe: Recipe | None = None,
    *,
    batch: int = 0,
    batches: int | None = None,
    held_out: bool = False,
    model: str | Path | None = None,
) -> Statistics:
    """Statistics of spans, masked positions, padding and more over batches, with the values theory predicts.

    Args:
      run: the run folder. Default: synthetic windows under the objective of `recipe`.
      recipe: its objective replaces the run's, or T5's.
      batch: the first batch.
      batches: number of batches. Default: 20 training batches, or all held-out batches.
      held_out: the batches of the evaluation instead of training batches.
      model: a run or model folder; its losses are then summed too.

    Raises:
      T5smithError: no prepared store, no such batch, or the model has a different vocabulary.
    """
    if run is None and model is not None:
        raise T5smithError("model= needs run=", where="model", fix="name the run folder whose batches to use")
    query = Query.create(run, model, recipe)
    statistics = inspected_batches(query, batch, batches, held_out=held_out).statistics
    assert statistics is not None
    return statistics
