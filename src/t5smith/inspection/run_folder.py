"""A run folder as the inspector opens it: its recipe, and the model that it has come to."""

from __future__ import annotations

from pathlib import Path

from t5smith.base.errors import T5smithError
from t5smith.interop.huggingface_load import load_model as load_exported
from t5smith.interop.model import Model
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import load_recipe
from t5smith.training import checkpoints as checkpoint
from t5smith.training.setup import Run
from t5smith.vocabulary.vocabulary import Vocabulary

SETTINGS = "recipe.toml"


def recipe_of(folder: Path, otherwise: Recipe | None = None) -> Recipe:
    """The recipe of a run folder, or of the run that a store is part of.

    Args:
      folder: the run folder, or `store` in it.
      otherwise: the recipe if none stands there: single stages do not leave one, only `t5smith run` does.

    Raises:
      T5smithError: no run there, or it has no recipe.
    """
    run = folder.parent if folder.name == "store" and not (folder / "store").is_dir() else folder
    if not run.is_dir():
        raise T5smithError("there is no such folder", where=run, expected="a run folder")
    if (run / SETTINGS).is_file():
        return load_recipe(run / SETTINGS).replace(run_dir=run)
    if otherwise is None:
        raise T5smithError(
            f"there is no {SETTINGS}",
            where=run,
            expected="a run folder",
            fix="name the recipe it was made with: --recipe RECIPE",
        )
    return otherwise.replace(run_dir=run)


def load_model(folder: Path, recipe: Recipe | None = None) -> tuple[Model, str]:
    """The model of an exported folder, or of a run: its export, or else its newest checkpoint.

    Args:
      folder: where it is.
      recipe: of the run, where none stands in its folder.

    Returns:
      The model, and which it is, for people.

    Raises:
      T5smithError: no model there, or it is damaged.
    """
    for exported in (folder, folder / "model"):
        if (exported / "config.json").is_file():
            return load_exported(exported), str(exported)
    if not (folder / SETTINGS).is_file() and recipe is None:
        raise T5smithError(
            "there is no model here", where=folder, expected="a run folder or an exported model folder"
        )
    setup = Run(recipe_of(folder, recipe)).setup
    found = checkpoint.latest(setup.checkpoints, setup.inputs)
    if found is None:
        raise T5smithError(
            "there is no checkpoint of this recipe", where=setup.checkpoints, fix="run `t5smith train`"
        )
    path, manifest = found
    state = checkpoint.restore(path, setup.abstract_state())
    model = Model(state.eval_params, setup.config, setup.vocabulary)
    return model, f"{folder}, step {manifest.facts['step']:,}"


def same_pieces(one: Vocabulary, other: Vocabulary) -> bool:
    """Whether two vocabularies give every id the same piece."""
    ids = range(one.size)
    return one.size == other.size and one.pieces(ids) == other.pieces(ids)
