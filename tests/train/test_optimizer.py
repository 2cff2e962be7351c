"""Stacked layers get the updates they would get one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5smith.model.config import ModelConfig
from t5smith.model.params import init, is_stacked
from t5smith.recipe import OptimizerSettings, ScheduleSettings
from t5smith.train.optimizer import (
    apply_gradient,
    create_optimizer,
    direction,
    init_optimizer,
    is_decayed,
    peak_learning_rate,
)
from t5smith.train.schedule import create_schedule

# 128 is where Adafactor begins to factor.
CONFIG = ModelConfig(
    256, 256, d_model=128, d_kv=64, d_ff=192, num_layers=3, num_decoder_layers=2, num_heads=2
)
LEARNING_RATE = 0.01


def uneven(tree, seed=0):
    """A tree like this one whose layers differ in scale by factors of ten."""
    leaves, structure = jax.tree.flatten(tree)
    flags = jax.tree.leaves(is_stacked(tree))
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    made = []
    for leaf, stacked, key in zip(leaves, flags, keys, strict=True):
        values = jax.random.normal(key, leaf.shape)
        if stacked:
            scale = 10.0 ** jnp.arange(leaf.shape[0]).astype(jnp.float32)
            values *= scale.reshape(-1, *(1,) * (leaf.ndim - 1))
        made.append(values)
    return jax.tree.unflatten(structure, made)


def apart(tree):
    """Every layer's matrix as a leaf of its own."""
    leaves, flags = jax.tree.leaves(tree), jax.tree.leaves(is_stacked(tree))
    return [list(leaf) if stacked else leaf for leaf, stacked in zip(leaves, flags, strict=True)]


REFERENCE = {
    "adafactor": lambda: optax.adafactor(LEARNING_RATE),
    "adamw": lambda: optax.adamw(LEARNING_RATE, 0.9, 0.98, 1e-8, weight_decay=0.0),
}


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_five_steps_equal_optax_on_layers_one_by_one(name):
    settings = OptimizerSettings(name=name, learning_rate=LEARNING_RATE, clip_norm=None)
    schedule = create_schedule(ScheduleSettings(name="constant"), LEARNING_RATE, 10)
    optimizer, reference = create_optimizer(settings, schedule), REFERENCE[name]()
    ours = uneven(init(CONFIG, jax.random.key(0)))
    theirs = apart(ours)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        state, their_state = init_optimizer(optimizer, ours), reference.init(theirs)
        for step in range(5):
            gradient = uneven(ours, seed=step + 1)
            ours, state = apply_gradient(optimizer, gradient, state, ours)
            updates, their_state = reference.update(apart(gradient), their_state, theirs)
            theirs = optax.apply_updates(theirs, updates)
    for a, b in zip(jax.tree.leaves(apart(ours)), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * float(jnp.abs(b).max()))


def test_adamwscale_is_adamw_times_the_rms_of_each_layer():
    p = uneven(init(CONFIG, jax.random.key(0)))
    gradient = uneven(p, seed=1)
    settings = OptimizerSettings(
        name="adamwscale", learning_rate=LEARNING_RATE, clip_norm=None, beta1=0.9, beta2=0.99
    )
    optimizer = create_optimizer(
        settings, create_schedule(ScheduleSettings(name="constant"), LEARNING_RATE, 10)
    )
    new, _ = apply_gradient(optimizer, gradient, init_optimizer(optimizer, p), p)
    for before, after, g in zip(*(jax.tree.leaves(apart(tree)) for tree in (p, new, gradient)), strict=True):
        w, g = np.asarray(before, np.float64), np.asarray(g, np.float64)
        # The first step of Adam, bias corrected, is the sign of the gradient but for epsilon.
        expected = w - LEARNING_RATE * max(np.sqrt((w**2).mean()), 1e-3) * g / (np.abs(g) + 1e-8)
        np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_treating_the_stack_as_one_array_would_be_wrong():
    """What the mapping over layers is for: the plain rule gives another update to the same stack."""
    p, rule = uneven(init(CONFIG, jax.random.key(0))), direction(OptimizerSettings(name="adafactor"))
    stack = p.encoder.layers.feed_forward.wi_0
    gradient = uneven(p, seed=1).encoder.layers.feed_forward.wi_0
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        whole, _ = rule.update(gradient, rule.init(stack), stack)
        layer, _ = rule.update(gradient[0], rule.init(stack[0]), stack[0])
    assert float(jnp.abs(whole[0] / layer).max()) > 5


def test_gradients_are_clipped_over_the_whole_tree():
    p = init(CONFIG, jax.random.key(0))
    gradient = jax.tree.map(lambda leaf: 100 * jnp.ones_like(leaf), p)
    schedule = create_schedule(ScheduleSettings(name="constant"), 1.0, 10)
    settings = OptimizerSettings(name="adamw", learning_rate=1.0, clip_norm=1.0, epsilon=1e3)
    optimizer = create_optimizer(settings, schedule)
    new, _ = apply_gradient(optimizer, gradient, init_optimizer(optimizer, p), p)
    # With an epsilon this large the step is the clipped gradient over it.
    moved = sum(
        float(((a - b) ** 2).sum()) for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(new), strict=True)
    )
    assert moved**0.5 == pytest.approx(1e-3, rel=0.05)


def test_weight_decay_is_for_matrices_alone():
    decayed = is_decayed(init(CONFIG, jax.random.key(0)))
    assert decayed.embedding
    assert decayed.head
    assert decayed.encoder.layers.feed_forward.wo
    assert not decayed.encoder.relative_attention_bias
    assert not decayed.encoder.layers.feed_forward_norm
    assert not decayed.decoder.final_norm


def test_each_optimizer_has_its_own_learning_rate_unless_told():
    assert peak_learning_rate(OptimizerSettings(name="adafactor")) == 0.01
    assert peak_learning_rate(OptimizerSettings(name="adamw")) == 0.001
    assert peak_learning_rate(OptimizerSettings(name="adamw", learning_rate=0.5)) == 0.5
