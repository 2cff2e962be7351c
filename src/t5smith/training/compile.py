"""Compile a step and check that it fits into memory; if it does not, find what would fit."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.base.signals import Background, interruptible
from t5smith.base.units import count
from t5smith.parallel import hardware
from t5smith.parallel.host_memory import return_freed_memory
from t5smith.parallel.mesh import put_batch
from t5smith.training.base_setup import StepSetup
from t5smith.training.optimizer import optimizer_at
from t5smith.training.state import TrainState
from t5smith.training.step import StepMetrics, create_step, create_timed_step


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A step compiled for the shapes of a run.

    Attributes:
      run: the step itself; with `train.hours` its third argument is that of the schedule.
      memory: bytes it takes on a device by the compiler's count, state and batch included.
      batch_size: examples per batch.
      runtime: bytes that the process held before it, on CPU.
    """

    run: Callable[..., tuple[TrainState, StepMetrics]]
    memory: int
    batch_size: int
    runtime: int = 0


def compiled_step(setup: StepSetup, begun: Background[CompiledStep] | None = None) -> CompiledStep:
    """Compile the step of a run.

    Args:
      setup: of the step.
      begun: a call of :func:`compile_step` with it, if one is under way.

    Raises:
      T5smithError: it does not fit into the device's memory; the message names what does.
    """
    with phase("train", "compiling the step"):
        step = begun.result() if begun else compile_step(setup)
    limit = hardware.memory_limit()
    if limit is not None and step.memory > limit:
        raise too_large(step.batch_size, step.memory, limit, smallest_accumulation(setup, limit))
    return step


def compile_step(setup: StepSetup) -> CompiledStep:
    """Compile the step of a run, whether it fits or not."""
    batch_size = setup.recipe.train.rows
    arguments: tuple[Any, ...] = ()
    if setup.hours is None:
        step: Any = create_step(setup.config, setup.optimizer, setup.schedule, setup.step_settings)
    else:
        optimizer = partial(optimizer_at, setup.recipe.train, setup.config.num_heads, setup.compute.backend)
        step = create_timed_step(setup.config, optimizer, setup.step_settings)
        arguments = (jax.ShapeDtypeStruct((8,), np.float32),)
    with out_of_memory(batch_size):
        program = interruptible(
            lambda: compiled(step.lower(setup.abstract_state(), setup.abstract_batch(), *arguments)),
        )
    runtime = hardware.memory_in_use()
    mesh = setup.devices.mesh
    run = program if mesh is None else partial(_with_batch_on, mesh, batch_size, program)
    return CompiledStep(run, program_memory(program), batch_size, runtime[0] if runtime else 0)


def _with_batch_on(
    mesh: Mesh, rows: int, program: Any, state: TrainState, batch: Any, *arguments: Any
) -> tuple[TrainState, StepMetrics]:
    """A step whose batch is first put on the devices."""
    return program(state, put_batch(mesh, batch, rows), *arguments)


def compiled(lowered: Any) -> Any:
    """Compile a lowered step.

    XLA on CPU would compute early what the backward pass needs late, so that more could run at once. Nothing
    does, and the memory for it is large.
    """
    if jax.default_backend() != "cpu":
        return lowered.compile()
    try:
        program = lowered.compile(compiler_options=CPU_OPTIONS)
        return_freed_memory()
        return program
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):  # an XLA without it has its own order
            raise
    return lowered.compile()


def smallest_accumulation(setup: StepSetup, limit: int) -> tuple[int, int] | None:
    """The smallest `train.gradient_accumulation` whose step takes at most `limit` bytes, and what it takes.

    None if the examples do not even fit one by one. More parts never take more memory, so each program
    rules out half of the divisors of the batch size.
    """
    train = setup.recipe.train
    parts = range(train.gradient_accumulation + 1, train.rows + 1)
    candidates = [n for n in parts if train.rows % n == 0]
    fits: tuple[int, int] | None = None
    with phase("train", "this step does not fit into memory; looking for a train.gradient_accumulation"):
        while candidates:
            # The most parts first: if even they do not fit, there is no more to compile.
            at = len(candidates) // 2 if fits else len(candidates) - 1
            recipe = setup.recipe.replace(**{"train.gradient_accumulation": candidates[at]})
            memory = compile_step(dataclasses.replace(setup, recipe=recipe)).memory
            if memory <= limit:
                fits = candidates[at], memory
                candidates = candidates[:at]
            elif fits is None:
                return None
            else:
                candidates = candidates[at + 1 :]
    return fits


def too_large(
    batch_size: int, needed: int | None, limit: int | None, fits: tuple[int, int] | None = None
) -> T5smithError:
    """The error for a step that does not fit into memory: the batch, the bytes, the ways out.

    Args:
      batch_size: examples per batch.
      needed: bytes it takes, if known.
      limit: bytes there are, if known.
      fits: the smallest `gradient_accumulation` that fits, and the bytes it takes.
    """
    takes = f"takes {count(needed)}B" if needed else "takes more memory"
    has = f", but {count(limit)}B {_limited_by()}" if limit is not None else " than the device has"
    lower = "lower it, or split the batch with train.gradient_accumulation, or set train.remat to full"
    if fits:
        lower = (
            f"set train.gradient_accumulation to {fits[0]} (a step then takes {count(fits[1])}B, and the "
            f"update is the same), or lower train.batch_size, or set train.remat to full"
        )
    return T5smithError(
        f"a step of {batch_size:,} examples {takes}{has}", where="train.batch_size", fix=lower
    )


def fitting_program(
    function: Any, *args: Any, what: str, where: str, fix: str, **static: Any
) -> Callable[..., Any]:
    """A jitted function compiled for arguments of these shapes, if it fits; compiled once for equal ones.

    Args:
      function: what `jax.jit` returned.
      args: its array arguments, which are in memory already.
      what: the work, such as "evaluating 32 examples at a time".
      where: the setting to blame.
      fix: the way out.
      static: its static arguments.

    Returns:
      The program, to be called with `args`.

    Raises:
      T5smithError: it does not fit into memory.
    """
    leaves, tree = jax.tree.flatten(args)
    shapes = tuple((leaf.shape, str(leaf.dtype), getattr(leaf, "sharding", None)) for leaf in leaves)
    key = function, tree, shapes, tuple(static.items())
    program = _programs.get(key)
    if program is None:
        program = interruptible(lambda: function.lower(*args, **static).compile())
        while len(_programs) >= PROGRAMS_KEPT:
            del _programs[next(iter(_programs))]
        _programs[key] = program
    limit, found = hardware.memory_limit(), program.memory_analysis()
    needed = found.output_size_in_bytes + found.temp_size_in_bytes if found else 0
    if limit is not None and needed > limit:
        raise T5smithError(
            f"{what} takes {count(needed)}B of memory, but {count(limit)}B {_limited_by()}",
            where=where,
            fix=fix,
        )
    return program


CPU_OPTIONS = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
PROGRAMS_KEPT = 16
_programs: dict[Any, Any] = {}


def _limited_by() -> str:
    free = hardware.available_memory()
    return f"are {free.limit}" if free else "are free"


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
