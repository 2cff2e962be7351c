"""What the user reads about where training starts, and what is taken over from trained steps."""

from __future__ import annotations

import jax.numpy as jnp

from t5smith.base.progress import info
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.train import ScheduleSettings
from t5smith.training.base_setup import TrainingSetup
from t5smith.training.optimizer import default_learning_rate
from t5smith.training.resume.history import History, Start
from t5smith.training.schedule import create_schedule, warmup_steps


def print_start(
    recipe: Recipe, setup: TrainingSetup, start: Start, history: History, hint: str | None
) -> None:
    """Print where training starts.

    Args:
      recipe: as the user set it.
      setup: made from it.
      start: where training starts.
      history: of the run folder.
      hint: how to continue an archived training instead, if it has the same settings.
    """
    steps, schedule = setup.recipe.train.steps, setup.recipe.train.schedule
    if not start.step:
        if hint:
            info(f"train     starting from scratch; {hint}")
        return
    info(f"train     resuming from step {start.step:,}")
    default = warmup_steps(recipe.train.schedule, steps)
    if schedule.warmup_steps is not None and schedule.warmup_steps != default:
        info(
            f"train     the warm-up stays at {schedule.warmup_steps:,} steps, as it was trained; the default "
            f"for {steps:,} steps is {default:,}"
        )
    rate, default_rate = setup.recipe.train.optimizer.learning_rate, default_learning_rate(setup.recipe)
    if recipe.train.optimizer.learning_rate is None and rate is not None and rate != default_rate:
        info(
            f"train     the learning rate stays at {rate:g}, as it was trained; the default for {steps:,} "
            f"steps is {default_rate:g}"
        )
    if len(start.inputs.get("extended", ())) > len(history.extensions):
        if setup.hours is not None or "hours" in history.inputs["train"]:
            info(f"train     extended to about {steps:,} steps, on the schedule of that length")
            return
        now = float(setup.schedule(jnp.int32(start.step)))
        info(
            f"train     extended to {steps:,} steps: the learning rate was {_last_rate(history):.2g} and "
            f"continues at {now:.2g}, where the {schedule.name} schedule has it"
        )


def _last_rate(history: History) -> float:
    """The learning rate of the last trained step."""
    train = history.inputs["train"]
    settings = ScheduleSettings.model_validate(train["schedule"])
    schedule = create_schedule(
        settings, train["optimizer"]["learning_rate"], train.get("steps", history.steps)
    )
    return float(schedule(jnp.int32(history.steps - 1)))
