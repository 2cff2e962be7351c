"""The exported folder: what a stage needs before it, and what the card says."""

from __future__ import annotations

import shutil

import pytest

from t5smith.base.errors import T5smithError
from t5smith.exporting.export import export


@pytest.fixture
def copy(finished, tmp_path):
    """The recipe of a copy of a finished run."""
    return finished.replace(run_dir=shutil.copytree(finished.folder, tmp_path / "run"))


def test_the_card_has_numbers_where_the_recipe_has_none(copy):
    """A length in tokens is that of six steps; the card states the steps."""
    shutil.rmtree(copy.folder / "model")
    folder = export(copy.replace(**{"train.tokens": 6 * 4 * (32 + 8)}))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| Length | 6 steps of 4 examples, " in card


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


def test_a_missing_licence_is_asked_for_and_the_run_folder_is_not_published(copy, capsys):
    shutil.rmtree(copy.folder / "model")
    folder = export(copy)
    assert "the model card states no licence" in capsys.readouterr().err
    settings = (folder / "t5smith.json").read_text(encoding="utf-8")
    assert str(copy.folder) not in settings
    export(copy.replace(license="mit"))
    assert "no licence" not in capsys.readouterr().err
    assert "Licence: mit." in (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_says_what_was_done_not_what_the_recipe_says_now(copy):
    """Settings of finished stages that were changed afterwards."""
    changes = {
        "vocab.normalization": "nfc",
        "vocab.lowercase": True,
        "cleaning.steps": ("exact_duplicates",),
        "corpus.held_out_fraction": 0.5,
    }
    before = (copy.folder / "model" / "README.md").read_text(encoding="utf-8")
    shutil.rmtree(copy.folder / "model")
    folder = export(copy.replace(**changes))
    assert (folder / "README.md").read_text(encoding="utf-8") == before
