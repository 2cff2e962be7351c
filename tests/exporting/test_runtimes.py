"""`export --for`: the model in another runtime's format, which computes the same or is refused."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.exporting.export import export
from t5smith.exporting.runtimes import comparison, ctranslate2
from t5smith.exporting.runtimes.comparison import Found, compare
from t5smith.exporting.runtimes.export_for import RUNTIMES, convert
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_save import write_model
from t5smith.interop.model import Model
from t5smith.model.config import ModelConfig
from t5smith.model.params import init

KINDS = {
    "tied": {"tie_word_embeddings": True, "gated": False},
    "untied": {},
    "relu": {"gated": False},
    "unequal": {"num_decoder_layers": 1},
    "far": {
        "relative_attention_max_distance": 16,
        "relative_attention_num_buckets": 8,
        "layer_norm_epsilon": 0.01,
    },
    "per layer": {"bias_per_layer": True},
}


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"make test-all installs {package}")


ONNX_PYTHON = Path(__file__).parents[2] / ".venv4" / "bin" / "python"
needs_onnx = pytest.mark.skipif(
    not list(ONNX_PYTHON.parents[1].glob("lib/*/site-packages/optimum/exporters/onnx")),
    reason="make test-all makes the environment with optimum-onnx",
)


@pytest.fixture(scope="module")
def folders(finished, tmp_path_factory):
    """Makes a random model of a kind; heads times d_kv is not d_model, and there are spare rows."""
    vocabulary, made = load_model(finished.folder / "model").vocabulary, {}

    def folder(kind):
        if kind not in made:
            rows = vocabulary.size + 9
            sizes = {"num_layers": 2, "num_decoder_layers": 2, "num_heads": 3} | KINDS[kind]
            config = ModelConfig(rows, vocabulary.size, 32, 8, 64, **sizes)
            made[kind] = tmp_path_factory.mktemp("model") / kind
            made[kind].mkdir()
            parameters = init(config, jax.random.key(1))
            write_model(made[kind], Model(parameters, config, vocabulary), model_max_length=64)
        return made[kind]

    return folder


@pytest.fixture(scope="module")
def sample(finished):
    size, draw = load_model(finished.folder / "model").vocabulary.size, np.random.default_rng(0)
    rows = [[*draw.integers(3, size, length).tolist(), 1] for length in draw.integers(2, 30, 100)]
    return rows[:50], [row[-12:] for row in rows[50:]]


@pytest.fixture(scope="module")
def ours(finished, sample):
    model, (inputs, targets) = load_model(finished.folder / "model"), (rows[:3] for rows in sample)
    found = Found(
        comparison.greedy(model, inputs),
        [row.tolist() for row in comparison.scores_of(model, inputs, targets)],
    )
    return model, inputs, targets, found


def test_a_runtime_that_computes_the_same_passes(ours):
    facts = compare(*ours, 1e-4)
    assert facts == {"inputs": 3, "largest_difference": 0, "tolerance": 1e-4, "ties": 0}


def test_other_log_probabilities_are_an_error(ours):
    *given, found = ours
    for change, what in ((0.01, "differ by up to 0.0"), (np.nan, "up to nan")):
        scores = [list(row) for row in found.scores]
        scores[2][-1] += change
        with pytest.raises(T5smithError, match=what):
            compare(*given, Found(found.greedy, scores), 1e-4)
    with pytest.raises(T5smithError, match="scores 1 of"):
        compare(*given, Found(found.greedy, [row[:1] for row in found.scores]), 1e-4)


def test_other_greedy_output_is_an_error_unless_two_ids_are_equally_probable(ours):
    *given, found = ours
    other = [list(row) for row in found.greedy]
    other[1][3] = 5 if other[1][3] != 5 else 6
    with pytest.raises(T5smithError, match="greedy output for input 1 is"):
        compare(*given, Found(other, found.scores), 1e-4)
    assert compare(*given, Found(other, found.scores), 1e4)["ties"] == 1
    shorter = [*found.greedy[:2], found.greedy[2][:4]]
    with pytest.raises(T5smithError, match="greedy output for input 2 is"):
        compare(*given, Found(shorter, found.scores), 1e4)


def test_the_names_of_spare_rows_are_those_of_no_piece(finished):
    vocabulary = load_model(finished.folder / "model").vocabulary
    names = ctranslate2.token_names(vocabulary, vocabulary.size + 3)
    assert names[: vocabulary.size] == list(vocabulary.all_pieces)
    assert len(set(names)) == vocabulary.size + 3
    assert not any("extra_id" in name for name in names[vocabulary.size :])


@pytest.mark.parametrize("name", RUNTIMES)
def test_without_its_package_it_is_an_error_before_anything_is_written(finished, monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(T5smithError, match=rf"--for {name}: needs .*, which .*pip install"):
        export(finished, runtime=name)


def test_an_environment_without_the_converter_is_an_error_of_one_line(finished, tmp_path):
    python = tmp_path / "python"
    with pytest.raises(
        T5smithError, match=r"--python .*: cannot be run \(No such file.*Make it with `python3"
    ):
        export(finished, runtime="onnx", python=python)
    python.write_text("#!/bin/sh\necho traceback >&2; echo No module named optimum >&2; exit 1\n")
    python.chmod(0o755)
    with pytest.raises(T5smithError, match=r"failed in this environment: No module named optimum\. Make it"):
        export(finished, runtime="onnx", python=python)
    with pytest.raises(T5smithError, match="--python: needs `--for onnx`"):
        export(finished, python=python)


def test_what_cannot_be_converted_is_an_error(finished):
    with pytest.raises(T5smithError, match="--for and --encoder-only: cannot"):
        export(finished, runtime="ctranslate2", encoder_only=True)
    with pytest.raises(T5smithError, match="unknown runtime 'tpu'"):
        export(finished, runtime="tpu")


@pytest.mark.slow
@needs("ctranslate2")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "per layer"])
def test_ctranslate2_computes_the_same(folders, sample, tmp_path, kind):
    facts = convert(folders(kind), tmp_path, "ctranslate2", *sample)
    assert facts["inputs"] == 50
    assert facts["largest_difference"] < 1e-5


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "per layer"])
def test_onnx_computes_the_same(folders, sample, tmp_path, kind):
    facts = convert(folders(kind), tmp_path, "onnx", *sample, ONNX_PYTHON)
    assert facts["inputs"] == 50
    assert facts["largest_difference"] < 1e-5


@pytest.mark.parametrize("name", ["ctranslate2", "onnx"])
def test_a_bias_per_layer_is_refused_where_the_runtime_has_none(folders, sample, tmp_path, name):
    with pytest.raises(T5smithError, match=f"--for {name}: .*position bias"):
        convert(folders("per layer"), tmp_path, name, *sample)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@needs("ctranslate2")
def test_the_comparison_finds_what_ctranslate2s_converter_does_under_transformers_5(
    folders, sample, tmp_path, monkeypatch
):
    """An untied model is scaled like a tied one: scores are wrong. And spare rows have sentinels' names."""
    converters = importlib.import_module("ctranslate2.converters")

    def theirs(job):
        converters.TransformersConverter(str(job.source)).convert(str(job.folder / "made"))
        shutil.copytree(job.folder / "made", job.folder, dirs_exist_ok=True)

    monkeypatch.setitem(RUNTIMES, "ctranslate2", replace(ctranslate2.CTRANSLATE2, convert=theirs))
    with pytest.raises(T5smithError, match="log probabilities of given targets differ"):
        convert(folders("untied"), tmp_path, "ctranslate2", *sample)
    names = json.loads((tmp_path / "shared_vocabulary.json").read_text(encoding="utf-8"))
    assert names.count("<extra_id_0>") == 2


@pytest.mark.slow
@needs("ctranslate2")
def test_a_run_is_exported_for_ctranslate2_and_its_readme_runs(finished, tmp_path, capsys):
    copy = finished.replace(run_dir=shutil.copytree(finished.folder, tmp_path / "run"))
    folder = export(copy, runtime="ctranslate2")
    assert folder == copy.folder / "model-ctranslate2"
    facts = read_manifest(folder, "model").facts
    assert (facts["inputs"], facts["ties"]) == (50, 0)
    assert facts["ctranslate2"] == importlib.import_module("ctranslate2").__version__
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "on 50 inputs CTranslate2's log probabilities differ by at most" in text
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with contextlib.chdir(folder):
        exec(block, {})
    assert capsys.readouterr().out.strip()
    before = (folder / "manifest.json").stat().st_mtime_ns
    export(copy, runtime="ctranslate2")
    assert (folder / "manifest.json").stat().st_mtime_ns == before
