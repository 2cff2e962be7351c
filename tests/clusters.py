"""A text that several tasks prepare, and the files of stores to compare."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from t5smith.recipe.recipe import Recipe
from t5smith.store import prepare as module
from t5smith.vocabulary.train import vocab


@pytest.fixture
def recipe_of_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe on 400 kB of JSON lines, with its vocabulary; processes are started for any size."""
    monkeypatch.setattr(module, "IN_PROCESS_BYTES", 0)
    draw = random.Random(0)
    words = ["".join(letters) for letters in itertools.product("bdfgk", "aeiou", "lmnr", "aeiou")]
    text = ""
    with (tmp_path / "text.jsonl").open("w") as file:
        for number in range(1_000):
            # Every tenth text is a duplicate.
            text = text if number % 10 == 9 else " ".join(draw.choices(words, k=draw.randint(45, 65)))
            file.write(json.dumps({"text": text}) + "\n")
    made = Recipe.model_validate(
        {
            "run_dir": tmp_path / "run",
            "corpus": {"train": (str(tmp_path / "text.jsonl"),), "held_out_fraction": 0.1},
            "vocab": {"size": 300},
            "prepare": {"tasks": 2},
        }
    )
    vocab(made)
    return made


def store_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def sibling(recipe: Recipe, name: str) -> Recipe:
    """The same recipe in another run folder, with the same vocabulary."""
    other = recipe.replace(run_dir=recipe.folder.with_name(name))
    other.folder.mkdir()
    (other.folder / "vocab").symlink_to(recipe.folder / "vocab")
    return other
