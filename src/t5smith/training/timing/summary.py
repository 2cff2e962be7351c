"""What is printed before the first step: what is trained, the time, memory and disk it takes."""

from __future__ import annotations

import math

import jax
import numpy as np

from t5smith.base.progress import info, warn
from t5smith.base.units import about, count
from t5smith.base.wrapping import pluralize
from t5smith.model.flops import forward_flops, step_flops
from t5smith.model.params import parameter_count
from t5smith.parallel import hardware
from t5smith.parallel.backend import backend_reason
from t5smith.training.base_setup import StepSetup, TrainingSetup
from t5smith.training.compile import CompiledStep
from t5smith.training.setup import Setup
from t5smith.training.timing.forecast import Forecast


def print_summary(setup: TrainingSetup, step: CompiledStep) -> None:
    """Print what is trained and what it takes; warn of slow bfloat16 and of devices that stay unused."""
    train, device = setup.recipe.train, jax.devices()[0]
    parameters = count(parameter_count(setup.abstract_state().parameters))
    length = f"{pluralize(train.steps, 'step')} of {pluralize(train.rows, 'example')}"
    info(f"train     {parameters} parameters, {length}")
    info(f"train     {setup.objective.describe_shape()}")
    info(f"train     {_memory(setup, step)}; disk {count(_checkpoint_bytes(setup))}B")
    compute, mesh = setup.compute, setup.devices.mesh
    info(f"train     {setup.devices.describe()}")
    info(f"train     backend {compute.backend}, for {backend_reason(mesh)}; products in {train.precision}")
    if train.precision == "bfloat16" and not hardware.has_fast_bfloat16():
        warn(f"{device.device_kind} has no fast bfloat16 products; --train.precision float32 may be faster")


def print_forecast(setup: TrainingSetup, forecast: Forecast, windows: int, step: float, done: int) -> None:
    """Print the time that training takes, now that the seconds of a step are known.

    Args:
      setup: the run.
      forecast: learns them.
      windows: held-out windows of each evaluation; 0: all.
      step: the seconds.
      done: steps that are behind.
    """
    rows = _held_out_windows(setup, windows) if forecast.evaluate_every else 0
    forecast.measured(step, evaluation_seconds(setup, rows, step))
    device = jax.devices()[0].device_kind
    afterwards = f"; {_evaluation(setup, forecast)}" if isinstance(setup, Setup) else ""
    info(f"train     {_time(forecast, done, device)}{afterwards}")


def first_forecast(setup: TrainingSetup, step: float | None, evaluate_every: int, windows: int) -> Forecast:
    """The forecast before the first step.

    Args:
      setup: the run.
      step: seconds of a step in a trial; None: the first steps will tell.
      evaluate_every: steps between two evaluations; 0: none while training.
      windows: held-out windows of each; 0: all.
    """
    rows = _held_out_windows(setup, windows) if evaluate_every else 0
    return Forecast(
        setup.recipe.train,
        step,
        evaluate_every=evaluate_every,
        evaluation=evaluation_seconds(setup, rows, step or 0.0),
        state_bytes=state_bytes(setup),
    )


def _held_out_windows(setup: TrainingSetup, windows: int) -> int:
    """Held-out windows of an evaluation; 0 if it is of something else, and tells its time when it is done."""
    if not isinstance(setup, Setup):
        return 0
    available = setup.store.valid.window_count(setup.objective.window)
    return min(windows or available, available)


def state_bytes(setup: StepSetup) -> int:
    """Bytes of parameters and optimizer."""
    leaves = jax.tree.leaves(setup.abstract_state())
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def evaluation_seconds(setup: TrainingSetup, windows: int, step: float) -> float:
    """Seconds that scoring so many windows probably takes, by the operations of a step and its seconds."""
    if not windows:
        return 0.0
    objective, rows = setup.objective, setup.recipe.train.rows
    training = step_flops(setup.config, rows, objective.input_length, objective.target_length)
    inputs, targets = zip(*(spec.max_lengths for spec in objective.denoisers), strict=True)
    return step * forward_flops(setup.config, windows, max(inputs), max(targets)) / training


def _time(forecast: Forecast, done: int, device: str) -> str:
    parts = [
        pluralize(number, what)
        for number, what in (
            (forecast.evaluations_left(done), "evaluation"),
            (forecast.checkpoints_left(done), "checkpoint"),
        )
        if number
    ]
    return f"about {about(forecast.left(done))} on {device}, with {' and '.join(parts)}"


def _evaluation(setup: TrainingSetup, forecast: Forecast) -> str:
    """The time of `t5smith evaluate`, which works in float32."""
    rows = _held_out_windows(setup, setup.recipe.evaluate.windows) * setup.recipe.evaluate.masks_per_window
    faster = setup.recipe.train.precision == "bfloat16" and hardware.has_fast_bfloat16()
    seconds = evaluation_seconds(setup, rows, forecast.step) * (2 if faster else 1)
    return f"evaluating it afterwards about {about(seconds)}"


def _memory(setup: TrainingSetup, step: CompiledStep) -> str:
    """What the process will take, beside what there is."""
    free = hardware.available_memory()
    text = f"memory about {count(expected_memory(setup, step))}B"
    return text + (f"; {count(free.bytes)}B are {free.limit}" if free else "")


def expected_memory(setup: TrainingSetup, step: CompiledStep) -> int:
    """Bytes that the process will take on the device; on CPU all of its memory.

    That is, on CPU, the runtime, the state, a step's temporaries, the batches made ahead, and the copy of the
    state that is being written to a checkpoint.
    """
    if jax.default_backend() != "cpu":
        return step.memory
    train, objective = setup.recipe.train, setup.objective
    tokens = train.rows * (objective.input_length + objective.target_length)
    batches = (train.prefetch_batches + 1) * tokens * np.dtype(np.int32).itemsize
    return step.runtime + step.memory + math.ceil(batches) + state_bytes(setup)


def _checkpoint_bytes(setup: TrainingSetup) -> int:
    """Bytes of the checkpoints that are kept."""
    train = setup.recipe.train
    kept = train.keep_checkpoints + train.keep_best + (setup.branch_step is not None)
    kept += train.steps // train.keep_every if train.keep_every else 0
    return kept * state_bytes(setup)
