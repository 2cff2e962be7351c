"""What one looks at: a text, rows of a store, or counts over many; and where it all comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.inspection.rows import Row
from t5smith.inspection.text import inspect_text
from t5smith.objective.denoisers import describe
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.recipe import Recipe
from t5smith.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from t5smith.inspection.batch import Given
    from t5smith.inspection.statistics import Stats
    from t5smith.inspection.token_losses import Measure
    from t5smith.interop.model import Model
    from t5smith.training.setup import Setup

BATCHES = 20
"""Training batches that are counted unless one says how many."""


@dataclass(frozen=True)
class View:
    """What is shown.

    Attributes:
      title: what it is.
      rows: rows of a store, or a row for each denoiser of a text.
      stats: counts, instead of rows.
      model: which model gave the losses; "" if none was asked.
      z_loss: the weight of the squared log-partition function in the run's loss.
    """

    title: str
    rows: tuple[Row, ...] = ()
    stats: Stats | None = None
    model: str = ""
    z_loss: float = 0.0


@dataclass(frozen=True)
class Source:
    """Where things come from.

    Attributes:
      run: the recipe of the run folder, with its objective as asked for; None without a run.
      objective: the objective.
      seed: of the masks.
      model: the model to ask, and which it is; None if none is.
      tokenizer: a tokenizer's folder for texts.
    """

    run: Recipe | None
    objective: ObjectiveSettings
    seed: int
    model: tuple[Model, str] | None = None
    tokenizer: Path | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that a text is written in: as named, the model's, the run's, or T5's own.

        Raises:
          T5smithError: there is none, or the model has another.
        """
        if self.tokenizer is not None:
            return self.checked(Vocabulary.load(self.tokenizer))
        if self.model is not None:
            return self.model[0].vocabulary
        return Vocabulary.bundled() if self.run is None else Vocabulary.load(self.run.folder)

    def checked(self, vocabulary: Vocabulary) -> Vocabulary:
        """The vocabulary, if the model's is the same.

        Raises:
          T5smithError: it is not.
        """
        if self.model is not None:
            from t5smith.inspection.run_folder import same_pieces

            if not same_pieces(vocabulary, self.model[0].vocabulary):
                raise T5smithError("the model has another vocabulary", where=self.model[1])
        return vocabulary

    def setup(self) -> Setup:
        """The run's vocabulary, store and objective.

        Raises:
          T5smithError: an artifact is missing or damaged.
        """
        from t5smith.training.setup import Run

        assert self.run is not None
        setup = Run(self.run).setup
        self.checked(setup.vocabulary)
        return setup

    def measure(self) -> Measure | None:
        """What gives the losses of a batch, if a model is asked."""
        if self.model is None:
            return None
        from t5smith.inspection.token_losses import create_measure

        return create_measure(self.model[0].parameters, self.model[0].config)

    @property
    def weight_of_z(self) -> float:
        """`train.z_loss` of the run."""
        return 0.0 if self.run is None else self.run.train.z_loss


def of_text(source: Source, text: str, noise: Sequence[str]) -> View:
    """A text under each denoiser, or under the mask given by hand.

    Raises:
      T5smithError: what :func:`inspect_text` raises.
    """
    vocabulary = source.vocabulary
    measure = source.measure()
    _, traces = inspect_text(text, source.objective, vocabulary, noise, source.seed, measure)
    rows = tuple(Row("", (trace,), len(trace.inputs), len(trace.targets)) for trace in traces)
    model = source.model[1] if source.model is not None else ""
    return View("What T5 sees", rows, model=model, z_loss=source.weight_of_z)


def of_store(source: Source, *, batch: int, rows: int, held_out: bool) -> View:
    """The first rows of a training batch as training gets it, or of a held-out batch on its fixed masks.

    Raises:
      T5smithError: no store there, no such batch, or a setting that cannot be used.
    """
    from t5smith.inspection.batch import training_batch
    from t5smith.inspection.rows import rows_of

    setup = source.setup()
    name, split = (
        (f"held-out batch {batch}", setup.store.valid)
        if held_out
        else (
            f"training batch {batch}",
            setup.store.train,
        )
    )
    if held_out:
        given = next(islice(_held_out(setup), batch, None), None)
        if given is None:
            raise T5smithError(f"there is no held-out batch {batch}", where="--batch", expected="a lower one")
    else:
        given = training_batch(setup.batches(), batch)
    shown = rows_of(
        given,
        setup.objective,
        setup.vocabulary,
        split,
        of=name,
        seed=0 if held_out else setup.recipe.seed,
        rows=range(min(rows, given.rows)),
        measure=source.measure(),
    )
    return View(
        f"{name.capitalize()} of {setup.recipe.name}",
        tuple(shown),
        model=source.model[1] if source.model else "",
        z_loss=source.weight_of_z,
    )


def of_counts(source: Source, *, first: int, batches: int | None, held_out: bool) -> View:
    """Counts over batches from one on: of a run's store, or of windows of no text.

    Raises:
      T5smithError: no store there, or a setting that cannot be used.
    """
    from t5smith.inspection.batch import training_batch
    from t5smith.inspection.statistics import count, made_up
    from t5smith.objective.batches import corpus_weights

    if source.run is None:
        plan = made_up(source.objective, 32, source.seed)
        many = batches or BATCHES
        given = ((training_batch(plan, b), None) for b in range(first, first + many))
        title = f"Windows of no text: {describe(source.objective)}"
        return View(title, stats=count(given, plan.objective, source=title, documents=False))
    setup = source.setup()
    name = setup.recipe.name
    if held_out:
        stop = None if batches is None else first + batches
        found: Iterable[Given] = islice(_held_out(setup), first, stop)
        split, title = setup.store.valid, f"Held-out windows of {name}"
        corpora = [(corpus.name, None) for corpus in split.corpora]
    else:
        training, many = setup.batches(), batches or BATCHES
        found = (training_batch(training, b) for b in range(first, first + many))
        split, title = setup.store.train, f"Training batches {first} to {first + many - 1} of {name}"
        weights = np.asarray(corpus_weights(setup.recipe.corpus, split))
        shares = (weights / weights.sum()).tolist()
        corpora = [(corpus.name, share) for corpus, share in zip(split.corpora, shares, strict=True)]
    stats = count(
        _scored(source, setup, found),
        setup.objective,
        source=f"{title}: {describe(setup.recipe.objective)}",
        corpora=corpora,
    )
    if not stats.windows:
        raise T5smithError(f"there is no held-out batch {first}", where="--batch", expected="a lower one")
    return View(title, stats=stats, model=source.model[1] if source.model else "", z_loss=source.weight_of_z)


def _scored(source: Source, setup: Setup, batches: Iterable[Given]) -> Iterable[tuple[Given, Any]]:
    """Batches with the scores of their windows, where there is a model; it says how far it is."""
    measure = source.measure()
    if measure is None:
        yield from ((batch, None) for batch in batches)
        return
    from t5smith.base.progress import progress
    from t5smith.inspection.spans import read
    from t5smith.inspection.token_losses import score_by_window

    with progress("inspect", None, "windows") as bar:
        for batch in batches:
            reading = read(batch, setup.objective)
            losses = measure(batch.arrays)
            yield batch, score_by_window(losses, reading, setup.vocabulary, len(batch.row))
            bar.advance(len(batch.row))


def _held_out(setup: Setup) -> Iterable[Given]:
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
      batch: which batch, from 0.
      rows: how many of its rows.
      held_out: a batch of the evaluation, on its fixed masks, instead of one of training.
      model: a run or model folder; each label then has its probability and nats by that model.
      recipe: its objective is taken instead of the run's; all of it if there is none in the run folder.

    Raises:
      T5smithError: no prepared store there, no such batch, or the model has another vocabulary.
    """
    return of_store(_source(run, recipe, model), batch=batch, rows=rows, held_out=held_out).rows


def inspect_counts(
    run: str | Path | None = None,
    recipe: Recipe | None = None,
    *,
    batch: int = 0,
    batches: int | None = None,
    held_out: bool = False,
    model: str | Path | None = None,
) -> Stats:
    """Spans, places, padding and more, counted over batches, beside what theory says they come to.

    Args:
      run: the run folder; left out: windows of no text under the objective of `recipe`.
      recipe: its objective is taken instead of the run's, or of T5's.
      batch: the first batch.
      batches: how many; left out: 20 of training, all that are held out.
      held_out: the evaluation's batches instead of those of training.
      model: a run or model folder; its loss is then summed too.

    Raises:
      T5smithError: no prepared store there, no such batch, or the model has another vocabulary.
    """
    view = of_counts(_source(run, recipe, model), first=batch, batches=batches, held_out=held_out)
    assert view.stats is not None
    return view.stats


def _source(run: str | Path | None, recipe: Recipe | None, model: str | Path | None) -> Source:
    from t5smith.inspection.run_folder import load_model, recipe_of

    if run is None and (model is not None):
        raise T5smithError("a model is asked about a store", where="model", expected="run too")
    of_run = recipe_of(Path(run), recipe) if run is not None else None
    objective = (recipe or of_run or Recipe()).objective
    if of_run is not None:
        of_run = of_run.replace(objective=objective.model_dump())
    asked = load_model(Path(model), recipe) if model is not None else None
    return Source(of_run, objective, (of_run or recipe or Recipe()).seed, asked)
