"""Time some steps before the first one, on a state and batches that are thrown away."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import numpy as np

from t5smith.base.phase import phase
from t5smith.base.signals import interruptible
from t5smith.objective.batches import prefetched
from t5smith.parallel.hardware import memory_in_use
from t5smith.training.compile import CompiledStep, out_of_memory
from t5smith.training.setup import Setup

SECONDS = 2.0
"""How long steps are timed, after one that warms up."""
FEWEST_STEPS = 3
TRIAL_POINTS = np.array([0.001, 0, 0, 0, 1_000_000, 0, 0, 1_000_000], np.float32)
"""A schedule that does not end; see :func:`t5smith.training.timing.clock.points_after`."""
MOST_SECONDS = 10.0
"""Once this much is spent, one timed step is enough."""


class StepTrial(NamedTuple):
    """Seconds per step, and the bytes in use after the last of them, if the device reports them."""

    seconds: float
    memory: int | None = None


def try_steps(setup: Setup, step: CompiledStep) -> StepTrial:
    """Time steps as training does them, each with a batch of its own that is made while the last one runs.

    Raises:
      T5smithError: memory ran out.
    """
    with phase("train", "timing some steps"), out_of_memory(step.batch_size, step.memory):
        return interruptible(_try_steps, setup, step)


def _try_steps(setup: Setup, step: CompiledStep) -> StepTrial:
    ahead = setup.recipe.train.prefetch_batches
    state = setup.fresh_state()
    jax.block_until_ready(state)
    points = () if setup.hours is None else (TRIAL_POINTS,)
    begun = time.perf_counter()
    ends: list[float] = []
    for batch in prefetched(setup.batches(), 0, 1_000_000, ahead=ahead, workers=0):
        state, _ = step.run(state, batch, *points)
        jax.block_until_ready(state)
        ends.append(time.perf_counter())
        if is_enough(begun, ends):
            break
    memory = memory_in_use()
    return StepTrial(seconds_per_step(ends), memory[0] if memory else None)


def is_enough(begun: float, ends: Sequence[float]) -> bool:
    """Whether enough steps are timed, from the moments at which they ended."""
    timed = len(ends) - 1
    if timed < 1:
        return False
    return (timed >= FEWEST_STEPS and ends[-1] - ends[0] >= SECONDS) or ends[-1] - begun >= MOST_SECONDS


def seconds_per_step(ends: Sequence[float]) -> float:
    """The median of the later half of the steps after the first.

    Early ones may wait for memory, which takes longer than many steps of a small model.
    """
    seconds = [end - start for start, end in pairwise(ends)]
    return statistics.median(seconds[len(seconds) // 2 :])
