"""How long a step takes: by the first steps of a training, or by steps before it, which are thrown away.

Only a training of `train.hours` needs to know it before its first step, as the schedule depends on it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import numpy as np

from t5smith.base.phase import phase
from t5smith.base.signals import interruptible
from t5smith.model.flops import step_flops
from t5smith.objective.batches import prefetched
from t5smith.parallel.hardware import peak_tflops
from t5smith.training.base_setup import TrainingSetup
from t5smith.training.compile import CompiledStep, out_of_memory

SECONDS = 2.0
"""How long steps are timed, after one that warms up."""
FEWEST_STEPS = 3
TRIAL_POINTS = np.array([0.001, 0, 0, 0, 1_000_000, 0, 0, 1_000_000], np.float32)
"""A schedule that does not end; see :func:`t5smith.training.timing.clock.points_after`."""
MOST_SECONDS = 10.0
"""Once this much is spent, one timed step is enough."""


class StepTrial(NamedTuple):
    """Seconds per step."""

    seconds: float


class FirstSteps:
    """The first steps of a training, until they tell how long a step takes."""

    def __init__(self, report: Callable[[float], None]) -> None:
        """`report` is called once, with the seconds of a step."""
        self._report, self._ends = report, list[float]()

    def stepped(self, seconds: float) -> bool:
        """Take a step into account; returns whether it was the last one that is needed."""
        self._ends.append((self._ends[-1] if self._ends else 0.0) + seconds)
        if not is_enough(0.0, self._ends):
            return False
        self._report(seconds_per_step(self._ends))
        return True


def try_steps(setup: TrainingSetup, step: CompiledStep) -> StepTrial:
    """Time steps as training does them, each with a batch of its own that is made while the last one runs.

    Raises:
      T5smithError: memory ran out.
    """
    with phase("train", "timing some steps"), out_of_memory(step.batch_size, step.memory):
        return interruptible(_try_steps, setup, step)


def _try_steps(setup: TrainingSetup, step: CompiledStep) -> StepTrial:
    ahead = setup.recipe.train.prefetch_batches
    state = setup.first_state()
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
    return StepTrial(seconds_per_step(ends))


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


def seconds_at_peak(setup: TrainingSetup) -> float:
    """The seconds of a step at the devices' peak speed, which is measured if no data sheet states it."""
    objective = setup.objective
    flops = step_flops(setup.config, setup.recipe.train.rows, objective.input_length, objective.target_length)
    return flops / (peak_tflops(setup.compute.dtype) * 1e12 * setup.devices.count)
