"""One training step: loss, gradient, update; jitted once, its state donated.

Shapes: B batch, S input and T target positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from t5smith.model.config import ModelConfig
from t5smith.model.loss import LossSums, batch_loss
from t5smith.model.params import Parameters
from t5smith.model.t5 import PAD_ID, Segments
from t5smith.train.optimizer import apply_gradient
from t5smith.train.schedule import Schedule
from t5smith.train.state import TrainState


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepMetrics:
    """What a step tells. `loss` is what was minimised: nll plus the weighted z-loss, both per token."""

    loss: Float[Array, ""]
    nll: Float[Array, ""]
    z_loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    target_tokens: Float[Array, ""]
    tokens: Float[Array, ""]


Ids = Array | np.ndarray
Step = Callable[[TrainState, Mapping[str, Ids]], tuple[TrainState, StepMetrics]]


def create_step(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    *,
    dtype: jnp.dtype,
    z_loss: float,
) -> Step:
    """The compiled step, which takes a batch's arrays by name.

    The state passed in is used up: its memory holds the state that comes back.
    """

    def step(state: TrainState, batch: Mapping[str, Int[Array, "_ _"]]) -> tuple[TrainState, StepMetrics]:
        input_ids, labels = batch["input_ids"], batch["labels"]
        packed = "label_segments" in batch
        segments = Segments(batch["input_segments"], batch["label_segments"]) if packed else None

        def loss(parameters: Parameters) -> tuple[Array, LossSums]:
            sums = batch_loss(parameters, config, input_ids, labels, dtype, segments, z_loss=z_loss)
            return sums.objective / sums.tokens, sums

        (value, sums), gradient = jax.value_and_grad(loss, has_aux=True)(state.parameters)
        parameters, optimizer_state = apply_gradient(optimizer, gradient, state.optimizer, state.parameters)
        metrics = StepMetrics(
            loss=value,
            nll=sums.nll / sums.tokens,
            z_loss=z_loss * sums.z / sums.tokens,
            accuracy=sums.correct / sums.tokens,
            gradient_norm=optax.tree.norm(gradient),
            learning_rate=schedule(state.step),
            target_tokens=sums.tokens,
            tokens=sums.tokens + (input_ids != PAD_ID).sum().astype(jnp.float32),
        )
        return TrainState(state.step + 1, parameters, optimizer_state), metrics

    return jax.jit(step, donate_argnums=0)
