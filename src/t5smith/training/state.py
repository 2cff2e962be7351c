"""What training carries from step to step, and nothing else: all a checkpoint must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from t5smith.model.config import ModelConfig
from t5smith.model.params import Parameters, init
from t5smith.training.optimizer import init_optimizer


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Parameters and optimizer after `step` updates.

    Random keys are made of the seed and `step`, so nothing of them is kept.

    Attributes:
      step: updates so far; a batch that was passed over is none.
      parameters: the model.
      optimizer: its moments, and its own count of updates.
      average: exponential moving average of the parameters, if one is kept.
      usual_norm: running mean of the gradient's norm, by which an exploding one is known.
    """

    step: Int[Array, ""]
    parameters: Parameters
    optimizer: Any
    average: Parameters | None
    usual_norm: Float[Array, ""]

    @property
    def result(self) -> Parameters:
        """The model to measure and to keep: the average where there is one."""
        return self.parameters if self.average is None else self.average


def fresh_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    *,
    averaged: bool = False,
) -> TrainState:
    """A new model's state, before its first step."""
    parameters = init(config, key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        parameters=parameters,
        optimizer=init_optimizer(optimizer, parameters),
        average=jax.tree.map(jnp.copy, parameters) if averaged else None,
        usual_norm=jnp.zeros((), jnp.float32),
    )
