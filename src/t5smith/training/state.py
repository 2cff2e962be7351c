"""What training carries from step to step, all of it in each checkpoint: arrays, and the skipped batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from t5smith.model.config import ModelConfig
from t5smith.model.params import Parameters, init
from t5smith.parallel.rules import state_shardings, with_shardings
from t5smith.training.optimizer import init_optimizer


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Parameters and optimizer after `step` updates.

    Random keys are derived from the seed and `step`, so none is kept.

    Attributes:
      step: number of updates; a skipped batch is not counted.
      parameters: the model.
      optimizer: its moments, and its own count of updates.
      ema_params: exponential moving average of the parameters, or None.
      grad_norm_ema: exponential moving average of the gradient's norm, to detect an exploding one.
    """

    step: Int[Array, ""]
    parameters: Parameters
    optimizer: Any
    ema_params: Parameters | None
    grad_norm_ema: Float[Array, ""]

    @property
    def eval_params(self) -> Parameters:
        """The parameters to evaluate and export: the moving average if there is one."""
        return self.parameters if self.ema_params is None else self.ema_params


def fresh_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    *,
    averaged: bool = False,
    spread: bool = False,
) -> TrainState:
    """The state of a new model before its first step, with a moving average if `averaged`.

    `spread`: see :func:`t5smith.model.params.init`.
    """
    return state_of(init(config, key, spread=spread), optimizer, averaged=averaged)


def state_of(
    parameters: Parameters, optimizer: optax.GradientTransformation, *, averaged: bool = False
) -> TrainState:
    """The state before the first step of a training that starts from given parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        parameters=parameters,
        optimizer=init_optimizer(optimizer, parameters),
        ema_params=jax.tree.map(jnp.copy, parameters) if averaged else None,
        grad_norm_ema=jnp.zeros((), jnp.float32),
    )


def started_state(
    config: ModelConfig,
    parameters: Parameters,
    optimizer: optax.GradientTransformation,
    averaged: bool,
    mesh: Mesh | None,
) -> TrainState:
    """:func:`state_of` parameters, which may be deleted, on the devices of a mesh if there is one."""
    start = partial(state_of, optimizer=optimizer, averaged=averaged)
    if mesh is None:
        return jax.jit(start, donate_argnums=0)(parameters)
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, optimizer, averaged, mesh))
    parameters = jax.tree.map(jax.device_put, parameters, where.parameters)
    return jax.jit(start, out_shardings=where)(parameters)


@lru_cache(maxsize=4)
def fresh_program(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    seed: int,
    averaged: bool,
    mesh: Mesh | None = None,
) -> Callable[[], TrainState]:
    """The compiled :func:`fresh_state` of a seed; on a mesh each device makes its own part."""

    def fresh() -> TrainState:
        key = jax.random.key(seed)
        return fresh_state(config, optimizer, key, averaged=averaged, spread=mesh is not None)

    if mesh is None:
        return jax.jit(fresh).lower().compile()
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, optimizer, averaged, mesh))
    return jax.jit(fresh, out_shardings=where).lower().compile()


@lru_cache(maxsize=4)
def abstract_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    averaged: bool,
    mesh: Mesh | None = None,
) -> TrainState:
    """Shapes and dtypes of :func:`fresh_state`, and on a mesh where its arrays are."""
    shapes = jax.eval_shape(lambda: fresh_state(config, optimizer, jax.random.key(0), averaged=averaged))
    if mesh is None:
        return shapes
    return with_shardings(shapes, state_shardings(shapes, shapes.parameters, mesh))


class SkippedBatches:
    """Ranges of skipped batches in order, [first, last] with both included.

    Batch b is used for update b - (number of skipped batches before b). Each checkpoint has the ranges, so a
    resumed run takes the same batches as one that was never stopped.
    """

    def __init__(self, ranges: Sequence[Sequence[int]] = ()) -> None:
        self.ranges = [(first, last) for first, last in ranges]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def add(self, first: int, last: int | None = None) -> None:
        """Skip one batch, or all from `first` to `last`; those already skipped are counted once."""
        last = first if last is None else last
        before = [(a, b) for a, b in self.ranges if b < first]
        # Batches are skipped in order, so a range that does not end before the new one is a part of it.
        if before and before[-1][1] == first - 1:
            first = before.pop()[0]
        self.ranges = [*before, (first, last)]

    def to_json(self) -> list[list[int]]:
        """The ranges as lists."""
        return [list(pair) for pair in self.ranges]
