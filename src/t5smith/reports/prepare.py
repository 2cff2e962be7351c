"""`t5smith prepare`: the token store, and a page that shows what came of the text."""

from __future__ import annotations

from pathlib import Path

from t5smith.base.artifact import disk_errors, read_manifest, write_atomically
from t5smith.base.lock import in_run_folder
from t5smith.base.progress import say
from t5smith.recipe.recipe import Recipe
from t5smith.reports.corpus_page import corpus_page
from t5smith.store import prepare as stage
from t5smith.store.statistics import read_figures

PAGE = "corpus.html"


def prepare(recipe: Recipe, *, verify: bool = False) -> Path:
    """Tokenise a recipe's text and write `corpus.html` beside the store; the folder of the store.

    What is there already and as it would be is left alone.

    Args:
      recipe: names the text and the run folder, in which there must be a vocabulary.
      verify: make nothing, but read the whole store that is there and check it.

    Raises:
      T5smithError: no vocabulary yet, text that cannot be read, a split without text, a full disk; with
        `verify`: no store, or one that is not as it was written.
    """
    return stage.prepare(recipe, verify=True) if verify else _prepare(recipe)


@in_run_folder
def _prepare(recipe: Recipe) -> Path:
    folder = stage.prepare(recipe)
    facts = read_manifest(folder, "store", check_hashes=False).facts
    page = corpus_page(recipe.name, facts, read_figures(folder))
    file = recipe.folder / PAGE
    if not file.is_file() or file.read_text(encoding="utf-8") != page:
        with disk_errors(recipe.folder):
            write_atomically(file, page)
        say(f"prepare   what came of the text: {file}")
    return folder
