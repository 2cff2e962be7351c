"""A recipe: every setting of a run, typed, frozen and checked when it is made.

Settings come from a TOML file or a preset name and may be overridden by dotted flags
(``--train.steps 50``). A value that cannot be used is refused with its place and what is allowed;
nothing is coerced or ignored. ``recipe/toml.py`` reads the files; this module defines the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import Folder, Settings
from t5smith.recipe.cleaning import CleaningSettings
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.evaluate import EvaluateSettings
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.prepare import PrepareSettings
from t5smith.recipe.train import TrainSettings
from t5smith.recipe.vocab import VocabSettings


class Recipe(Settings):
    """Everything a run depends on. Two runs of the same recipe and text give the same model."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "untitled"
    """Names the run folder. Left out of a recipe file: the name of the file."""
    run_dir: Folder | None = None
    """Where the artifacts go. Left out: runs/NAME."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides the order of the data, the training masks and the first weights."""
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

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run_dir if self.run_dir is not None else Path("runs") / self.name

    def replace(self, **changes: Any) -> Recipe:
        """A copy with dotted settings changed: ``recipe.replace(**{"train.steps": 50})``. Checked anew."""
        tree = self.model_dump()
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
    """Settings as what JSON and TOML can hold, in a stable order, without what is None."""
    return (
        settings.model_dump(mode="json", exclude_none=True)
        if isinstance(settings, Settings)
        else dict(settings)
    )
