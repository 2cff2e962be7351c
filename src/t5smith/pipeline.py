"""The whole job in order: vocabulary, token store, training, evaluation, export, report.

What a stage needs is imported when it starts, so that preparing text needs no JAX.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5smith.base.artifact import disk_errors, read_manifest, write_atomically
from t5smith.base.lock import in_run_folder
from t5smith.base.progress import info
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import dump

if TYPE_CHECKING:
    from t5smith.text.corpus import CorpusFiles

SETTINGS = "recipe.toml"
CORPUS_PAGE = "corpus.html"
REPORT = "report.html"


@in_run_folder
def run(recipe: Recipe) -> dict[str, Any]:
    """Do every stage that is not done yet, and write `report.html`.

    Returns:
      What :func:`summary` gives, and `seconds`, the time of this start alone.

    Raises:
      T5smithError: what any stage raises.
      Stopped: a signal came while training; starting again goes on from there.
    """
    from t5smith.evaluation.scores import evaluate
    from t5smith.exporting.export import export
    from t5smith.reports.run_page import page
    from t5smith.reports.run_report import run_report
    from t5smith.training.loop import train
    from t5smith.vocabulary.train import vocab

    begun = time.monotonic()
    files = check(recipe)
    vocab(recipe, files=files)
    prepare(recipe, files=files)
    checkpoint = train(recipe)
    evaluate(recipe)
    export(recipe)
    facts = summary(recipe, checkpoint)
    facts["seconds"] = round(time.monotonic() - begun, 1)
    with disk_errors(recipe.folder):
        write_atomically(recipe.folder / REPORT, page(run_report(recipe, facts)))
    info(f"report    {facts['report']}")
    return facts


def check(recipe: Recipe) -> CorpusFiles:
    """Find before the first stage what would stop a later one.

    Returns:
      The files that the recipe names.

    Raises:
      T5smithError: no text given, a file is missing, more spans than sentinels, the folder is not writable.
    """
    from t5smith.objective.objective import check_objective
    from t5smith.text.corpus import CorpusFiles, named_weights

    check_objective(recipe.objective)
    named_weights(recipe.corpus)
    files = CorpusFiles.find(recipe.corpus)
    with disk_errors(recipe.folder):
        write_atomically(recipe.folder / SETTINGS, dump(recipe))
    return files


def prepare(recipe: Recipe, *, verify: bool = False, files: CorpusFiles | None = None) -> Path:
    """Tokenise a recipe's text and write `corpus.html` beside the store; the folder of the store.

    What is there already and as it would be is left alone.

    Args:
      recipe: names the text and the run folder, in which there must be a vocabulary.
      verify: make nothing, but read the whole store that is there and check it.
      files: the recipe's files, if they have been found before.

    Raises:
      T5smithError: no vocabulary yet, text that cannot be read, a split without text, a full disk; with
        `verify`: no store, or one that is not as it was written.
    """
    from t5smith.store.prepare import prepare as make_store

    return make_store(recipe, verify=True) if verify else _prepare(recipe, files)


@in_run_folder
def _prepare(recipe: Recipe, files: CorpusFiles | None) -> Path:
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
        info(f"prepare   what came of the text: {file}")
    return folder


def summary(recipe: Recipe, checkpoint: Path) -> dict[str, Any]:
    """What a finished run has made, read from its manifests.

    Returns:
      The facts of each stage under `vocab`, `store`, `train`, `evaluation` and `export`, and the folders.
    """
    folder = recipe.folder

    def facts(name: str, kind: str) -> dict[str, Any]:
        return read_manifest(folder / name, kind, check_hashes=False).facts

    return {
        "name": recipe.name,
        "folder": str(folder),
        "model": str(folder / "model"),
        "checkpoint": str(checkpoint),
        "report": str(folder / REPORT),
        "vocab": facts("vocab", "vocab"),
        "store": facts("store", "store"),
        "train": read_manifest(checkpoint, "checkpoint", check_hashes=False).facts,
        "evaluation": facts("evaluation", "evaluation"),
        "export": facts("model", "model"),
    }
