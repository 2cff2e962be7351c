"""UMT5, with a position bias in each layer: trained, decoded and exported."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from programs import CPU, forward, init
from t5smith.evaluation.scores import evaluate
from t5smith.exporting.export import export
from t5smith.interop.huggingface_load import load_model
from t5smith.model.config import ModelConfig
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
from t5smith.training.optimizer import apply_gradient, create_optimizer, init_optimizer, is_decayed
from t5smith.training.schedule import create_schedule
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


@pytest.mark.slow
def test_muon_leaves_the_biases_of_layers_to_the_other_rule():
    """They are stacked tables, not matrices of a product: the first step of Adam is the gradient's sign."""
    schedule = create_schedule(ScheduleSettings(name="constant"), 1.0, 10)
    optimizer = create_optimizer(
        OptimizerSettings(name="muon", clip_norm=None, weight_decay=0.0),
        schedule,
        CONFIG.num_heads,
        CPU.backend,
    )
    p = init(CONFIG, jax.random.key(0))
    gradient = jax.tree.map(
        lambda leaf: jnp.sin(1.0 + jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape), p
    )
    state = init_optimizer(optimizer, p)
    after = jax.jit(partial(apply_gradient, optimizer))(gradient, state, p, jnp.asarray(True))[0]
    for stack in ("encoder", "decoder"):
        before, found, slope = (
            getattr(tree, stack).layers.relative_attention_bias for tree in (p, after, gradient)
        )
        np.testing.assert_allclose(before - found, np.sign(slope), atol=1e-2)
    assert not is_decayed(p).encoder.layers.relative_attention_bias


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
