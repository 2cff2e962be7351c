"""Batch size and number of steps as numbers, where a recipe leaves them to the machine or to the text.

What follows from the text (`train.tokens`, `train.epochs`) is computed at every start. What is measured on
the machine (`train.hours`, a batch size of "auto") is kept in `decided.json` in the run folder, so that a
resumed run uses the same numbers on any machine.
"""

from __future__ import annotations

import json
import math
from typing import Any

from t5smith.base.artifact import disk_errors, fingerprint, write_atomically
from t5smith.base.errors import T5smithError
from t5smith.objective.batches import TrainingBatches
from t5smith.recipe.recipe import Recipe, plain
from t5smith.recipe.train import LENGTHS, TrainSettings

DECIDED = "decided.json"
SAMPLE_BATCHES = 8
"""Number of batches whose tokens are counted to estimate the tokens per batch."""


def unresolved_settings(train: TrainSettings) -> list[str]:
    """Names of the settings whose values only a measurement on the machine gives."""
    names = {"batch_size": train.batch_size == "auto", "hours": train.hours is not None}
    return [name for name, unresolved in names.items() if unresolved]


def with_measured_settings(recipe: Recipe) -> Recipe:
    """The recipe with the numbers that were measured for it.

    Raises:
      T5smithError: they have not been measured yet.
    """
    names = unresolved_settings(recipe.train)
    if not names:
        return recipe
    measured = read_measured(recipe)
    if measured is None:
        raise T5smithError(
            "not measured yet: training does so when it starts",
            where=" and ".join(f"train.{name}" for name in names),
            fix="run `t5smith train` first, or set a number",
        )
    return _replaced(recipe, measured)


def save_measured(recipe: Recipe, values: dict[str, int]) -> None:
    """Keep what was measured for a recipe: `batch_size`, `steps` or both."""
    tree = {"for": _measured_for(recipe), **values}
    with disk_errors(recipe.folder):
        write_atomically(recipe.folder / DECIDED, json.dumps(tree, indent=1) + "\n")


def read_measured(recipe: Recipe) -> dict[str, int] | None:
    """What was measured for exactly this model, objective and training; None without."""
    try:
        tree = json.loads((recipe.folder / DECIDED).read_text(encoding="utf-8"))
        if tree.pop("for") == _measured_for(recipe):
            return {name: int(value) for name, value in tree.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def with_steps(recipe: Recipe, batches: TrainingBatches) -> Recipe:
    """The recipe with its number of steps, where its length is given in tokens or epochs."""
    train = recipe.train
    if train.tokens is not None:
        return _replaced(recipe, {"steps": math.ceil(train.tokens / tokens_per_batch(batches))})
    if train.epochs is not None:
        windows = batches.split.window_count(batches.objective.window)
        plan = batches.objective.plan
        windows_per_batch = batches.batch_size * plan.windows / len(plan.rows)
        return _replaced(recipe, {"steps": math.ceil(train.epochs * windows / windows_per_batch)})
    return recipe


def tokens_per_batch(batches: TrainingBatches) -> float:
    """Mean number of input and target tokens per batch, without padding, over the first batches."""
    pad = batches.objective.pad_id
    sample = [batches[b] for b in range(SAMPLE_BATCHES)]
    tokens = sum(int((batch[name] != pad).sum()) for batch in sample for name in ("input_ids", "targets"))
    return tokens / SAMPLE_BATCHES


def trial_recipe(recipe: Recipe, batch_size: int) -> Recipe:
    """The recipe with this batch size, and more steps than its warm-up needs: to try a step."""
    steps = (recipe.train.schedule.warmup_steps or 0) + 1_000_000
    return _replaced(recipe, {"batch_size": batch_size, "steps": steps})


def _replaced(recipe: Recipe, values: dict[str, int]) -> Recipe:
    changes: dict[str, Any] = {f"train.{name}": value for name, value in values.items()}
    if "steps" in values:
        changes |= {f"train.{name}": None for name in LENGTHS}
    return recipe.replace(**changes)


def _measured_for(recipe: Recipe) -> str:
    """Fingerprint of what a measurement depends on, besides the machine."""
    return fingerprint(
        {"model": recipe.model.shape(), "objective": plain(recipe.objective), "train": plain(recipe.train)}
    )
