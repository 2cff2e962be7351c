"""Stacked layers get the updates they would get one by one."""

from __future__ import annotations

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from programs import CPU, init
from t5smith.model.config import ModelConfig
from t5smith.model.params import is_stacked
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
from t5smith.training.adafactor import WIDE, adafactor
from t5smith.training.optimizer import (
    DEFAULT_LEARNING_RATE,
    apply_gradient,
    create_optimizer,
    init_optimizer,
    is_decayed,
    peak_learning_rate,
)
from t5smith.training.schedule import create_schedule

# 128 is where Adafactor begins to factor.
CONFIG = ModelConfig(
    256, 256, d_model=128, d_kv=64, d_ff=192, num_layers=3, num_decoder_layers=2, num_heads=2
)
LEARNING_RATE = 0.01


@partial(jax.jit, static_argnames="seed")
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
    "adafactor": lambda _: optax.adafactor(LEARNING_RATE),
    "adamw": lambda _: optax.adamw(LEARNING_RATE, 0.9, 0.98, 1e-8, weight_decay=0.0),
}


TRUE = np.True_


@cache
def parameters_and_gradients():
    before = uneven(init(CONFIG, jax.random.key(0)))
    return before, [uneven(before, seed=step + 1) for step in range(5)]


def five_steps(name, **settings):
    """Parameters and gradients before, and parameters after, five steps on layers of unequal scale."""
    settings = OptimizerSettings(name=name, learning_rate=LEARNING_RATE, clip_norm=None, **settings)
    schedule = create_schedule(ScheduleSettings(name="constant"), LEARNING_RATE, 10)
    optimizer = create_optimizer(settings, schedule, CONFIG.num_heads, CPU.backend)
    before, gradients = parameters_and_gradients()
    after, state = before, jax.jit(partial(init_optimizer, optimizer))(before)
    apply = jax.jit(partial(apply_gradient, optimizer))
    for gradient in gradients:
        after, state, _ = apply(gradient, state, after, TRUE)
    return before, gradients, after


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "adafactor")) for name in sorted(REFERENCE)],
)
def test_five_steps_equal_optax_on_layers_one_by_one(name):
    before, gradients, after = five_steps(name)
    reference, theirs = REFERENCE[name](before), apart(before)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        state = jax.jit(reference.init)(theirs)

        @jax.jit
        def update(gradient, state, theirs):
            updates, state = reference.update(apart(gradient), state, theirs)
            return optax.apply_updates(theirs, updates), state

        for gradient in gradients:
            theirs, state = update(gradient, state, theirs)
    for a, b in zip(jax.tree.leaves(apart(after)), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * float(jnp.abs(b).max()))


def test_adafactor_of_wide_and_tall_matrices_equals_optax():
    shapes = [(130, 9_000), (9_000, 130), (100, 9_000), (9_000,), (160, 160)]
    keys = jax.random.split(jax.random.key(0), 3)
    parameters, *gradients = ([jax.random.normal(key, shape) for shape in shapes] for key in keys)
    ours, theirs = adafactor(CPU.backend), optax.adafactor(learning_rate=None)
    assert any(shape[1:] >= (WIDE[CPU.backend],) for shape in shapes)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        states = ours.init(parameters), theirs.init(parameters)
        for gradient in gradients:
            found, state = jax.jit(ours.update)(gradient, states[0], parameters, applied=TRUE)
            expected, their_state = jax.jit(theirs.update)(gradient, states[1], parameters)
            states = state, their_state
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a, -b, rtol=1e-6, atol=1e-6 * float(jnp.abs(b).max()))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "muon")) for name in DEFAULT_LEARNING_RATE],
)
def test_an_update_that_is_not_made_changes_nothing(name):
    settings = OptimizerSettings(name=name, weight_decay=0.1)
    schedule = create_schedule(ScheduleSettings(name="constant"), 0.1, 10)
    optimizer = create_optimizer(settings, schedule, CONFIG.num_heads, CPU.backend)
    parameters, gradients = parameters_and_gradients()
    apply = jax.jit(partial(apply_gradient, optimizer))
    state = jax.jit(partial(init_optimizer, optimizer))(parameters)
    parameters, state, _ = apply(gradients[0], state, parameters, TRUE)
    unusable = jax.tree.map(lambda leaf: leaf * jnp.nan, gradients[1])
    for kept, before in zip(
        jax.tree.leaves(apply(unusable, state, parameters, np.False_)[:2]),
        jax.tree.leaves((parameters, state)),
        strict=True,
    ):
        np.testing.assert_array_equal(kept, before)


def test_adamw_writes_over_its_state_without_a_copy():
    config = dataclasses.replace(CONFIG, d_model=256, vocab_size=2_048, real_vocab_size=2_048)
    parameters = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    schedule = create_schedule(ScheduleSettings(name="constant"), 0.1, 10)
    optimizer = create_optimizer(OptimizerSettings(name="adamw"), schedule, config.num_heads, CPU.backend)
    state = jax.eval_shape(partial(init_optimizer, optimizer), parameters)

    def update(parameters, state, gradient, applied):
        return apply_gradient(optimizer, gradient, state, parameters, applied)[:2]

    program = jax.jit(update, donate_argnums=(0, 1)).lower(
        parameters, state, parameters, jax.ShapeDtypeStruct((), bool)
    )
    found = program.compile().memory_analysis()
    assert found.temp_size_in_bytes < found.alias_size_in_bytes / 20


def test_five_steps_of_adamwscale_equal_a_computation_in_float64():
    beta1, beta2, epsilon, decay = 0.9, 0.99, 1e-8, 0.1
    before, gradients, after = five_steps(
        "adamwscale", beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=decay
    )
    decayed = jax.tree.map(
        lambda leaf, flag, stacked: [flag] * leaf.shape[0] if stacked else flag,
        before,
        is_decayed(before),
        is_stacked(before),
    )
    for position, (start, end, flag) in enumerate(
        zip(*(jax.tree.leaves(tree) for tree in (apart(before), apart(after), decayed)), strict=True)
    ):
        w = np.asarray(start, np.float64)
        m, v = np.zeros_like(w), np.zeros_like(w)
        for step, gradient in enumerate(gradients, 1):
            g = np.asarray(jax.tree.leaves(apart(gradient))[position], np.float64)
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
            adam = (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + epsilon)
            w = w - LEARNING_RATE * (max(np.sqrt((w**2).mean()), 1e-3) * adam + flag * decay * w)
        np.testing.assert_allclose(end, w, rtol=1e-6, atol=1e-6 * np.abs(w).max())


def test_treating_the_stack_as_one_array_would_be_wrong():
    """What the mapping over layers is for: the plain rule gives another update to the same stack."""
    p = uneven(init(CONFIG, jax.random.key(0)))
    rule = optax.adafactor(learning_rate=None)
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
    optimizer = create_optimizer(settings, schedule, CONFIG.num_heads, CPU.backend)
    new, _, _ = jax.jit(
        lambda p: apply_gradient(optimizer, gradient, init_optimizer(optimizer, p), p, jnp.asarray(TRUE))
    )(p)
    # With an epsilon this large the step is the clipped gradient over it.
    moved = sum(
        float(((a - b) ** 2).sum()) for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(new), strict=True)
    )
    assert moved**0.5 == pytest.approx(1e-3, rel=0.05)


def test_weight_decay_is_for_matrices_only():
    decayed = is_decayed(init(CONFIG, jax.random.key(0)))
    assert decayed.embedding
    assert decayed.head
    assert decayed.encoder.layers.feed_forward.wo
    assert not decayed.encoder.relative_attention_bias
    assert not decayed.encoder.layers.feed_forward_norm
    assert not decayed.decoder.final_norm
    own = is_decayed(init(dataclasses.replace(CONFIG, bias_per_layer=True), jax.random.key(0)))
    assert not own.decoder.layers.relative_attention_bias


def test_each_optimizer_has_its_own_default_learning_rate():
    recipe = Recipe(name="rate")
    assert peak_learning_rate(recipe.replace(**{"train.optimizer.name": "adafactor"})) == 0.01
    assert peak_learning_rate(recipe.replace(**{"train.optimizer.name": "adamw"})) == 0.001
    assert peak_learning_rate(recipe.replace(**{"train.optimizer.learning_rate": 0.5}), 100) == 0.5


@pytest.mark.parametrize(
    ("lengths", "tokens"),
    [
        ({}, 512),
        ({"objective.window_length": 64}, 64),
        ({"objective.input_length": 64, "objective.window_length": 30}, 64),
    ],
)
def test_the_default_learning_rate_is_that_of_the_tokens(lengths, tokens):
    recipe = Recipe(name="rate").replace(**lengths, **{"train.batch_size": 16, "train.steps": 1})
    steps = 5_120_000 // (16 * tokens)
    assert peak_learning_rate(recipe, steps) == 0.027
    assert peak_learning_rate(recipe.replace(**{"train.steps": steps})) == 0.027
    assert peak_learning_rate(recipe, steps * 4) == 0.013


@pytest.mark.parametrize("name", sorted(DEFAULT_LEARNING_RATE))
def test_the_default_learning_rate_falls_with_the_steps(name):
    recipe = Recipe(name="rate").replace(**{"train.optimizer.name": name, "train.batch_size": 8})
    rates = [peak_learning_rate(recipe, 10**power) for power in range(7)]
    assert rates == sorted(rates, reverse=True)
    assert rates[1] > rates[-1]
    assert rates[0] == DEFAULT_LEARNING_RATE[name][2]
    assert rates[-1] == DEFAULT_LEARNING_RATE[name][1]
