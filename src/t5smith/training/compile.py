"""Before the first step: compile, see whether it fits, time it, decide what is left open, say so."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator
from typing import Any

import jax

from t5smith.base.errors import T5smithError
from t5smith.base.lock import in_run_folder
from t5smith.base.progress import count, duration, info, warn
from t5smith.model.params import parameter_count
from t5smith.objective.objective import Batch
from t5smith.parallel.hardware import has_fast_bfloat16, memory_limit
from t5smith.recipe.recipe import Recipe
from t5smith.training import autotune as decided
from t5smith.training.setup import Setup
from t5smith.training.state import TrainState
from t5smith.training.step import StepMetrics, create_step

MARGIN = 0.92
"""The share of the memory that a batch found by itself may take: the rest is for what comes and goes."""
MOST_ROWS = 2_048
"""More rows a step are not sought: they would leave too few steps."""


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A step compiled for the shapes of a run.

    Attributes:
      run: the step itself.
      memory: bytes it takes on a device, state and batch included, as the compiler counts.
      rows: of its batches.
    """

    run: Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
    memory: int
    rows: int


def compiled_step(setup: Setup) -> CompiledStep:
    """Compile the step of a run.

    Raises:
      T5smithError: it does not fit into the device's memory.
    """
    rows = setup.recipe.train.rows
    step = create_step(setup.config, setup.optimizer, setup.schedule, setup.step_settings)
    with out_of_memory(rows):
        program = step.lower(setup.abstract_state(), setup.batches()[0]).compile()
    memory = _memory(program)
    limit = memory_limit()
    if limit is not None and memory > limit:
        raise too_large(rows, memory, limit)
    return CompiledStep(program, memory, rows)


def trial_seconds(setup: Setup, step: CompiledStep) -> float:
    """How long a step takes: the second of two, on a state and batches that are thrown away."""
    batches = setup.batches()
    with out_of_memory(step.rows, step.memory):
        state = setup.fresh_state()
        seconds = 0.0
        for b in range(2):
            batch = batches[b]
            begun = time.perf_counter()
            state, _ = step.run(state, batch)
            jax.block_until_ready(state)
            seconds = time.perf_counter() - begun
    return seconds


@in_run_folder
def decide(recipe: Recipe) -> None:
    """Find out what the recipe leaves to the machine, and write it down."""
    if decided.is_decided(recipe):
        return
    values: dict[str, int] = {}
    rows = recipe.train.batch_size

    def tried(rows: int) -> Setup:
        return Setup.create(decided.trial_recipe(recipe, rows))

    if rows == "auto":
        rows = largest_batch(tried, recipe.train.gradient_accumulation)
        values["batch_size"] = rows
        info(f"train     batches of {rows:,} rows fit")
    if recipe.train.hours is not None:
        setup = tried(rows)
        seconds = trial_seconds(setup, compiled_step(setup))
        values["steps"] = max(1, round(recipe.train.hours * 3600 / seconds))
        info(f"train     {values['steps']:,} steps fit into {recipe.train.hours:g} hours")
    decided.keep(recipe, values)


def largest_batch(tried: Callable[[int], Setup], parts: int) -> int:
    """The most rows whose step fits, a multiple of `parts`, by what the compiler says of some sizes.

    Raises:
      T5smithError: not even the smallest does.
    """
    limit = memory_limit()
    unit = parts * 8
    if limit is None:
        raise T5smithError(
            "this device does not say what it holds", where="train.batch_size", fix="give a number"
        )
    limit = round(limit * MARGIN)

    def needs(rows: int) -> int:
        try:
            return compiled_step(tried(rows)).memory
        except T5smithError as error:
            if error.where != "train.batch_size":
                raise
            return limit + 1

    if (one := needs(unit)) > limit:
        for rows in range(unit - parts, 0, -parts):
            if needs(rows) <= limit:
                return rows
        raise too_large(parts, None, limit)
    a_unit = max(needs(2 * unit) - one, 1)
    units = min(1 + (limit - one) // a_unit, max(MOST_ROWS // unit, 1))
    while units > 1 and needs(units * unit) > limit:
        units = units * 9 // 10
    return units * unit


def print_summary(setup: Setup, step: CompiledStep, seconds: float, done: int) -> None:
    """What is trained, time, memory and disk; and a warning where the precision does not suit."""
    train = setup.recipe.train
    device = jax.devices()[0]
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(setup.abstract_state()))
    kept = train.keep_checkpoints + train.keep_best
    kept += train.steps // train.keep_every if train.keep_every else 0
    limit = memory_limit()
    of = f" of {count(limit)}B" if limit else ""
    parameters = count(parameter_count(setup.abstract_state().parameters))
    left = duration(seconds * (train.steps - done))
    info(f"train     {parameters} parameters, {train.steps:,} steps of {train.rows} rows")
    info(f"train     {setup.objective.describe_shape()}")
    info(
        f"train     about {left} on {device.device_kind}, memory {count(step.memory)}B{of}, "
        f"disk {count(kept * state)}B"
    )
    if train.precision == "bfloat16" and not has_fast_bfloat16():
        warn(f"{device.device_kind} has no fast bfloat16 products; --train.precision float32 may be quicker")


def too_large(rows: int, needed: int | None, limit: int | None) -> T5smithError:
    """What to say when memory runs out: the batch, the bytes, three ways out."""
    takes = f"takes {count(needed)}B" if needed else "takes more memory"
    has = f", and the device has {count(limit)}B" if limit else " than the device has"
    return T5smithError(
        f"a step of {rows:,} rows {takes}{has}",
        where="train.batch_size",
        fix="lower it, or work on parts of it with train.gradient_accumulation, or set train.remat to full",
    )


@contextlib.contextmanager
def out_of_memory(rows: int, needed: int | None = None) -> Generator[None]:
    """Turn the device's word for being full into ours.

    Raises:
      T5smithError: memory ran out.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise too_large(rows, needed, memory_limit()) from error
        raise


def _memory(program: Any) -> int:
    """Bytes a compiled program takes: what goes in, what comes out, and in between."""
    found = program.memory_analysis()
    if found is None:
        return 0
    return (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
    )
