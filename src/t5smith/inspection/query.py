"""What is inspected, opened once: the settings, the run folder, the model and the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from t5smith.base.errors import T5smithError
from t5smith.base.hub import download_first
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import RUN_SETTINGS, run_recipe
from t5smith.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from t5smith.inspection.token_losses import LossFunction
    from t5smith.interop.model import Model
    from t5smith.training.setup import Setup


@dataclass(frozen=True)
class Query:
    """What is inspected.

    Attributes:
      recipe: its objective and seed make the masks; of a run, its folder has the store.
      has_run: whether the recipe is that of a run folder.
      model: the model whose losses are shown, and its name; None without losses.
      tokenizer: a tokenizer's folder for texts.
    """

    recipe: Recipe
    has_run: bool = False
    model: tuple[Model, str] | None = None
    tokenizer: Path | None = None

    @classmethod
    def create(
        cls,
        run: str | Path | None = None,
        model: str | Path | None = None,
        recipe: Recipe | None = None,
        *,
        tokenizer: Path | None = None,
        loss: bool = False,
    ) -> Query:
        """Open what is named; the objective is the recipe's, or else the run's, the model's run's, or T5's.

        Args:
          run: a run folder.
          model: a run or model folder.
          recipe: its objective replaces the run's; all of it is used if the run folder has none.
          tokenizer: a tokenizer's folder for texts.
          loss: use the run's own model if none is named.

        Raises:
          T5smithError: there is no run or model in its folder, or it is damaged.
        """
        settings = recipe or Recipe()
        if run is not None:
            settings = recipe_of(Path(run), recipe)
            if recipe is not None:
                settings = settings.replace(objective=recipe.objective.model_dump())
            if loss and model is None:
                model = settings.folder
        elif model is not None and recipe is None and (Path(model) / RUN_SETTINGS).is_file():
            settings = recipe_of(Path(model))
        opened = load_model(Path(model), recipe) if model is not None else None
        return cls(settings, run is not None, opened, tokenizer)

    @property
    def model_name(self) -> str:
        """The model; "" if none is used."""
        return "" if self.model is None else self.model[1]

    @property
    def z_loss(self) -> float:
        """The weight of the squared log-partition function in the run's loss."""
        return self.recipe.train.z_loss if self.has_run else 0.0

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of a text: of the named tokenizer, the model, the run, or T5's own.

        Raises:
          T5smithError: there is none, or the model has another.
        """
        if self.tokenizer is not None:
            return self._checked(Vocabulary.load(self.tokenizer))
        if self.model is not None:
            return self.model[0].vocabulary
        return Vocabulary.load(self.recipe.folder) if self.has_run else Vocabulary.bundled()

    @cached_property
    def setup(self) -> Setup:
        """The run's vocabulary, store and objective.

        Raises:
          T5smithError: an artifact is missing or damaged, or the model has another vocabulary.
        """
        from t5smith.training.setup import Run

        assert self.has_run
        setup = Run(self.recipe).setup
        self._checked(setup.vocabulary)
        return setup

    @cached_property
    def loss(self) -> LossFunction | None:
        """Computes the losses of a batch, if a model is used."""
        if self.model is None:
            return None
        from t5smith.inspection.token_losses import create_loss_function

        return create_loss_function(self.model[0])

    def _checked(self, vocabulary: Vocabulary) -> Vocabulary:
        """The vocabulary, if the model gives every id the same piece."""
        if self.model is not None:
            other, ids = self.model[0].vocabulary, range(vocabulary.size)
            if vocabulary.size != other.size or vocabulary.pieces(ids) != other.pieces(ids):
                raise T5smithError(
                    "the model has a different vocabulary",
                    where=self.model_name,
                    expected="the vocabulary of the store or tokenizer",
                )
        return vocabulary


def recipe_of(folder: Path, default: Recipe | None = None) -> Recipe:
    """The recipe of a run folder, or of the run that a store is part of.

    Args:
      folder: the run folder, or `store` in it.
      default: the recipe if the folder has none: single stages do not write one, `t5smith run` does.

    Raises:
      T5smithError: there is no such folder, or it has no recipe.
    """
    run = folder.parent if folder.name == "store" and not (folder / "store").is_dir() else folder
    if not run.is_dir():
        raise T5smithError("there is no such folder", where=run, expected="a run folder")
    if (run / RUN_SETTINGS).is_file():
        return run_recipe(run)
    if default is None:
        raise T5smithError(
            f"there is no {RUN_SETTINGS}",
            where=run,
            expected="a run folder",
            fix="name the recipe it was made with: --recipe RECIPE",
        )
    return default.replace(run_dir=run)


def load_model(folder: Path, recipe: Recipe | None = None) -> tuple[Model, str]:
    """The model of an exported folder, or of a run: its export, or else its newest checkpoint.

    Args:
      folder: where it is.
      recipe: of the run, if its folder has none.

    Returns:
      The model and its name.

    Raises:
      T5smithError: there is no model, or it is damaged.
    """
    from t5smith.interop.huggingface_load import load_model as load_exported
    from t5smith.interop.model import Model
    from t5smith.training.resume import checkpoints
    from t5smith.training.resume.saved_parameters import SavedParameters
    from t5smith.training.setup import Run

    for exported in (folder, folder / "model"):
        if (exported / "config.json").is_file():
            return load_exported(exported), str(exported)
    if not folder.is_dir():
        expected, fix = "a run folder or an exported model folder", download_first(str(folder))
        raise T5smithError("there is no such folder", where=folder, expected=expected, fix=fix)
    if not (folder / RUN_SETTINGS).is_file() and recipe is None:
        raise T5smithError(
            "there is no model here", where=folder, expected="a run folder or an exported model folder"
        )
    setup = Run(recipe_of(folder, recipe)).setup
    found = checkpoints.latest(setup.checkpoints, setup.inputs)
    if found is None:
        raise T5smithError(
            "there is no checkpoint of this recipe", where=setup.checkpoints, fix="run `t5smith train`"
        )
    path, manifest = found
    parameters = SavedParameters([path], setup.abstract_state()).tree()
    model = Model(parameters, setup.config, setup.vocabulary)
    return model, f"{folder}, step {manifest.facts['step']:,}"
