"""Measure what a recipe leaves to the machine: the largest batch that fits, and the steps per hour."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.base.progress import info, warn
from t5smith.base.wrapping import pluralize
from t5smith.parallel import hardware
from t5smith.training.base_setup import BaseRun, TrainingSetup
from t5smith.training.compile import CompiledStep, compile_step, compiled_step, too_large
from t5smith.training.settle import read_measured, save_measured, unresolved_settings
from t5smith.training.timing import clock
from t5smith.training.timing.record import CLOCK, Record
from t5smith.training.timing.trial import StepTrial, try_steps

MEMORY_SHARE = 0.92
"""The share of the device's memory that the largest batch may take; the rest is for temporary needs."""
MAX_BATCH_SIZE = 2_048
"""Larger batches are not tried: they would leave too few steps."""


def autotune(run: BaseRun[Any], begun: float) -> tuple[CompiledStep, StepTrial] | None:
    """Measure what the recipe leaves to the machine, unless that was done before, and keep it.

    Args:
      run: the run.
      begun: the moment at which training began, by the clock of `train.hours`.

    Returns:
      The step and its trial, if hours were measured: the same program trains.

    Raises:
      T5smithError: not even the smallest batch fits, or an artifact is missing or damaged.
    """
    train = run.recipe.train
    if not unresolved_settings(train) or read_measured(run.recipe, run.history.inputs) is not None:
        return None
    measured: dict[str, Any] = {}
    tried = None
    batch_size = train.batch_size
    if batch_size == "auto":
        with phase("train", "looking for the largest batch that fits into memory"):
            batch_size = largest_batch(run.trial_setup, train.gradient_accumulation)
        measured["batch_size"] = batch_size
        info(f"train     batch size {batch_size:,} fits into memory")
    if train.hours is not None:
        setup = run.trial_setup(batch_size)
        step = compiled_step(setup)
        tried = step, try_steps(setup, step)
        left = train.hours * 3600 - (clock.now() - begun)
        steps = max(1, round(left / tried[1].seconds))
        measured |= {"steps": steps, CLOCK: Record(train.hours, ((0, 0.0, steps),)).to_json()}
        if left < tried[1].seconds:
            warn(
                f"train.hours = {train.hours:g} leaves no time for a step of {tried[1].seconds:.3g} s: "
                "compiling and timing took it. Raise it, or set train.batch_size to a number"
            )
        else:
            fitting = pluralize(steps, "step")
            info(f"train     about {fitting} fit into {train.hours:g} hours; the clock corrects that")
    save_measured(run.recipe, measured)
    return tried


def largest_batch(setup_for: Callable[[int], TrainingSetup], accumulation: int) -> int:
    """The largest batch size whose step fits, by the compiler's memory figures for some sizes.

    Args:
      setup_for: gives the setup with a batch size.
      accumulation: the result is a multiple of it.

    Raises:
      T5smithError: not even the smallest batch fits, or the device does not report its memory.
    """
    limit = hardware.memory_limit()
    unit = accumulation * math.lcm(8, jax.device_count())
    if limit is None:
        raise T5smithError(
            "this device does not report its memory",
            where="train.batch_size",
            expected='a number instead of "auto"',
            fix="set one",
        )
    limit = round(limit * MEMORY_SHARE)

    def memory_of(batch_size: int) -> int:
        try:
            with phase("train", f"compiling a step of {batch_size:,} examples"):
                return compile_step(setup_for(batch_size)).memory
        except T5smithError as error:
            # Rows that the devices do not divide are no batch size either.
            if error.where != "train.batch_size" and not (error.where or "").startswith("train.mesh"):
                raise
            return limit + 1

    if (memory := memory_of(unit)) > limit:
        for batch_size in range(unit - accumulation, 0, -accumulation):
            if memory_of(batch_size) <= limit:
                return batch_size
        raise too_large(accumulation, None, limit)
    memory_per_unit = max(memory_of(2 * unit) - memory, 1)
    units = min(1 + (limit - memory) // memory_per_unit, max(MAX_BATCH_SIZE // unit, 1))
    while units > 1 and memory_of(units * unit) > limit:
        units = units * 9 // 10
    return units * unit
