"""`export --check`: what transformers computes from the folder is compared, and a difference is an error."""

from __future__ import annotations

import importlib.util
import shutil

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.exporting import check as checking
from t5smith.exporting.export import export
from t5smith.training.setup import Run


@pytest.fixture(scope="module")
def copy(finished, tmp_path_factory):
    folder = shutil.copytree(finished.folder, tmp_path_factory.mktemp("checked") / "run")
    return finished.replace(run_dir=folder)


def test_a_checked_model_says_so_on_its_card(copy):
    folder = export(copy, check=True)
    facts = read_manifest(folder, "model").facts["checked"]
    assert (facts["transformers"], facts["inputs"]) == (transformers.__version__, 50)
    assert 0 < facts["largest_difference"] < 1e-4
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert (
        f"Checked with transformers {transformers.__version__}: on 50 held-out inputs the ids equal" in card
    )
    before = (folder / "manifest.json").stat().st_mtime_ns
    export(copy)  # it is the same model: its check still holds
    export(copy, check=True)
    assert (folder / "manifest.json").stat().st_mtime_ns == before


def test_other_logits_are_an_error(finished, monkeypatch):
    """transformers gets a model with another norm; ours is read before."""
    load = transformers.AutoModelForSeq2SeqLM.from_pretrained

    def other(folder):
        model = load(folder)
        model.decoder.final_layer_norm.weight.data *= 1.01
        return model

    monkeypatch.setattr(transformers.AutoModelForSeq2SeqLM, "from_pretrained", other)
    with pytest.raises(T5smithError, match="the logits in transformers differ by up to"):
        checking.check_folder(finished.folder / "model", Run(finished).setup)


def test_other_ids_are_an_error_and_nothing_is_written(finished, tmp_path, monkeypatch):
    copy = finished.replace(run_dir=shutil.copytree(finished.folder, tmp_path / "run"), license="mit")
    before = (copy.folder / "model" / "README.md").read_text(encoding="utf-8")

    class Other:
        input_ids = (3, 1)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda folder: lambda text: Other())
    with pytest.raises(T5smithError, match="gives other ids for"):
        export(copy, check=True)
    assert (copy.folder / "model" / "README.md").read_text(encoding="utf-8") == before


def test_weights_that_are_not_numbers_are_an_error(finished, tmp_path):
    folder = shutil.copytree(finished.folder / "model", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["decoder.final_layer_norm.weight"][:] = np.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(T5smithError, match="differ by up to nan"):
        checking.check_folder(folder, Run(finished).setup)


def test_without_transformers_it_is_an_error_before_anything_is_written(finished, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(T5smithError, match=r"--check: needs torch, which is not installed"):
        export(finished, check=True)
    with pytest.raises(T5smithError, match="compares whole models"):
        export(finished, check=True, encoder_only=True)
