"""UMT5, with a position bias in each layer: trained, decoded and exported."""

from __future__ import annotations

import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from t5smith.generation.greedy import greedy

from programs import forward, init
from t5smith.evaluation.scores import evaluate
from t5smith.exporting.export import export
from t5smith.interop.huggingface_load import load_model
from t5smith.model.config import ModelConfig
from t5smith.model.t5 import mask_padded_rows
from t5smith.training.setup import Run
from t5smith.training.train import train
from tiny import tiny_recipe

CONFIG = ModelConfig(128, 90, 32, 8, 64, 2, 3, 4, bias_per_layer=True)


def test_a_umt5_is_trained_and_exported(prepared, tmp_path):
    recipe = tiny_recipe(
        shutil.copytree(prepared, tmp_path / "run"),
        **{"model.relative_attention_bias": "per-layer", "train.optimizer.name": "muon"},
    )
    train(recipe)
    evaluate(recipe)
    folder = export(recipe)
    assert "A UMT5 encoder-decoder" in (folder / "README.md").read_text(encoding="utf-8")
    model = load_model(folder)
    assert model.config.bias_per_layer
    before = Run(recipe).setup.first_state().parameters
    for stack in ("encoder", "decoder"):
        tables = [getattr(p, stack).layers.relative_attention_bias for p in (before, model.parameters)]
        assert tables[0].shape == (2, 32, 2)
        # Each layer's own table is trained.
        assert (np.abs(tables[1] - tables[0]).max(axis=(1, 2)) > 0).all()


def test_greedy_decoding_with_a_cache_uses_the_bias_of_each_layer():
    p = init(CONFIG, jax.random.key(3))
    layers = p.decoder.layers
    # Biases that decide: without them, or in another order, the tokens are others.
    p = replace(
        p,
        decoder=replace(
            p.decoder, layers=replace(layers, relative_attention_bias=5 * layers.relative_attention_bias)
        ),
    )
    inputs = jax.random.randint(jax.random.key(4), (5, 12), 2, 90).at[2:, 8:].set(0)
    ours = np.asarray(greedy(p, CONFIG, inputs, length=8, eos_id=127))
    scores = forward(p, CONFIG, inputs, jnp.pad(jnp.asarray(ours), ((0, 0), (1, 0)))[:, :-1])
    np.testing.assert_array_equal(ours, jnp.argmax(mask_padded_rows(scores, CONFIG), -1))


def test_equal_tables_in_all_layers_are_a_shared_one():
    own = init(CONFIG, jax.random.key(0))
    shared_config = replace(CONFIG, bias_per_layer=False)

    def with_equal(stack):
        layers = stack.layers
        table = layers.relative_attention_bias[:1]
        equal = jnp.broadcast_to(table, layers.relative_attention_bias.shape)
        return (
            replace(stack, layers=replace(layers, relative_attention_bias=equal)),
            replace(
                stack,
                layers=replace(layers, relative_attention_bias=None),
                relative_attention_bias=table[0],
            ),
        )

    (encoder, shared_encoder), (decoder, shared_decoder) = map(with_equal, (own.encoder, own.decoder))
    ids = jax.random.randint(jax.random.key(1), (2, 20), 1, 90)
    logits = forward(replace(own, encoder=encoder, decoder=decoder), CONFIG, ids, ids)
    shared = forward(replace(own, encoder=shared_encoder, decoder=shared_decoder), shared_config, ids, ids)
    np.testing.assert_allclose(logits, shared, atol=1e-4)
    assert not np.allclose(forward(own, CONFIG, ids, ids), shared, atol=1e-2)
