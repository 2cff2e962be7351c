"""Parts, and what is computed anew, change the memory that a step takes and not what it does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5smith.model.config import ModelConfig
from t5smith.train.optimizer import create_optimizer
from t5smith.train.schedule import create_schedule
from t5smith.train.state import fresh_state
from t5smith.train.step import FOLLOWED_STEPS, StepSettings, create_step
from t5smith.training_settings import OptimizerSettings, ScheduleSettings

CONFIG = ModelConfig(128, 100, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=2)
FLOAT32 = jnp.dtype(jnp.float32)


def batches(steps, rows=8):
    """Batches whose rows have different numbers of targets."""
    made = []
    for b in range(steps):
        inputs = jax.random.randint(jax.random.key(2 * b), (rows, 12), 2, 100)
        labels = jax.random.randint(jax.random.key(2 * b + 1), (rows, 7), 2, 100)
        lengths = jnp.arange(rows) % 6 + 2
        made.append(
            {
                "input_ids": np.asarray(jnp.where(jnp.arange(12)[None] < 2 * lengths[:, None], inputs, 0)),
                "labels": np.asarray(jnp.where(jnp.arange(7)[None] < lengths[:, None], labels, 0)),
            }
        )
    return made


def trained(steps=20, optimizer="adamw", given=None, **settings):
    """Losses of so many steps, and the state after them."""
    schedule = create_schedule(ScheduleSettings(name="constant"), 0.003, 100)
    rule = create_optimizer(OptimizerSettings(name=optimizer), schedule)
    averaged = settings.get("average_decay") is not None
    state = fresh_state(CONFIG, rule, jax.random.key(0), averaged=averaged)
    step = create_step(CONFIG, rule, schedule, StepSettings(FLOAT32, **settings))
    metrics = []
    for batch in given or batches(steps):
        state, told = step(state, batch)
        metrics.append(
            jax.device_get({"loss": told.loss, "applied": told.applied, "norm": told.gradient_norm})
        )
    return metrics, state


def losses(**settings):
    return [float(told["loss"]) for told in trained(**settings)[0]]


@pytest.fixture(scope="module")
def plain():
    return losses()


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulation_gives_the_same_losses(plain, parts):
    np.testing.assert_allclose(losses(accumulation=parts), plain, rtol=0, atol=1e-5)
    assert plain[-1] < plain[0]


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_gives_the_same_losses(plain, remat):
    np.testing.assert_allclose(losses(remat=remat), plain, rtol=0, atol=1e-5)
    np.testing.assert_allclose(losses(remat=remat, accumulation=4), plain, rtol=0, atol=1e-5)


def test_a_mean_of_means_would_not():
    """What the sum over tokens is for: the parts of these batches have different numbers of targets."""
    (batch,) = batches(1)
    counts = (batch["labels"] != 0).reshape(4, -1).sum(axis=1)
    assert len(set(counts.tolist())) > 1


def test_remat_full_takes_less_memory_than_none():
    # On CPU layers are unrolled, so only what is kept between the passes differs.
    config = ModelConfig(
        128, 100, d_model=64, d_kv=16, d_ff=256, num_layers=6, num_decoder_layers=1, num_heads=4
    )
    schedule = create_schedule(ScheduleSettings(name="constant"), 0.003, 100)
    rule = create_optimizer(OptimizerSettings(name="adamw"), schedule)
    shapes = jax.eval_shape(lambda: fresh_state(config, rule, jax.random.key(0)))
    batch = {"input_ids": np.ones((16, 64), np.int32), "labels": np.ones((16, 8), np.int32)}
    takes = {
        remat: create_step(config, rule, schedule, StepSettings(FLOAT32, remat=remat))
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
    same = batches(1) * 2
    first, second = (
        float(told["loss"]) for told in trained(given=same, dropout_rate=0.5, optimizer="adamw")[0]
    )
    assert first != second


def test_the_average_follows_the_parameters():
    _, state = trained(steps=5, average_decay=0.5)
    expected, parameters = None, None
    for step in range(5):
        _, now = trained(steps=step + 1)
        parameters = now.parameters
        start = fresh_state(
            CONFIG, create_optimizer(OptimizerSettings(), lambda _: jnp.float32(0)), jax.random.key(0)
        )
        expected = start.parameters if expected is None else expected
        stays = min(0.5, (1 + step) / (10 + step))
        expected = jax.tree.map(
            lambda old, new, stays=stays: stays * old + (1 - stays) * new, expected, parameters
        )
    for ours, wanted in zip(jax.tree.leaves(state.average), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)
    assert state.result is state.average
    assert trained(steps=1)[1].result is not None


def test_an_exploding_gradient_is_left_out_once_the_usual_is_known():
    quiet = batches(1) * (FOLLOWED_STEPS + 1)
    metrics, state = trained(given=quiet, explosion_factor=1.0001)
    # The norms differ from the running mean by more than that, as soon as it is looked at.
    assert [told["applied"] for told in metrics[:FOLLOWED_STEPS]] == [1.0] * FOLLOWED_STEPS
    usual = float(state.usual_norm)
    last = metrics[-1]
    assert last["applied"] == float(last["norm"] <= 1.0001 * usual)
    _, free = trained(given=quiet, explosion_factor=1000.0)
    assert int(free.step) == FOLLOWED_STEPS + 1
