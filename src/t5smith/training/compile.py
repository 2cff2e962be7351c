"""Before the first step: compile it, check that it fits into memory, time it, print what to expect."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator
from typing import Any

import jax

from t5smith.base.errors import T5smithError
from t5smith.base.progress import count, duration, info, warn
from t5smith.model.params import parameter_count
from t5smith.objective.objective import Batch
from t5smith.parallel import hardware
from t5smith.training.setup import Setup
from t5smith.training.state import TrainState
from t5smith.training.step import StepMetrics, create_step


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A step compiled for the shapes of a run.

    Attributes:
      run: the step itself.
      memory: bytes it takes on a device by the compiler's count, state and batch included.
      batch_size: examples per batch.
    """

    run: Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
    memory: int
    batch_size: int


def compiled_step(setup: Setup) -> CompiledStep:
    """Compile the step of a run.

    Raises:
      T5smithError: it does not fit into the device's memory.
    """
    batch_size = setup.recipe.train.rows
    step = create_step(setup.config, setup.optimizer, setup.schedule, setup.step_settings)
    with out_of_memory(batch_size):
        program = step.lower(setup.abstract_state(), setup.batches()[0]).compile()
    memory = program_memory(program)
    limit = hardware.memory_limit()
    if limit is not None and memory > limit:
        raise too_large(batch_size, memory, limit)
    return CompiledStep(program, memory, batch_size)


def trial_seconds(setup: Setup, step: CompiledStep) -> float:
    """Seconds per step: of the second of two steps, on a state and batches that are thrown away."""
    batches = setup.batches()
    with out_of_memory(step.batch_size, step.memory):
        state = setup.fresh_state()
        seconds = 0.0
        for b in range(2):
            batch = batches[b]
            begun = time.perf_counter()
            state, _ = step.run(state, batch)
            jax.block_until_ready(state)
            seconds = time.perf_counter() - begun
    return seconds


def print_summary(setup: Setup, step: CompiledStep, seconds: float, done: int) -> None:
    """Print what is trained and the time, memory and disk it takes; warn of slow bfloat16.

    Args:
      setup: the run.
      step: its compiled step.
      seconds: per step.
      done: steps that need not be trained again.
    """
    train = setup.recipe.train
    device = jax.devices()[0]
    state = setup.abstract_state()
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    kept = train.keep_checkpoints + train.keep_best
    kept += train.steps // train.keep_every if train.keep_every else 0
    limit = hardware.memory_limit()
    of_limit = f" of {count(limit)}B" if limit else ""
    parameters = count(parameter_count(state.parameters))
    left = duration(seconds * (train.steps - done))
    info(f"train     {parameters} parameters, {train.steps:,} steps of {train.rows} examples")
    info(f"train     {setup.objective.describe_shape()}")
    info(
        f"train     about {left} on {device.device_kind}, memory {count(step.memory)}B{of_limit}, "
        f"disk {count(kept * state_bytes)}B"
    )
    if train.precision == "bfloat16" and not hardware.has_fast_bfloat16():
        warn(f"{device.device_kind} has no fast bfloat16 products; --train.precision float32 may be faster")


def too_large(batch_size: int, needed: int | None, limit: int | None) -> T5smithError:
    """The error for a step that does not fit into memory: the batch, the bytes, three ways out."""
    takes = f"takes {count(needed)}B" if needed else "takes more memory"
    has = f", but the device has {count(limit)}B" if limit else " than the device has"
    return T5smithError(
        f"a step of {batch_size:,} examples {takes}{has}",
        where="train.batch_size",
        fix="lower it, or split the batch with train.gradient_accumulation, or set train.remat to full",
    )


@contextlib.contextmanager
def out_of_memory(batch_size: int, needed: int | None = None) -> Generator[None]:
    """Turn the device's error for full memory into one line.

    Raises:
      T5smithError: memory ran out.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise too_large(batch_size, needed, hardware.memory_limit()) from error
        raise


def program_memory(program: Any) -> int:
    """Bytes a compiled program takes: arguments, results that are not donated arguments, temporaries."""
    found = program.memory_analysis()
    if found is None:
        return 0
    return (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
    )
