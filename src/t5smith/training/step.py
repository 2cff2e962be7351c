"""One training step: loss, gradient, update; jitted once, its state donated.

Shapes: B batch, S input and T target positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from t5smith.model.attention.items import ItemLayout, Items
from t5smith.model.compute import Compute
from t5smith.model.config import ModelConfig
from t5smith.model.dropout import Dropout
from t5smith.model.loss import LossSums, batch_loss
from t5smith.model.params import Parameters
from t5smith.model.t5 import PAD_ID, Remat, Segments
from t5smith.parallel.rules import state_shardings
from t5smith.training.optimizer import apply_gradient, root_mean_square
from t5smith.training.schedule import Schedule
from t5smith.training.state import TrainState

NORM_EMA_WARMUP_STEPS = 100
"""The first updates that are made whatever the gradient's norm: the moving average is not yet reliable."""
NORM_EMA_WEIGHT = 0.01
"""Weight of the newest norm in the moving average."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepMetrics:
    """Figures of a step: of its batch under the parameters before the update, and of the update.

    Attributes:
      loss: what was minimised: the NLL, smoothed if set, plus the weighted z-loss; per target token.
      nll, z_loss, accuracy: per target token; nats for the first two.
      gradient_norm: of the whole gradient, before clipping.
      update_rms, weight_rms: root mean square of the update and of the parameters after it, over all of them.
      learning_rate: the schedule's.
      target_tokens, tokens: targets without padding, and inputs and targets without padding.
      applied: 1.0, or 0.0 if the update was skipped because of its gradient.
    """

    loss: Float[Array, ""]
    nll: Float[Array, ""]
    z_loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    update_rms: Float[Array, ""]
    weight_rms: Float[Array, ""]
    learning_rate: Float[Array, ""]
    target_tokens: Float[Array, ""]
    tokens: Float[Array, ""]
    applied: Float[Array, ""]


@dataclass(frozen=True)
class StepSettings:
    """The settings that are compiled into a step.

    Attributes:
      compute: precision of products, and backend.
      z_loss: weight of the squared log-partition function in the loss.
      label_smoothing: share of each target's probability spread over the vocabulary.
      dropout_rate: share of the values dropped, in the places where T5 drops them.
      seed: of the dropout masks, together with the number of the step.
      remat: what the backward pass recomputes.
      accumulation: number of parts a batch is split into, computed one after the other.
      explosion_factor: an update is skipped if its gradient's norm exceeds this multiple of the average norm.
      average_decay: decay per step of the moving average of the parameters; None: no average.
      layout: where the items of packed rows are; None: attention computes whole rows.
    """

    compute: Compute
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    dropout_rate: float = 0.0
    seed: int = 0
    remat: Remat = "none"
    accumulation: int = 1
    explosion_factor: float | None = None
    average_decay: float | None = None
    layout: ItemLayout | None = None


Ids = Array | np.ndarray
Batch = Mapping[str, Ids]


@runtime_checkable
class Step(Protocol):
    """The compiled step. It donates the state: the memory of its argument holds the returned state."""

    def __call__(self, state: TrainState, batch: Batch, /) -> tuple[TrainState, StepMetrics]:
        """The state after one update by a batch, and the step's figures."""
        ...

    def lower(self, state: TrainState, batch: Any, /) -> Any:
        """Prepare for compilation ahead of time, from shapes and dtypes."""
        ...


def create_step(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    settings: StepSettings,
) -> Step:
    """The compiled step; see :func:`_step`."""
    return jax.jit(_step(config, optimizer, schedule, settings), donate_argnums=0)


def create_timed_step(
    config: ModelConfig,
    optimizer_at: Callable[[Array], tuple[optax.GradientTransformation, Schedule]],
    settings: StepSettings,
) -> Any:
    """The step whose third argument corrects the schedule while training runs.

    Args:
      config: the model.
      optimizer_at: optimizer and schedule with that argument; the state has one structure for all.
      settings: those that are compiled in.
    """

    def step(
        state: TrainState, batch: Mapping[str, Int[Array, "_ _"]], points: Float[Array, " 8"]
    ) -> tuple[TrainState, StepMetrics]:
        return _step(config, *optimizer_at(points), settings)(state, batch)

    return jax.jit(step, donate_argnums=0)


def _step(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    settings: StepSettings,
) -> Callable[[TrainState, Mapping[str, Array]], tuple[TrainState, StepMetrics]]:
    """The step for batches `input_ids` (B, S) and `targets` (B, T); packed rows have segments and items too.

    The gradient is that of the loss summed over all target tokens of the batch, divided by their number; the
    number of parts a batch is split into does not change it. An update whose gradient is not finite, or too
    large, is skipped: the returned state equals the argument.
    """

    def step(state: TrainState, batch: Mapping[str, Int[Array, "_ _"]]) -> tuple[TrainState, StepMetrics]:
        gradient, sums = _accumulate_gradient(state, batch, config, settings)
        inputs = (batch["input_ids"] != PAD_ID).sum().astype(jnp.float32)
        return update_state(state, gradient, sums, inputs, optimizer, schedule, settings)

    return step


def update_state(
    state: TrainState,
    gradient: Parameters,
    sums: LossSums,
    inputs: Float[Array, ""],
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    settings: StepSettings,
) -> tuple[TrainState, StepMetrics]:
    """The part of a step after the gradient: its norm, the update, the metrics.

    The gradient is that of the summed loss; `inputs` is the number of input tokens without padding.
    """
    gradient = jax.tree.map(lambda leaf: leaf / sums.tokens, gradient)
    norm = optax.tree.norm(gradient)
    applied = _gradient_is_ok(state, sums, norm, settings.explosion_factor)
    parameters, optimizer_state, updates = apply_gradient(
        optimizer, gradient, state.optimizer, state.parameters, applied
    )
    average = (1 - NORM_EMA_WEIGHT) * state.grad_norm_ema + NORM_EMA_WEIGHT * norm
    new = TrainState(
        step=state.step + applied.astype(jnp.int32),
        parameters=parameters,
        optimizer=optimizer_state,
        ema_params=_update_ema(state, parameters, settings.average_decay, applied),
        grad_norm_ema=jnp.where(applied, jnp.where(state.step == 0, norm, average), state.grad_norm_ema),
    )
    metrics = StepMetrics(
        loss=sums.objective / sums.tokens,
        nll=sums.nll / sums.tokens,
        z_loss=settings.z_loss * sums.z / sums.tokens,
        accuracy=sums.correct / sums.tokens,
        gradient_norm=norm,
        update_rms=root_mean_square(updates),
        weight_rms=root_mean_square(parameters),
        learning_rate=schedule(state.step),
        target_tokens=sums.tokens,
        tokens=sums.tokens + inputs,
        applied=applied.astype(jnp.float32),
    )
    mesh = settings.compute.mesh
    if mesh is not None:
        new = jax.lax.with_sharding_constraint(new, state_shardings(new, new.parameters, mesh))
    return new, metrics


def _accumulate_gradient(
    state: TrainState, batch: Mapping[str, Int[Array, "_ _"]], config: ModelConfig, settings: StepSettings
) -> tuple[Parameters, LossSums]:
    """The gradient of the summed loss, and the sums, both accumulated over the parts of a batch."""
    key = jax.random.fold_in(jax.random.key(settings.seed), state.step)

    def part(batch: Mapping[str, Int[Array, "_ _"]], number: Int[Array, ""]) -> tuple[Parameters, LossSums]:
        segments = _segments(batch, settings.layout)
        rate = settings.dropout_rate
        dropout = Dropout(jax.random.fold_in(key, number), rate) if rate else None

        def loss(parameters: Parameters) -> tuple[Array, LossSums]:
            sums = batch_loss(
                parameters,
                config,
                batch["input_ids"],
                batch["targets"],
                settings.compute,
                segments,
                z_loss=settings.z_loss,
                label_smoothing=settings.label_smoothing,
                dropout=dropout,
                remat=settings.remat,
            )
            return sums.objective, sums

        return jax.grad(loss, has_aux=True)(state.parameters)

    parts = settings.accumulation
    if parts == 1:
        return part(batch, jnp.int32(0))
    split = {name: ids.reshape(parts, -1, ids.shape[1]) for name, ids in batch.items()}
    split = {name: settings.compute.by_rows(ids, axis=1) for name, ids in split.items()}
    numbers = jnp.arange(parts, dtype=jnp.int32)

    def add(total: Any, batch_part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, part(*batch_part)), None

    zeros = jnp.zeros((), jnp.float32)
    start = (jax.tree.map(jnp.zeros_like, state.parameters), LossSums(*(zeros for _ in fields(LossSums))))
    return jax.lax.scan(add, start, (split, numbers))[0]


def _segments(batch: Mapping[str, Int[Array, "_ _"]], layout: ItemLayout | None) -> Segments | None:
    """The windows of packed rows; None if each row is one window."""
    if "target_segments" not in batch:
        return None
    items = None if layout is None else Items(batch["items"], layout)
    return Segments(batch["input_segments"], batch["target_segments"], items)


def _gradient_is_ok(
    state: TrainState, sums: LossSums, norm: Float[Array, ""], factor: float | None
) -> Bool[Array, ""]:
    """Whether a gradient is finite and its norm at most `factor` times the average norm."""
    finite = jnp.isfinite(norm) & jnp.isfinite(sums.objective)
    if factor is None:
        return finite
    return finite & ((state.step < NORM_EMA_WARMUP_STEPS) | (norm <= factor * state.grad_norm_ema))


def _update_ema(
    state: TrainState, parameters: Parameters, decay: float | None, applied: Bool[Array, ""]
) -> Parameters | None:
    """The moving average after this step; its decay is lower early on, to forget the first weights."""
    if decay is None or state.ema_params is None:
        return None
    steps = state.step.astype(jnp.float32)
    decay_now = jnp.minimum(decay, (1.0 + steps) / (10.0 + steps))
    return jax.tree.map(
        lambda old, new: jnp.where(applied, decay_now * old + (1 - decay_now) * new, old),
        state.ema_params,
        parameters,
    )
