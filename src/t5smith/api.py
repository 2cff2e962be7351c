"""The public functions: one for each verb of the command line, with the same name and meaning.

They stand here under one roof because their homes are packages that bear the same names
(`t5smith.vocabulary.train.vocab`, `t5smith.training.loop.train`, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from t5smith.base.errors import T5smithError
from t5smith.benchmarking.corrupt import bench_corrupt
from t5smith.benchmarking.inputs import bench_input
from t5smith.benchmarking.preparing import bench_prepare
from t5smith.benchmarking.training import bench_train
from t5smith.evaluation.scores import evaluate
from t5smith.generation.fill import Completion, complete, model_folder
from t5smith.inspection.query import Source, of_counts, of_store
from t5smith.inspection.rows import Row
from t5smith.inspection.run_folder import load_model as load_for_inspect
from t5smith.inspection.run_folder import recipe_of
from t5smith.inspection.statistics import Stats
from t5smith.inspection.text import inspect
from t5smith.interop.huggingface import export
from t5smith.interop.huggingface import load as load_model
from t5smith.objective.denoisers import mode_token
from t5smith.pipeline import run
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import load as load_recipe
from t5smith.reports.prepare import prepare
from t5smith.training.loop import train
from t5smith.vocabulary.compare import compare_vocabularies
from t5smith.vocabulary.train import vocab

__all__ = [
    "Recipe",
    "T5smithError",
    "bench_corrupt",
    "bench_input",
    "bench_prepare",
    "bench_train",
    "compare_vocabularies",
    "evaluate",
    "export",
    "generate",
    "inspect",
    "inspect_counts",
    "inspect_rows",
    "load_model",
    "load_recipe",
    "prepare",
    "run",
    "train",
    "vocab",
]


def generate(
    model: str | Path, texts: Sequence[str], max_new_tokens: int = 64, mode: str = ""
) -> list[Completion]:
    """Fill in the sentinels of texts such as `The <extra_id_0> ruined my sleep`, greedily.

    Args:
      model: a Hugging Face T5 folder, or a run folder with its exported `model` in it.
      texts: one or more; each is completed on its own.
      max_new_tokens: longest answer.
      mode: mode token put before each text, for a model that was trained with them, such as `[R]`.

    Raises:
      T5smithError: no model there, or a text is empty or names a sentinel that does not exist.
    """
    loaded = load_model(model_folder(Path(model)))
    inputs = [loaded.vocabulary.encode_with_sentinels(text) for text in texts]
    return complete(loaded, inputs, max_new_tokens, mode_token(mode, loaded.vocabulary))


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
    if run is None and (model is not None):
        raise T5smithError("a model is asked about a store", where="model", expected="run too")
    of_run = recipe_of(Path(run), recipe) if run is not None else None
    objective = (recipe or of_run or Recipe()).objective
    if of_run is not None:
        of_run = of_run.replace(objective=objective.model_dump())
    asked = load_for_inspect(Path(model), recipe) if model is not None else None
    return Source(of_run, objective, (of_run or recipe or Recipe()).seed, asked)
