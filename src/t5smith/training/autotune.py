"""What a recipe leaves open and the machine or the text decides: how many rows a step, how many steps.

What the text decides is worked out anew each time. What the machine decided is kept in `decided.json` in the
run folder, so that a run goes on as it began, on whatever machine.
"""

from __future__ import annotations

import json
import math
from typing import Any

from t5smith.base.artifact import disk_errors, fingerprint, write_atomically
from t5smith.base.errors import T5smithError
from t5smith.objective.batches import TrainingBatches
from t5smith.recipe.recipe import Recipe, plain
from t5smith.recipe.train import LENGTHS

DECIDED = "decided.json"
SAMPLE = 8
"""Batches whose tokens are counted to know how many a batch has, where they differ."""


def unresolved_settings(recipe: Recipe) -> list[str]:
    """The settings whose values only the machine can tell."""
    train = recipe.train
    return ["batch_size"] * (train.batch_size == "auto") + ["hours"] * (train.hours is not None)


def with_measured_settings(recipe: Recipe) -> Recipe:
    """The recipe with what was decided on the machine before.

    Raises:
      T5smithError: nothing was decided yet.
    """
    names = unresolved_settings(recipe)
    if not names:
        return recipe
    found = _read(recipe)
    if found is None:
        raise T5smithError(
            "this is decided when training starts, and has not been",
            where=" and ".join(f"train.{name}" for name in names),
            fix="run `t5smith train` first, or give a number",
        )
    return _changed(recipe, found)


def keep(recipe: Recipe, values: dict[str, int]) -> None:
    """Write down what was decided for a recipe: `batch_size`, `steps` or both."""
    tree = {"for": _asked(recipe), **values}
    with disk_errors(recipe.folder):
        write_atomically(recipe.folder / DECIDED, json.dumps(tree, indent=1) + "\n")


def is_decided(recipe: Recipe) -> bool:
    """Whether nothing is left to be found out on the machine."""
    return not unresolved_settings(recipe) or _read(recipe) is not None


def with_steps(recipe: Recipe, batches: TrainingBatches) -> Recipe:
    """The recipe with its length in steps, where it was given as tokens or epochs."""
    train = recipe.train
    if train.tokens is not None:
        return _changed(recipe, {"steps": math.ceil(train.tokens / tokens_per_batch(batches))})
    if train.epochs is not None:
        windows = batches.split.window_count(batches.objective.window)
        plan = batches.objective.plan
        per_batch = batches.batch_size * plan.windows / len(plan.rows)
        return _changed(recipe, {"steps": math.ceil(train.epochs * windows / per_batch)})
    return recipe


def tokens_per_batch(batches: TrainingBatches) -> float:
    """Tokens of inputs and targets in a batch, without padding: the mean of the first few."""
    pad = batches.objective.pad_id
    first = [batches[b] for b in range(SAMPLE)]
    return (
        sum(int((batch[name] != pad).sum()) for batch in first for name in ("input_ids", "targets")) / SAMPLE
    )


def trial_recipe(recipe: Recipe, rows: int) -> Recipe:
    """The recipe with some rows a step, and steps enough for its warm-up: to try things out."""
    return _changed(
        recipe, {"batch_size": rows, "steps": (recipe.train.schedule.warmup_steps or 0) + 1_000_000}
    )


def _changed(recipe: Recipe, values: dict[str, int]) -> Recipe:
    changes: dict[str, Any] = {f"train.{name}": value for name, value in values.items()}
    if "steps" in values:
        changes |= {f"train.{name}": None for name in LENGTHS}
    return recipe.replace(**changes)


def _asked(recipe: Recipe) -> str:
    """Fingerprint of what a decision depends on, besides the machine."""
    return fingerprint(
        {"model": plain(recipe.model), "objective": plain(recipe.objective), "train": plain(recipe.train)}
    )


def _read(recipe: Recipe) -> dict[str, int] | None:
    """What was decided for this very recipe, if anything was."""
    try:
        found = json.loads((recipe.folder / DECIDED).read_text(encoding="utf-8"))
        if found.pop("for") == _asked(recipe):
            return {name: int(value) for name, value in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None
