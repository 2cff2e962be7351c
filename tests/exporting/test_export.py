"""The exported folder: what a stage needs before it, and what the card says."""

from __future__ import annotations

import json
import shutil

import pytest

from t5smith.base.errors import T5smithError
from t5smith.exporting.export import export
from t5smith.exporting.model_card import model_card
from t5smith.training.setup import Run


@pytest.fixture
def copy(finished, tmp_path):
    """The recipe of a copy of a finished run."""
    return finished.replace(run_dir=shutil.copytree(finished.folder, tmp_path / "run"))


def test_the_card_has_numbers_where_the_recipe_has_none(copy):
    """A length in tokens is that of six steps; the card states the steps."""
    shutil.rmtree(copy.folder / "model")
    folder = export(copy.replace(**{"train.tokens": 6 * 4 * (32 + 8)}))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| Training | 6 steps of 4 examples, " in card


def test_an_exported_model_is_not_written_twice(copy):
    before = (copy.folder / "model" / "model.safetensors").stat().st_mtime_ns
    assert export(copy) == copy.folder / "model"
    assert (copy.folder / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_scores_of_another_model_are_rejected(copy):
    manifest = copy.folder / "evaluation" / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    start = text.index('"checkpoint": "') + len('"checkpoint": "')
    manifest.write_text(text[:start] + "0" * 64 + text[start + 64 :], encoding="utf-8")
    with pytest.raises(T5smithError, match=r"these scores are of another model\. Run `t5smith evaluate`"):
        export(copy)


def test_a_model_without_scores_is_rejected(copy):
    shutil.rmtree(copy.folder / "evaluation")
    with pytest.raises(T5smithError, match="t5smith evaluate"):
        export(copy)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "applies NFKC and turns all white space into single spaces; case is kept."),
        ({"vocab.normalization": "nfc", "vocab.lowercase": True}, "applies NFC and"),
        ({"vocab.lowercase": True}, "text is lowercased."),
        ({"vocab.normalization": "none"}, "applies no Unicode normalization"),
        ({"vocab.tokenizer": "bytes"}, "The tokenizer was imported."),
    ],
)
def test_the_card_describes_the_tokenizer(finished, changes, sentence):
    trained = {"parameters": 1, "tokens": 1}
    evaluation = json.loads((finished.folder / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    card = model_card(finished.replace(**changes), Run(finished).setup.config, trained, evaluation)
    assert sentence in " ".join(card.split())
