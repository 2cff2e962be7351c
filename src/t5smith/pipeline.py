"""The whole job in order: vocabulary, token store, training, evaluation, export, report.

Each stage is imported when it starts, so that preparing text does not need JAX.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5smith.base.artifact import disk_errors, read_manifest, write_atomically
from t5smith.base.lock import in_run_folder
from t5smith.base.progress import info
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import save_run_settings

if TYPE_CHECKING:
    from t5smith.text.corpus import CorpusFiles
    from t5smith.training.setup import Run

CORPUS_PAGE = "corpus.html"
REPORT = "report.html"


@in_run_folder
def run(recipe: Recipe) -> dict[str, Any]:
    """Do every stage that is not finished or whose inputs have changed, and write `report.html`.

    Returns:
      What :func:`summary` returns, and `seconds`, the time of this start alone.

    Raises:
      T5smithError: what any stage raises.
      Stopped: a signal arrived while training; the same command resumes.
    """
    from t5smith.evaluation.scores import evaluate
    from t5smith.exporting.export import export
    from t5smith.training.loop import train
    from t5smith.training.setup import Run
    from t5smith.vocabulary.train import vocab

    begun = time.monotonic()
    files = check(recipe)
    vocab(recipe, files=files)
    prepare(recipe, files=files)
    opened = Run(recipe, store_verified=True)
    train(opened)
    evaluate(opened)
    export(opened)
    facts = summary(opened) | {"seconds": round(time.monotonic() - begun, 1)}
    report(opened, facts)
    return facts


def check(recipe: Recipe) -> CorpusFiles:
    """Find errors of later stages before the first one starts, and write `recipe.toml`.

    Returns:
      The files that the recipe names.

    Raises:
      T5smithError: no text is given, a file is missing, more spans than sentinels, or the folder is not
        writable.
    """
    from t5smith.objective.objective import check_objective
    from t5smith.text.corpus import CorpusFiles, named_weights

    check_objective(recipe.objective)
    named_weights(recipe.corpus)
    files = CorpusFiles.find(recipe.corpus)
    save_run_settings(recipe)
    return files


def prepare(recipe: Recipe, *, verify: bool = False, files: CorpusFiles | None = None) -> Path:
    """Tokenise a recipe's text and write `corpus.html` beside the store.

    A finished store whose inputs have not changed is left as it is.

    Args:
      recipe: names the text and the run folder, which must contain a vocabulary.
      verify: only read the whole existing store and check it.
      files: the recipe's files, if they have been found before.

    Returns:
      The folder of the store.

    Raises:
      T5smithError: no vocabulary yet, text that cannot be read, a split without text, a full disk; with
        `verify`: no store, or a damaged one.
    """
    from t5smith.store.prepare import prepare as make_store

    return make_store(recipe, verify=True) if verify else _prepare_with_page(recipe, files)


@in_run_folder
def _prepare_with_page(recipe: Recipe, files: CorpusFiles | None) -> Path:
    from t5smith.reports.corpus_page import corpus_page
    from t5smith.store.prepare import prepare as make_store
    from t5smith.store.statistics import read_figures

    folder = make_store(recipe, files=files)
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
      The facts of each stage under `vocab`, `store`, `train`, `evaluation` and `export`, and the folders.
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
    }
