"""float16: the network in it equals PyTorch's, and a model that it does not hold is rejected."""

from __future__ import annotations

import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import T5ForConditionalGeneration

from programs import init
from t5smith.base.errors import T5smithError
from t5smith.exporting.export import export
from t5smith.exporting.half import INPUTS, compare, held_out_inputs, in_float16
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_names import arrays_of
from t5smith.interop.huggingface_save import Form, write_settings, write_weights
from t5smith.model.config import ModelConfig
from t5smith.training.setup import Run

CONFIG = ModelConfig(64, 60, 16, 8, 32, 2, 2, 2)


@pytest.fixture(scope="module")
def batch():
    draw = np.random.default_rng(0)
    inputs, targets = draw.integers(3, 60, (20, 9)), draw.integers(3, 60, (20, 5))
    inputs[3:7, 5:] = targets[2:5, 3:] = 0
    return inputs.astype(np.int32), targets.astype(np.int32)


@pytest.fixture(scope="module")
def parameters():
    return init(CONFIG, jax.random.key(0))


@pytest.mark.parametrize("tied", [False, True])
def test_it_computes_what_pytorch_computes_in_float16(finished, batch, tmp_path, tied):
    """Its logits are nearer to PyTorch's in float16 than those are to float32's."""
    vocabulary = load_model(finished.folder / "model").vocabulary
    config = replace(CONFIG, vocab_size=512, real_vocab_size=vocabulary.size, tie_word_embeddings=tied)
    p = init(config, jax.random.key(1))
    form = Form("float16")
    write_weights(tmp_path, arrays_of(p), config, form)
    write_settings(tmp_path, config, vocabulary, form, model_max_length=32)
    model = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float16).eval()
    inputs, targets = batch
    with torch.no_grad():
        theirs = (
            model(
                input_ids=torch.tensor(inputs).long(),
                attention_mask=torch.tensor(inputs != 0).long(),
                decoder_input_ids=torch.tensor(np.pad(targets, ((0, 0), (1, 0)))[:, :-1]).long(),
            )
            .logits.float()
            .numpy()[..., : vocabulary.size]
        )
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), p)
    ours = np.asarray(in_float16(half, config, jnp.asarray(inputs), jnp.asarray(targets)), np.float32)
    seen = targets != 0
    np.testing.assert_allclose(ours[seen], theirs[seen], atol=1e-2 * np.abs(theirs).max())
    assert compare(p, config, *batch)["largest_difference"] < 1e-2


def test_small_differences_are_measured(parameters, batch):
    found = compare(parameters, CONFIG, *batch)
    assert found["inputs"] == 20
    assert 1e-5 < found["largest_difference"] < 1e-2


def test_biases_of_layers_are_those_of_float32(batch):
    config = replace(CONFIG, bias_per_layer=True)
    p = init(config, jax.random.key(0))
    assert 1e-5 < compare(p, config, *batch)["largest_difference"] < 1e-2


def scaled(parameters, path, factor):
    def change(keys, leaf):
        return leaf * factor if ".".join(key.name for key in keys) == path else leaf

    return jax.tree_util.tree_map_with_path(change, parameters)


@pytest.mark.parametrize(
    ("path", "factor"),
    [
        ("embedding", 1e6),  # a weight
        ("encoder.layers.feed_forward.wo", 1e5),  # the sum over the layers of the encoder
        ("decoder.layers.feed_forward.wo", 1e5),
        ("encoder.layers.feed_forward.wi_1", 3e4),  # an activation within a layer
    ],
)
def test_what_overflows_is_rejected_with_the_reason(parameters, batch, path, factor):
    with pytest.raises(T5smithError, match=r"does not hold this model: \d+ of 20 inputs overflow") as error:
        compare(scaled(parameters, path, factor), CONFIG, *batch)
    assert "use bfloat16" in str(error.value).lower()


def test_large_differences_are_rejected(parameters, batch):
    """Attention that chooses one position by a small difference of large products."""
    sharp = scaled(parameters, "encoder.layers.self_attention.q", 1e3)
    with pytest.raises(T5smithError, match=r"changes the logits of 20 inputs by up to 0.*at most 0.01"):
        compare(sharp, CONFIG, *batch)


def test_fifty_inputs_of_the_held_out_text_decide(finished, tmp_path):
    assert len(held_out_inputs(Run(finished).setup)["targets"]) == INPUTS
    copy = finished.replace(
        run_dir=shutil.copytree(finished.folder, tmp_path / "run"), **{"export.dtype": "float16"}
    )
    folder = export(copy)
    model = load_model(folder)
    assert (folder / "model.safetensors").stat().st_size < 0.6 * (
        finished.folder / "model" / "model.safetensors"
    ).stat().st_size
    exact = load_model(finished.folder / "model").parameters
    for mine, theirs in zip(jax.tree.leaves(model.parameters), jax.tree.leaves(exact), strict=True):
        np.testing.assert_array_equal(mine, theirs.astype(jnp.float16).astype(jnp.float32))
    assert "the exported weights are float16" in (folder / "README.md").read_text(encoding="utf-8")
