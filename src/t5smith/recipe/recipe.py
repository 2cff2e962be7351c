"""A recipe: all settings of a run, typed, frozen and validated.

Settings come from a TOML file, bundled or the user's, and flags override them (``--train.steps 50``). A value
that cannot be used is an error that names the setting and what it accepts; nothing is coerced or ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import Folder, Settings
from t5smith.recipe.cleaning import CleaningSettings
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.evaluate import EvaluateSettings
from t5smith.recipe.export import ExportSettings
from t5smith.recipe.finetune.settings import FinetuneSettings
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.prepare import PrepareSettings
from t5smith.recipe.sizes import SIZES
from t5smith.recipe.train import TrainSettings
from t5smith.recipe.vocab import VocabSettings


class Recipe(Settings):
    """All settings of a run. Two runs of the same recipe and text give the same model."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "untitled"
    """Name of the run, and of its folder. Default in a recipe file: the name of the file."""
    run_dir: Folder | None = None
    """The run folder, which holds all artifacts. Default: runs/NAME."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Random seed of the data order, the training masks and the initial weights."""
    language: str = ""
    """Language code for the model card, such as `nb`."""
    license: str = ""
    """Licence identifier for the model card, such as `apache-2.0`."""
    corpus: CorpusSettings = CorpusSettings()
    cleaning: CleaningSettings = CleaningSettings()
    vocab: VocabSettings = VocabSettings()
    prepare: PrepareSettings = PrepareSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    export: ExportSettings = ExportSettings()
    finetune: FinetuneSettings = FinetuneSettings()

    @model_validator(mode="after")
    def _tokenizer_of_the_source(self) -> Self:
        """A model that training continues from brings its tokenizer, if `[vocab]` sets nothing."""
        if self.train.init_from and self.vocab == VocabSettings():
            object.__setattr__(self, "vocab", VocabSettings(tokenizer=self.train.init_from))
        return self

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run_dir if self.run_dir is not None else Path("runs") / self.name

    def replace(self, **changes: Any) -> Recipe:
        """A copy with dotted settings changed: ``recipe.replace(**{"train.steps": 50})``. It is validated."""
        tree = self.model_dump()
        if "model.size" in changes:
            # A new size replaces the numbers of the old one; those among the changes override it.
            tree["model"] |= SIZES.get(changes["model.size"], {})
        for dotted, value in changes.items():
            *parents, leaf = dotted.split(".")
            table = tree
            for parent in parents:
                table = table.setdefault(parent, {})
                if not isinstance(table, dict):
                    raise T5smithError(f"{parent} is a value, not a table", where=dotted)
            table[leaf] = value
        return Recipe.model_validate(tree)


def plain(settings: Settings | Mapping[str, Any]) -> dict[str, Any]:
    """Settings as values that JSON and TOML can hold, in a stable order, without those that are None."""
    return (
        settings.model_dump(mode="json", exclude_none=True)
        if isinstance(settings, Settings)
        else dict(settings)
    )
