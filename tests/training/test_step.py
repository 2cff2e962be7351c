"""The figures of a step are those of its batch and update."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from programs import CPU, batch_loss
from t5smith.model.config import ModelConfig
from t5smith.model.loss import token_losses
from t5smith.model.t5 import forward, mask_padded_rows, shift_right
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
from t5smith.training.optimizer import create_optimizer
from t5smith.training.schedule import create_schedule
from t5smith.training.state import fresh_state
from t5smith.training.step import StepSettings, create_step

CONFIG = ModelConfig(128, 100, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=2)
Z_LOSS = 0.01


def test_the_figures_of_a_step_are_those_of_its_batch_and_gradient():
    schedule = create_schedule(ScheduleSettings(name="constant", warmup_steps=4), 0.1, 10)
    optimizer = create_optimizer(OptimizerSettings(name="adamw"), schedule, CONFIG.num_heads, CPU.backend)
    state = jax.jit(lambda: fresh_state(CONFIG, optimizer, jax.random.key(0)))()
    inputs = jax.random.randint(jax.random.key(1), (3, 9), 2, 100).at[1, 6:].set(0)
    targets = jax.random.randint(jax.random.key(2), (3, 5), 2, 100).at[2, 3:].set(0)

    def loss(parameters):
        scores = forward(parameters, CONFIG, inputs, shift_right(targets))
        nll, log_z, _ = token_losses(mask_padded_rows(scores, CONFIG), targets)
        weight = (targets != 0).astype(jnp.float32)
        return ((nll + Z_LOSS * jnp.square(log_z)) * weight).sum() / weight.sum()

    expected, gradient = jax.jit(jax.value_and_grad(loss))(state.parameters)
    norm = np.sqrt(sum(float(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(gradient)))
    sums = batch_loss(state.parameters, CONFIG, inputs, targets)
    step = create_step(CONFIG, optimizer, schedule, StepSettings(CPU, z_loss=Z_LOSS))
    state, metrics = step(state, {"input_ids": inputs, "targets": targets})

    assert float(metrics.loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(metrics.nll) == pytest.approx(float(sums.nll / sums.tokens), rel=1e-5)
    assert float(metrics.nll + metrics.z_loss) == pytest.approx(float(metrics.loss), rel=1e-5)
    # Of the gradient as it came, before it was clipped.
    assert float(metrics.gradient_norm) == pytest.approx(norm, rel=1e-4)
    assert float(metrics.learning_rate) == pytest.approx(0.025)
    assert float(metrics.target_tokens) == 13
    assert float(metrics.tokens) == 13 + 24
    assert int(state.step) == 1
