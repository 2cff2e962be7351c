"""The learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from t5smith.base.errors import T5smithError
from t5smith.recipe.train import ScheduleSettings

FALLING = ("linear", "cosine", "wsd")
"""The schedules that depend on the number of steps."""

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]


def create_schedule(settings: ScheduleSettings, peak: float, steps: int) -> Schedule:
    """A function from the number of steps done to the learning rate of the next step.

    The rate rises linearly over `warmup_steps` (the first step gets 1/warmup_steps of the peak), then:

    - inverse_sqrt: `peak * sqrt(plateau_steps / max(step, plateau_steps))`, T5's rule, whose
      1/sqrt(max(step, 10,000)) is a plateau at 0.01, not a ramp;
    - linear, cosine: down to `final_fraction * peak` at `steps`;
    - wsd: the peak, and over the last `decay_fraction` of the steps down to `final_fraction * peak` as
      1 - sqrt (Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations",
      2024);
    - constant.

    Raises:
      T5smithError: the warm-up leaves no steps for the decay.
    """
    warmup = warmup_steps(settings, steps)
    falls = settings.name in FALLING
    if falls and warmup >= steps:
        raise T5smithError(
            f"{warmup} of {steps} steps are warm-up",
            where="train.schedule.warmup_steps",
            expected=f"fewer than train.steps with the {settings.name} schedule",
        )
    after = _after_warmup(settings, steps - warmup)

    def schedule(step: Int[Array, ""]) -> Float[Array, ""]:
        done = jnp.asarray(step, jnp.float32)
        rise = jnp.minimum(1.0, (done + 1.0) / max(warmup, 1))
        fraction = after(jnp.maximum(done - warmup, 0.0)) if falls else after(done)
        return peak * rise * fraction

    return schedule


def create_timed_schedule(
    settings: ScheduleSettings,
) -> Callable[[Int[Array, ""], Float[Array, " 8"]], Float[Array, ""]]:
    """As :func:`create_schedule`, for a training whose last step is corrected while it runs.

    The second argument of the result is that of :func:`t5smith.training.timing.clock.points_after`: the
    peak, the warm-up, and two points (step, progress, last step), of which the second holds from its step on.
    """
    after = _after_warmup(settings, 1)

    def schedule(step: Int[Array, ""], points: Float[Array, " 8"]) -> Float[Array, ""]:
        done, peak, warmup = jnp.asarray(step, jnp.float32), points[0], points[1]
        begun, progress, end = jnp.where(done >= points[5], points[5:], points[2:5])
        start = jnp.maximum(begun, warmup)
        share = jnp.clip((done - start) / jnp.maximum(end - start, 1.0), 0.0, 1.0)
        rise = jnp.minimum(1.0, (done + 1.0) / jnp.maximum(warmup, 1.0))
        falls = settings.name in FALLING
        return peak * rise * after(progress + (1 - progress) * share if falls else done)

    return schedule


def warmup_steps(settings: ScheduleSettings, steps: int) -> int:
    """`warmup_steps` if set; else 0 for inverse_sqrt, and a twentieth of the steps up to 2,000 for others."""
    if settings.warmup_steps is not None:
        return settings.warmup_steps
    return 0 if settings.name == "inverse_sqrt" else min(2_000, steps // 20)


def decay_start(schedule: Mapping[str, Any], steps: int) -> int:
    """Number of steps at the start whose learning rates do not depend on the number of all steps.

    For wsd the step at which the decay begins; for linear and cosine the end of the warm-up; for others all.

    Args:
      schedule: the table `train.schedule` as in a training's inputs, with its warm-up.
      steps: the number of all steps.
    """
    if schedule["name"] not in FALLING:
        return steps
    warmup = schedule["warmup_steps"]
    stable = 1 - schedule["decay_fraction"] if schedule["name"] == "wsd" else 0
    return warmup + math.floor(stable * (steps - warmup))


def _after_warmup(settings: ScheduleSettings, steps: int) -> Callable[[Array], Array]:
    plateau = float(settings.plateau_steps)
    match settings.name:
        case "inverse_sqrt":
            return lambda done: jnp.sqrt(plateau / jnp.maximum(done, plateau))
        case "linear":
            fall = optax.linear_schedule(1.0, settings.final_fraction, steps)
        case "cosine":
            fall = optax.cosine_decay_schedule(1.0, steps, alpha=settings.final_fraction)
        case "wsd":
            share = settings.decay_fraction
            return lambda done: (
                1
                - (1 - settings.final_fraction)
                * jnp.sqrt(jnp.clip(done / steps - (1 - share), 0.0, share) / share)
            )
        case "constant":
            return lambda done: jnp.ones_like(done)

    def fraction(done: Array) -> Array:
        with jax.numpy_dtype_promotion("standard"):
            return jnp.asarray(fall(done), jnp.float32)

    return fraction
