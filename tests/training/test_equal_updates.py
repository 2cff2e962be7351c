"""Accumulation and rematerialisation change the memory that a step takes, not its result."""

from __future__ import annotations

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from programs import CPU, init
from t5smith.model.config import ModelConfig
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
from t5smith.training.optimizer import create_optimizer
from t5smith.training.schedule import create_schedule
from t5smith.training.state import fresh_state
from t5smith.training.step import NORM_EMA_WARMUP_STEPS, StepSettings, create_step

CONFIG = ModelConfig(128, 100, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2)


def batches(steps, rows=8):
    """Batches whose rows have different numbers of targets."""
    made = []
    for b in range(steps):
        inputs = jax.random.randint(jax.random.key(2 * b), (rows, 12), 2, 100)
        targets = jax.random.randint(jax.random.key(2 * b + 1), (rows, 7), 2, 100)
        lengths = jnp.arange(rows) % 6 + 2
        made.append(
            {
                "input_ids": np.asarray(jnp.where(jnp.arange(12)[None] < 2 * lengths[:, None], inputs, 0)),
                "targets": np.asarray(jnp.where(jnp.arange(7)[None] < lengths[:, None], targets, 0)),
            }
        )
    return made


@cache
def programs_of(optimizer, settings):
    """The compiled functions that make the first state and take a step."""
    schedule = create_schedule(ScheduleSettings(name="constant"), 0.003, 100)
    rule = create_optimizer(OptimizerSettings(name=optimizer), schedule, CONFIG.num_heads, CPU.backend)
    averaged = settings.average_decay is not None
    fresh = jax.jit(lambda: fresh_state(CONFIG, rule, jax.random.key(0), averaged=averaged))
    return fresh, create_step(CONFIG, rule, schedule, settings)


def trained(steps=20, optimizer="adamw", given=None, **settings):
    """The figures of each step, and the state after them."""
    fresh, step = programs_of(optimizer, StepSettings(CPU, **settings))
    state = fresh()
    metrics = []
    for batch in given or batches(steps):
        state, reported = step(state, batch)
        metrics.append(
            jax.device_get(
                {"loss": reported.loss, "applied": reported.applied, "norm": reported.gradient_norm}
            )
        )
    return metrics, state


def losses(**settings):
    return [float(reported["loss"]) for reported in trained(**settings)[0]]


@pytest.fixture(scope="module")
def plain():
    return losses()


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulation_gives_the_same_losses(plain, parts):
    np.testing.assert_allclose(losses(accumulation=parts), plain, rtol=0, atol=1e-5)
    assert plain[-1] < plain[0]


@pytest.mark.slow
def test_accumulation_gives_the_same_losses_with_the_default_optimizer():
    default = OptimizerSettings().name
    parts = losses(accumulation=4, optimizer=default)
    np.testing.assert_allclose(parts, losses(optimizer=default), rtol=0, atol=1e-5)
    assert parts[-1] < parts[0]


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_gives_the_same_losses(plain, remat):
    np.testing.assert_allclose(losses(remat=remat), plain, rtol=0, atol=1e-5)
    np.testing.assert_allclose(losses(remat=remat, accumulation=4), plain, rtol=0, atol=1e-5)


def test_a_mean_of_means_would_not():
    """What the sum over tokens is for: the parts of these batches have different numbers of targets."""
    (batch,) = batches(1)
    parts = [{name: rows[start : start + 2] for name, rows in batch.items()} for start in range(0, 8, 2)]
    of_parts = [trained(given=[part])[0][0]["loss"] for part in parts]
    whole = trained(given=[batch])[0][0]["loss"]
    assert abs(np.mean(of_parts) - whole) > 1e-3
    tokens = [(part["targets"] != 0).sum() for part in parts]
    assert np.average(of_parts, weights=tokens) == pytest.approx(whole, abs=1e-5)


@pytest.mark.slow
def test_remat_full_takes_less_memory_than_none():
    config = ModelConfig(
        128, 100, d_model=64, d_kv=16, d_ff=256, num_layers=6, num_decoder_layers=1, num_heads=4
    )
    schedule = create_schedule(ScheduleSettings(name="constant"), 0.003, 100)
    rule = create_optimizer(OptimizerSettings(name="adamw"), schedule, config.num_heads, CPU.backend)
    shapes = jax.eval_shape(lambda: fresh_state(config, rule, jax.random.key(0)))
    batch = {"input_ids": np.ones((16, 64), np.int32), "targets": np.ones((16, 8), np.int32)}
    takes = {
        remat: create_step(config, rule, schedule, StepSettings(CPU, remat=remat))
        .lower(shapes, batch)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for remat in ("none", "full")
    }
    assert takes["full"] < 0.7 * takes["none"]


def test_dropout_is_repeatable_and_differs_by_step_and_seed():
    once, again = losses(steps=3, dropout_rate=0.1), losses(steps=3, dropout_rate=0.1)
    assert once == again
    assert once != losses(steps=3, dropout_rate=0.1, seed=1)
    assert once != losses(steps=3)
    fresh, step = programs_of("adamw", StepSettings(CPU, dropout_rate=0.1))
    states = [dataclasses.replace(fresh(), step=jnp.int32(number)) for number in (0, 1)]
    first, second = (float(step(state, batches(1)[0])[1].loss) for state in states)
    assert first == once[0]
    assert first != second


@pytest.mark.slow
def test_the_parts_of_a_batch_have_dropout_masks_of_their_own():
    """Else two parts with the same rows would have the loss of one."""
    (part,) = batches(1)
    twice = {name: np.concatenate([rows, rows]) for name, rows in part.items()}
    of_one = trained(given=[part], dropout_rate=0.1)[0][0]["loss"]
    of_two = trained(given=[twice], dropout_rate=0.1, accumulation=2)[0][0]["loss"]
    assert abs(of_one - of_two) > 1e-4


def test_the_moving_average_of_the_parameters():
    _, state = trained(steps=5, average_decay=0.5)
    expected, parameters = None, None
    for step in range(5):
        _, now = trained(steps=step + 1)
        parameters = now.parameters
        expected = init(CONFIG, jax.random.key(0)) if expected is None else expected
        stays = min(0.5, (1 + step) / (10 + step))
        expected = jax.tree.map(
            lambda old, new, stays=stays: stays * old + (1 - stays) * new, expected, parameters
        )
    for ours, wanted in zip(jax.tree.leaves(state.ema_params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)
    assert state.eval_params is state.ema_params
    without = trained(steps=1)[1]
    assert without.ema_params is None
    assert without.eval_params is without.parameters


@pytest.mark.parametrize(
    ("steps", "usual", "applied"),
    [
        (NORM_EMA_WARMUP_STEPS, 1e-6, False),
        (NORM_EMA_WARMUP_STEPS - 1, 1e-6, True),
        (NORM_EMA_WARMUP_STEPS, 1e6, True),
    ],
)
def test_an_exploding_gradient_is_skipped_after_the_first_steps(steps, usual, applied):
    fresh, step = programs_of("adamw", StepSettings(CPU, explosion_factor=10.0))
    state = fresh()
    state = dataclasses.replace(state, step=jnp.int32(steps), grad_norm_ema=jnp.float32(usual))
    before = [np.asarray(leaf) for leaf in jax.tree.leaves((state.parameters, state.optimizer))]
    after, reported = step(state, batches(1)[0])
    left = [np.asarray(leaf) for leaf in jax.tree.leaves((after.parameters, after.optimizer))]
    unchanged = all((x == y).all() for x, y in zip(before, left, strict=True))
    assert bool(reported.applied) is applied
    assert unchanged is not applied
    # A skipped gradient does not change the average norm.
    assert (float(after.grad_norm_ema) == np.float32(usual)) is not applied


def test_the_reported_loss_is_what_was_minimised():
    (batch,) = batches(1)
    plain, smooth = (trained(given=[batch], label_smoothing=share)[0][0]["loss"] for share in (0.0, 0.3))
    # At the start the model knows nothing: nearly all the difference is in how sure it happens to be.
    assert plain != smooth
    metrics, _ = trained(given=[batch] * 40, label_smoothing=0.3)
    # With 99 ids the smoothed target's own entropy is a floor that the loss cannot go below.
    off = 0.3 / 100
    floor = -((0.7 + off) * np.log(0.7 + off) + 99 * off * np.log(off))
    assert metrics[-1]["loss"] > floor
    assert trained(given=[batch] * 40)[0][-1]["loss"] < floor
