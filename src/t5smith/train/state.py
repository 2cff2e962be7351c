"""What training carries from step to step, and nothing else: all a checkpoint must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from t5smith.model.config import ModelConfig
from t5smith.model.params import Parameters, init
from t5smith.train.optimizer import init_optimizer


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Parameters and optimizer after `step` steps. Batch `step` comes next."""

    step: Int[Array, ""]
    parameters: Parameters
    optimizer: Any


def fresh_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, key: PRNGKeyArray
) -> TrainState:
    """A new model's state, before its first step."""
    parameters = init(config, key)
    return TrainState(jnp.zeros((), jnp.int32), parameters, init_optimizer(optimizer, parameters))
