"""The whole job in order: vocabulary, token store, training, evaluation, export, report.

Each stage is imported when it starts, so that preparing text does not need JAX.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5smith.base.artifact import MANIFEST, read_manifest
from t5smith.base.disk import disk_errors, write_atomically
from t5smith.base.errors import T5smithError, TrainingAtStake
from t5smith.base.lock import in_run_folder
from t5smith.base.progress import info
from t5smith.base.run_folder import TRAIN, archives, is_needed, trained_steps
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import save_run_settings

if TYPE_CHECKING:
    from t5smith.text.corpus import CorpusFiles
    from t5smith.training.setup import Run

CORPUS_PAGE = "corpus.html"
REPORT = "report.html"


@in_run_folder
def run(
    recipe: Recipe,
    *,
    restart: bool = False,
    extend: bool = False,
    resume_from: Path | None = None,
    retrain_vocab: bool = False,
) -> dict[str, Any]:
    """Do every stage that is not finished or whose inputs have changed, and write `report.html`.

    Nothing on the disk changes before the checks of all stages have passed.

    Args:
      recipe: all settings.
      restart: archive the trained steps, and train again.
      extend: let training continue on another schedule; see :func:`t5smith.train`.
      resume_from: an archived training that first comes back into place.
      retrain_vocab: train the vocabulary again if files of the text have changed; see :func:`t5smith.vocab`.

    Returns:
      What :func:`summary` returns, and `seconds`, the time of this start alone.

    Raises:
      TrainingAtStake: steps are trained with other settings.
      T5smithError: what any stage raises.
      Stopped: a signal arrived while training; the same command resumes.
    """
    from t5smith.evaluation.scores import evaluate
    from t5smith.exporting.export import export
    from t5smith.training.resume.archives import restore_training
    from t5smith.training.setup import Run
    from t5smith.training.train import train
    from t5smith.vocabulary.train import vocab

    begun = time.monotonic()
    again = restart or resume_from is not None
    files = check(recipe, restart=again, extend=extend, retrain_vocab=retrain_vocab)
    if resume_from is not None:
        restore_training(recipe, resume_from, files)
        _check_trained(recipe, files, extend, retrain_vocab)
    save_run_settings(recipe)
    vocab(recipe, files=files, restart=restart, retrain_vocab=retrain_vocab)
    prepare(recipe, files=files, restart=restart)
    opened = Run(recipe, store_verified=True, restart=restart)
    train(opened, restart=restart, extend=extend)
    evaluate(opened)
    export(opened)
    facts = summary(opened) | {"seconds": round(time.monotonic() - begun, 1)}
    report(opened, facts)
    return facts


def check(
    recipe: Recipe, *, restart: bool = False, extend: bool = False, retrain_vocab: bool = False
) -> CorpusFiles:
    """Find the errors of all stages before the first one starts. Nothing on the disk is changed.

    Args:
      recipe: all settings.
      restart: trained steps may be archived.
      extend: training may continue on another schedule.
      retrain_vocab: the vocabulary is trained again if files of the text have changed.

    Returns:
      The files that the recipe names.

    Raises:
      TrainingAtStake: the run folder has trained steps with other settings.
      T5smithError: settings do not fit each other, a package is missing, no text is named, a file cannot be
        opened or its first records cannot be used, training does not fit into memory or onto the disk.
    """
    from t5smith.objective.objective import check_objective
    from t5smith.text.corpus import CorpusFiles, named_weights
    from t5smith.text.documents import check_first_documents
    from t5smith.training.loggers import check_loggers
    from t5smith.training.schedule import create_schedule
    from t5smith.training.timing.preflight import check_machine

    check_objective(recipe.objective)
    named_weights(recipe.corpus)
    if recipe.train.in_steps:
        create_schedule(recipe.train.schedule, 1.0, recipe.train.steps)
    check_loggers(recipe.train)
    files = CorpusFiles.find(recipe.corpus)
    check_first_documents(files)
    if not restart:
        _check_trained(recipe, files, extend, retrain_vocab)
    if not (recipe.folder / "store" / MANIFEST).is_file():
        # Otherwise training soon makes the same checks.
        check_machine(recipe)
    return files


def _check_trained(recipe: Recipe, files: CorpusFiles, extend: bool, retrain_vocab: bool) -> None:
    """Raise TrainingAtStake if a stage would replace trained steps or what they need."""
    from t5smith.training.resume.archives import artifact_changes, matching_archive, training_changes
    from t5smith.training.resume.history import find_start
    from t5smith.training.setup import Run

    folder = recipe.folder
    if not trained_steps(folder):
        return
    if changed := artifact_changes(recipe, files, retrain_vocab=retrain_vocab):
        changed += training_changes(recipe, folder / TRAIN)
        raise TrainingAtStake(
            folder, trained_steps(folder), dict.fromkeys(changed), more=matching_archive(recipe, files)
        )
    run = Run(recipe)
    try:
        # The store is large; its files are compared with their hashes when it is used.
        in_place = [read_manifest(folder / "vocab", "vocab")]
        in_place.append(read_manifest(folder / "store", "store", check_hashes=False))
    except T5smithError:
        return  # it is made again from the same inputs
    if not all(is_needed(folder, found) for found in in_place):
        return
    find_start(
        run.history,
        run.setup.inputs,
        run.setup.recipe.train.steps,
        extend=extend,
        hint=partial(matching_archive, recipe, files),
    )


@in_run_folder
def finetune(recipe: Recipe, *, restart: bool = False, extend: bool = False) -> dict[str, Any]:
    """Fine-tune a model on tasks, score the best checkpoint, export it, and write `finetune/report.html`.

    Args:
      recipe: the table [finetune] says what to do; everything is written into `finetune` in the run folder.
      restart: archive the steps that are fine-tuned, and begin again.
      extend: let training continue on another schedule; see :func:`t5smith.train`.

    Returns:
      The scores on `test` and what led to them: `model`, `step`, `scores`, `intervals`, `train`, ...

    Raises:
      TrainingAtStake: steps are trained with other settings.
      T5smithError: there is no model or no task, rows cannot be used, a library is missing, or what training
        raises.
      Stopped: a signal arrived while training; the same command resumes.
    """
    from t5smith.finetuning.finetune import finetune as fine_tuned
    from t5smith.reports.finetune_page import page

    facts = fine_tuned(recipe, restart=restart, extend=extend)
    folder = Path(facts["folder"])
    with disk_errors(folder):
        write_atomically(folder / REPORT, page(facts, folder))
    info(f"report    {folder / REPORT}")
    return facts | {"report": str(folder / REPORT)}


def prepare(
    recipe: Recipe, *, verify: bool = False, files: CorpusFiles | None = None, restart: bool = False
) -> Path:
    """Tokenise a recipe's text and write `corpus.html` beside the store.

    A finished store whose inputs have not changed is left as it is.

    Args:
      recipe: names the text and the run folder, which must contain a vocabulary.
      verify: only read the whole existing store and check it.
      files: the recipe's files, if they have been found before.
      restart: archive trained steps if they need another store than the recipe's.

    Returns:
      The folder of the store.

    Raises:
      TrainingAtStake: steps are trained on a store of other settings or other text.
      T5smithError: no vocabulary yet, text that cannot be read, a split without text, a full disk; with
        `verify`: no store, or a damaged one.
    """
    from t5smith.store.prepare import prepare as make_store

    if verify:
        return make_store(recipe, verify=True)
    return _prepare_with_page(recipe, files, restart)


@in_run_folder
def _prepare_with_page(recipe: Recipe, files: CorpusFiles | None, restart: bool) -> Path:
    from t5smith.reports.corpus_page import corpus_page
    from t5smith.store.prepare import prepare as make_store
    from t5smith.store.statistics import read_figures

    folder = make_store(recipe, files=files, restart=restart)
    facts = read_manifest(folder, "store", check_hashes=False).facts
    page = corpus_page(recipe.name, facts, read_figures(folder))
    file = recipe.folder / CORPUS_PAGE
    if not file.is_file() or file.read_text(encoding="utf-8") != page:
        with disk_errors(recipe.folder):
            write_atomically(file, page)
        info(f"prepare   corpus report: {file}")
    return folder


def report(run: Run, facts: dict[str, Any]) -> None:
    """Write `report.html` of a finished run from its :func:`summary`."""
    from t5smith.reports.contents import run_report
    from t5smith.reports.run_page import page

    with disk_errors(run.folder):
        write_atomically(run.folder / REPORT, page(run_report(run, facts)))
    info(f"report    {facts['report']}")


def summary(run: Run) -> dict[str, Any]:
    """The results of a finished run, read from its manifests.

    Returns:
      The facts of each stage under `vocab`, `store`, `train`, `evaluation` and `export`, the folders, and
      under `archives` what is kept in `previous/`.
    """
    folder = run.folder
    checkpoint, manifest = run.trained
    stages = {"vocab": "vocab", "store": "store", "evaluation": "evaluation", "export": "model"}
    return {
        "name": run.recipe.name,
        "folder": str(folder),
        "model": str(folder / "model"),
        "checkpoint": str(checkpoint),
        "report": str(folder / REPORT),
        "train": manifest.facts,
        **{
            stage: read_manifest(folder / kind, kind, check_hashes=False).facts
            for stage, kind in stages.items()
        },
        "archives": [
            {"folder": str(found.folder), "bytes": found.size, "steps": found.steps}
            for found in archives(folder)
        ],
    }
