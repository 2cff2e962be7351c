"""Names of the Hugging Face Hub where a folder is expected: the message says how to fetch what they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from t5smith.base.errors import T5smithError
from t5smith.base.hub import download_first
from t5smith.generation.fill import model_folder
from t5smith.inspection.query import load_model as load_for_inspection
from t5smith.interop.huggingface_load import load_model
from t5smith.recipe.toml import load_recipe
from t5smith.vocabulary.vocabulary import Vocabulary

NAME = "google/t5-v1_1-base"
COMMAND = f"hf download {NAME} --local-dir t5-v1_1-base"


@pytest.mark.parametrize(
    "read", [model_folder, load_for_inspection, load_model, Vocabulary.load], ids=lambda read: read.__name__
)
def test_a_name_on_the_hub_gets_the_command_that_fetches_it(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(T5smithError, match=f"If it is a model on the Hugging Face Hub, .*{COMMAND}"):
        read(Path(NAME))
    (tmp_path / "google").mkdir()
    with pytest.raises(T5smithError) as caught:
        read(Path(NAME))
    assert "Hub" not in str(caught.value)


def test_a_name_on_the_hub_is_no_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(T5smithError, match=r"no such folder; .* is no recipe; as a vocabulary it goes"):
        load_recipe(NAME)


@pytest.mark.parametrize("name", ["runs", "./google/t5", "/google/t5", "~/t5/x", "a/b/c", "google/", "a b/c"])
def test_other_names_get_no_advice(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert download_first(name) is None
