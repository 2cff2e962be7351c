"""A recipe on a short text, with its vocabulary trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.vocab import VocabSettings
from t5smith.vocabulary.train import vocab

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def recipe(tmp_path: Path) -> MakeRecipe:
    """Makes a recipe on a text of twenty short documents, with its vocabulary trained."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"det er dag {i}\nog natt {i}" for i in range(20)), encoding="utf-8")

    def make(**corpus: object) -> Recipe:
        settings = CorpusSettings.model_validate({"train": (str(text),), "held_out_fraction": 0.3} | corpus)
        made = Recipe(run_dir=tmp_path / "run", corpus=settings, vocab=VocabSettings(size=40))
        vocab(made)
        return made

    return make
