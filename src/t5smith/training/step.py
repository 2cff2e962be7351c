"""One training step: loss, gradient, update; jitted once, its state donated.

Shapes: B batch, S input and T target positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from t5smith.model.config import ModelConfig
from t5smith.model.dropout import Dropout
from t5smith.model.loss import LossSums, batch_loss
from t5smith.model.params import Parameters
from t5smith.model.t5 import PAD_ID, Remat, Segments
from t5smith.training.optimizer import apply_gradient, root_mean_square
from t5smith.training.schedule import Schedule
from t5smith.training.state import TrainState

NORM_EMA_WARMUP_STEPS = 100
"""Only after so many updates is it known what norm of the gradient is usual."""
NORM_EMA_WEIGHT = 0.01
"""Weight of the newest norm in the running mean."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepMetrics:
    """What a step tells. `loss` is what was minimised: nll, smoothed if asked, plus the weighted z-loss.

    Attributes:
      loss, nll, z_loss, accuracy: per target token.
      gradient_norm: of the whole gradient, before clipping.
      update_rms, weight_rms: over all parameters: of what was added to them, and of themselves.
      learning_rate: the schedule's.
      target_tokens, tokens: non-pad targets, and with the inputs.
      applied: 1.0, or 0.0 if the update was left out because of its gradient.
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
    """What is fixed when a step is compiled.

    Attributes:
      dtype: of the operands of products.
      z_loss: weight of the squared log-partition function in the loss.
      label_smoothing: share of each target's probability spread over the vocabulary.
      dropout_rate: share of the values dropped, in the places where T5 does.
      seed: decides which values fall, together with the number of the step.
      remat: what the backward pass computes anew.
      accumulation: parts a batch is worked on in, one after the other.
      explosion_factor: an update is left out if its gradient's norm is more than so many times the usual.
      average_decay: share of the running average of parameters that stays at each step, if one is kept.
    """

    dtype: jnp.dtype
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    dropout_rate: float = 0.0
    seed: int = 0
    remat: Remat = "none"
    accumulation: int = 1
    explosion_factor: float | None = None
    average_decay: float | None = None


Ids = Array | np.ndarray
Batch = Mapping[str, Ids]


@runtime_checkable
class Step(Protocol):
    """The compiled step. The state passed in is used up: its memory holds the state that comes back."""

    def __call__(self, state: TrainState, batch: Batch, /) -> tuple[TrainState, StepMetrics]:
        """The state after one update by a batch, and what there is to tell."""
        ...

    def lower(self, state: TrainState, batch: Any, /) -> Any:
        """For compiling ahead, from shapes alone."""
        ...


def create_step(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    settings: StepSettings,
) -> Step:
    """The step for batches of arrays by name: `input_ids` (B, S), `targets` (B, T); segments too if packed.

    The gradient is that of the sum over all target tokens of the batch, divided by their number, in however
    many parts the batch is worked on. An update whose gradient is not finite, or too large, is left out:
    then the state that comes back is the one that went in.
    """

    def step(state: TrainState, batch: Mapping[str, Int[Array, "_ _"]]) -> tuple[TrainState, StepMetrics]:
        gradient, sums = _accumulated(state, batch, config, settings)
        gradient = jax.tree.map(lambda leaf: leaf / sums.tokens, gradient)
        norm = optax.tree.norm(gradient)
        parameters, optimizer_state, updates = apply_gradient(
            optimizer, gradient, state.optimizer, state.parameters
        )
        applied = _gradient_is_ok(state, sums, norm, settings.explosion_factor)
        first = state.step == 0
        new = TrainState(
            step=state.step + 1,
            parameters=parameters,
            optimizer=optimizer_state,
            ema_params=_update_ema(state, parameters, settings.average_decay),
            grad_norm_ema=jnp.where(
                first, norm, (1 - NORM_EMA_WEIGHT) * state.grad_norm_ema + NORM_EMA_WEIGHT * norm
            ),
        )
        inputs = (batch["input_ids"] != PAD_ID).sum().astype(jnp.float32)
        metrics = StepMetrics(
            loss=sums.objective / sums.tokens,
            nll=sums.nll / sums.tokens,
            z_loss=settings.z_loss * sums.z / sums.tokens,
            accuracy=sums.correct / sums.tokens,
            gradient_norm=norm,
            update_rms=root_mean_square(updates),
            weight_rms=root_mean_square(state.parameters),
            learning_rate=schedule(state.step),
            target_tokens=sums.tokens,
            tokens=sums.tokens + inputs,
            applied=applied.astype(jnp.float32),
        )
        return jax.tree.map(lambda after, before: jnp.where(applied, after, before), new, state), metrics

    return jax.jit(step, donate_argnums=0)


def _accumulated(
    state: TrainState, batch: Mapping[str, Int[Array, "_ _"]], config: ModelConfig, settings: StepSettings
) -> tuple[Parameters, LossSums]:
    """The gradient of the summed loss, and the sums, added up over the parts of a batch."""
    key = jax.random.fold_in(jax.random.key(settings.seed), state.step)

    def part(batch: Mapping[str, Int[Array, "_ _"]], number: Int[Array, ""]) -> tuple[Parameters, LossSums]:
        segments = (
            Segments(batch["input_segments"], batch["target_segments"])
            if "target_segments" in batch
            else None
        )
        rate = settings.dropout_rate
        dropout = Dropout(jax.random.fold_in(key, number), rate) if rate else None

        def loss(parameters: Parameters) -> tuple[Array, LossSums]:
            sums = batch_loss(
                parameters,
                config,
                batch["input_ids"],
                batch["targets"],
                settings.dtype,
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
    numbers = jnp.arange(parts, dtype=jnp.int32)

    def add(so_far: Any, given: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, so_far, part(*given)), None

    zeros = jnp.zeros((), jnp.float32)
    start = (jax.tree.map(jnp.zeros_like, state.parameters), LossSums(*(zeros for _ in fields(LossSums))))
    return jax.lax.scan(add, start, (split, numbers))[0]


def _gradient_is_ok(
    state: TrainState, sums: LossSums, norm: Float[Array, ""], factor: float | None
) -> Bool[Array, ""]:
    """Whether a gradient may be followed: it is finite and no more than `factor` times as long as usual."""
    finite = jnp.isfinite(norm) & jnp.isfinite(sums.objective)
    if factor is None:
        return finite
    return finite & ((state.step < NORM_EMA_WARMUP_STEPS) | (norm <= factor * state.grad_norm_ema))


def _update_ema(state: TrainState, parameters: Parameters, decay: float | None) -> Parameters | None:
    """The moving average after this step; early on it follows faster, so as to forget how it began."""
    if decay is None or state.ema_params is None:
        return None
    steps = state.step.astype(jnp.float32)
    stays = jnp.minimum(decay, (1.0 + steps) / (10.0 + steps))
    return jax.tree.map(lambda old, new: stays * old + (1 - stays) * new, state.ema_params, parameters)
