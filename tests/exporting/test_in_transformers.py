"""The exported folder as its users have it: the card's code as printed, added tokens, saving again.

In transformers 5, and in 4.57, which is in an environment of its own that `make test-all` makes (.venv4).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import in_transformers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

import t5smith
from programs import init
from t5smith.base.artifact import read_manifest
from t5smith.exporting.card_usage import usage
from t5smith.exporting.export import export
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_names import arrays_of
from t5smith.interop.huggingface_save import (
    Form,
    with_losing_spare_rows,
    write_model,
    write_settings,
    write_weights,
)
from t5smith.interop.model import Model
from t5smith.model.config import ModelConfig
from t5smith.model.t5 import encode
from t5smith.objective.denoisers import denoisers_of
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.vocabulary.vocabulary import Vocabulary

OTHER = Path(__file__).parents[2] / ".venv4" / "bin" / "python"
PROGRAM = Path(in_transformers.__file__)
SPAN_CORRUPTION = denoisers_of(ObjectiveSettings())


def in_5(function: str, *arguments: object) -> Any:
    return getattr(in_transformers, function)(*arguments)


def in_4(function: str, *arguments: object) -> Any:
    command = [OTHER, PROGRAM, function, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


needs_4 = pytest.mark.skipif(
    not OTHER.exists(), reason="make test-all makes the environment with transformers 4.57"
)
versions = pytest.mark.parametrize(
    "call", [pytest.param(in_5, id="5"), pytest.param(in_4, id="4.57", marks=[pytest.mark.slow, needs_4])]
)


@pytest.fixture(scope="module")
def vocabulary(finished) -> Vocabulary:
    return load_model(finished.folder / "model").vocabulary


@pytest.fixture(scope="module")
def folders(vocabulary, tmp_path_factory) -> dict[str, Path]:
    """A small random model with each kind of head, and one without spare rows, with their cards."""
    made: dict[str, Path] = {}
    for name, tied, rows in (("untied", False, 512), ("tied", True, 512), ("full", False, vocabulary.size)):
        config = ModelConfig(
            rows, vocabulary.size, 32, 8, 64, 2, 2, 4, tie_word_embeddings=tied, gated=not tied
        )
        folder = tmp_path_factory.mktemp("model") / name
        folder.mkdir()
        write_model(folder, Model(init(config, jax.random.key(1)), config, vocabulary), model_max_length=64)
        (folder / "README.md").write_text(usage(config, SPAN_CORRUPTION), encoding="utf-8")
        made[name] = folder
    return made


@versions
@pytest.mark.parametrize("name", ["untied", "tied", "full", "finished"])
def test_the_code_of_the_card_works_as_printed(folders, finished, vocabulary, tmp_path, call, name):
    folder = folders.get(name, finished.folder / "model")
    found = call("run_card", str(shutil.copytree(folder, tmp_path / "copy")))
    assert found["blocks"] == 2
    assert found["printed"].startswith("<pad>")
    expected = vocabulary.encode_with_sentinels("Your text with a <extra_id_0> to fill in")
    assert found["ids"] == [*expected, vocabulary.eos_id]
    assert found["tied"] == (name == "tied")
    assert found["added"] == vocabulary.size
    rows = load_model(folder).config.vocab_size
    assert found["rows"] == max(rows, vocabulary.size + 1)


@versions
@pytest.mark.parametrize(
    ("name", "count", "resize"),
    [("untied", 2, False), ("untied", 2, True), ("tied", 2, False), ("full", 2, True), ("untied", 150, True)],
)
def test_added_tokens_are_generated_after_fine_tuning(folders, tmp_path, call, name, count, resize):
    """With or without resizing, for either kind of head; and t5smith writes the same with what was saved."""
    found = call("add_tokens", str(folders[name]), str(tmp_path), count, resize)
    expected = [[number, 1] for number in found["ids"]]
    assert not {token for row in found["before"] for token in row} & {*found["ids"]}
    assert [row[:2] for row in found["after"]] == expected
    assert found["saved"] == found["after"]
    ours = t5smith.generate(tmp_path, in_transformers.TEXTS, max_new_tokens=4, constrain=False)
    assert [list(one.ids) for one in ours] == expected


@given(
    seed=st.integers(0, 2**32 - 1), spare=st.integers(0, 5), tied=st.booleans(), scale=st.floats(1e-3, 1e3)
)
def test_a_spare_row_is_never_the_most_probable(seed, spare, tied, scale):
    """Whatever the rows and whatever the decoder's output."""
    draw = np.random.default_rng(seed)
    config = ModelConfig(8 + spare, 8, 4, 2, 4, 1, 1, 1, tie_word_embeddings=tied)
    rows = draw.normal(size=(config.vocab_size, 4)).astype(np.float32)
    before, made = rows.copy(), with_losing_spare_rows(rows, config)
    assert (made[:8] == before[:8]).all()
    assert (rows == before).all()
    scores = scale * draw.normal(size=(100, 4)) @ made.astype(np.float64).T
    probabilities = np.exp(scores - scores.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    assert (scores[:, 8:] < scores[:, :8].max(1, keepdims=True)).all()
    assert (probabilities[:, 8:] <= 1 / 8 + 1e-6).all()


def test_an_export_suppresses_no_token_and_its_spare_rows_are_the_mean(finished, vocabulary):
    folder = finished.folder / "model"
    settings = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert set(settings) == {"decoder_start_token_id", "eos_token_id", "pad_token_id"}
    head = load_file(folder / "model.safetensors")["lm_head.weight"]
    assert len(head) > vocabulary.size
    np.testing.assert_allclose(
        head[vocabulary.size :],
        head[: vocabulary.size].mean(0)[None].repeat(len(head) - vocabulary.size, 0),
        atol=1e-6,
    )


@versions
@pytest.mark.parametrize(
    ("form", "tolerance"),
    [
        (Form(shard_bytes=60_000), 0),
        (Form("float16", 60_000), 0.01),
        (Form("bfloat16"), 0.1),
    ],
)
@pytest.mark.parametrize("name", ["untied", "tied"])
def test_shards_and_other_precisions_give_the_same_logits(folders, tmp_path, call, form, name, tolerance):
    model = load_model(folders[name])
    write_weights(tmp_path, arrays_of(model.parameters), model.config, form)
    write_settings(tmp_path, model.config, model.vocabulary, form, model_max_length=64)
    assert (tmp_path / "model.safetensors.index.json").exists() == (form.shard_bytes == 60_000)
    before = np.array(call("logits", str(folders[name])))
    found = np.array(call("logits", str(tmp_path)))
    np.testing.assert_allclose(found, before, atol=tolerance * np.abs(before).max(), rtol=0)


@versions
def test_the_encoder_alone_gives_the_vectors_of_the_whole_model(finished, vocabulary, tmp_path, call):
    copy = finished.replace(run_dir=shutil.copytree(finished.folder, tmp_path / "run"))
    folder = export(copy, encoder_only=True)
    assert folder == copy.folder / "model-encoder"
    whole = load_model(finished.folder / "model")
    ids = [[3, 9, 40, 5, 1], [8, 70, 1, 0, 0]]
    found = call("encoder", str(folder), ids)
    assert found["printed"] == "torch.Size([2, 16])\n"
    text = "Another, longer text"
    assert found["ids"][1] == [*vocabulary.encode_with_sentinels(text), vocabulary.eos_id]
    expected = np.asarray(encode(whole.parameters, whole.config, jnp.asarray(ids)))
    vectors = np.array(found["vectors"])
    np.testing.assert_allclose(vectors[0], expected[0], atol=1e-4)
    np.testing.assert_allclose(vectors[1, :3], expected[1, :3], atol=1e-4)
    names = load_file(folder / "model.safetensors").keys()
    assert "shared.weight" in names
    assert not any(name.startswith(("decoder.", "lm_head.")) for name in names)
    assert not (folder / "generation_config.json").exists()
    assert read_manifest(folder, "model").facts["parameters"] == found["parameters"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "The encoder of a T5 1.1 encoder-decoder" in card
    assert "feature-extraction" in card
    assert "generate" not in card


@versions
@pytest.mark.parametrize("name", ["untied", "tied"])
def test_a_model_saved_again_as_the_card_says_is_the_same_in_both(folders, tmp_path, call, name):
    call("save_again", str(folders[name]), str(tmp_path), True)
    before = in_5("logits", str(folders[name]))
    np.testing.assert_allclose(in_5("logits", str(tmp_path)), before, atol=1e-5)
    if call is in_4:
        np.testing.assert_allclose(in_4("logits", str(tmp_path)), before, atol=1e-5)


@pytest.mark.slow
@needs_4
def test_what_the_card_warns_of(folders, tmp_path):
    """transformers 5 saves an untied model so that 4.57 loads another one, unless the card's line is run."""
    before = in_5("logits", str(folders["untied"]))
    for as_printed in (False, True):
        in_5("save_again", str(folders["untied"]), str(tmp_path), as_printed)
        assert np.allclose(in_5("logits", str(tmp_path)), before, atol=1e-5)
        assert np.allclose(in_4("logits", str(tmp_path)), before, atol=1e-5) == as_printed


@pytest.mark.parametrize(
    ("settings", "sentences"),
    [
        ({}, ["The model writes `<extra_id_0>` and the missing text", '"Your text with a <extra_id_0>']),
        ({"name": "prefix_lm"}, ["The model continues the text.", '"The beginning of a text"']),
        (
            {"name": "ul2"},
            [
                'tokenizer("[R] Your text',
                "- `[R]`: the model writes",
                "- `[S]`: the model continues the text",
            ],
        ),
        (
            {"name": "mixture", "denoisers": ("0.25 prefix 1", "0.15 3 1 [A]")},
            ['tokenizer("[A] Your text', "- `[A]`: the model writes", "- no mode token: the model continues"],
        ),
        (
            {"name": "mixture", "denoisers": ("0.25 prefix 1", "0.15 3 1")},
            ["missing text, then `<extra_id_1>` and so on or continues the text."],
        ),
    ],
)
def test_the_example_is_for_the_objective(settings, sentences):
    text = usage(ModelConfig(128, 100, 8, 4, 8, 1, 1, 1), denoisers_of(ObjectiveSettings(**settings)))
    for sentence in sentences:
        assert sentence in text


def test_the_card_says_how_many_rows_are_spare():
    def text(rows: int, tied: bool = False) -> str:
        return usage(ModelConfig(rows, 100, 8, 4, 8, 1, 1, 1, tie_word_embeddings=tied), SPAN_CORRUPTION)

    assert "28 rows of the embedding have no token yet" in text(128)
    assert "1 row of the embedding has no token yet" in text(101)
    assert "any token that you add needs a new row" in text(100)
    assert "transformers 5 takes the head of every T5" in text(100)
    assert "tie_word_embeddings" not in text(128, tied=True)
