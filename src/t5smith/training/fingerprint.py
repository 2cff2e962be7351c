"""What the parameters depend on; a training whose settings have changed is archived and started again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t5smith.base.artifact import disk_errors, fingerprint, set_aside, write_atomically
from t5smith.base.progress import info
from t5smith.objective.batches import Objective, corpus_weights
from t5smith.recipe.recipe import Recipe, plain
from t5smith.recipe.train import LENGTHS
from t5smith.store.token_store import Split
from t5smith.training import checkpoints
from t5smith.training.optimizer import peak_learning_rate
from t5smith.training.schedule import FALLING, warmup_steps

SETTINGS = "settings.json"
NOT_IN_FINGERPRINT = {
    "checkpoint_every",
    "keep_checkpoints",
    "keep_every",
    "keep_best",
    "log_every",
    "loggers",
    "evaluate_every",
    "prefetch_batches",
    "prefetch_workers",
    # These two change how sums are rounded, not what is summed.
    "gradient_accumulation",
    "remat",
}
"""Settings of [train] that do not affect the parameters."""


def training_fingerprint(recipe: Recipe) -> dict[str, Any]:
    """The settings that the parameters depend on.

    The number of steps is one only if the learning rate falls towards the last step: otherwise a longer run
    continues from the checkpoint of a shorter one.
    """
    train = recipe.train.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT | {"steps", *LENGTHS})
    train["optimizer"]["learning_rate"] = peak_learning_rate(recipe.train.optimizer)
    train["schedule"]["warmup_steps"] = warmup_steps(recipe.train.schedule, recipe.train.steps)
    if recipe.train.schedule.name in FALLING:
        train["steps"] = recipe.train.steps
    return {
        "seed": recipe.seed,
        "objective": plain(recipe.objective),
        "model": recipe.model.shape(),
        "train": train,
    }


def data_order_fingerprint(recipe: Recipe, split: Split, objective: Objective) -> dict[str, Any]:
    """The mixing weights of several corpora, and which windows share a row if rows are packed.

    Packed rows come from a solver; another version of it may return other, equally good rows.
    """
    found: dict[str, Any] = {}
    if len(split.corpora) > 1:
        names = [corpus.name for corpus in split.corpora]
        found["corpora"] = dict(zip(names, corpus_weights(recipe.corpus, split), strict=True))
    if objective.plan.packed:
        plan = objective.plan
        found["rows"] = fingerprint([plan.input_length, plan.target_length, plan.rows])
    return found


def archive_if_incompatible(folder: Path, inputs: Mapping[str, Any], steps: int) -> None:
    """Make the training folder; move one with other inputs, or with more than `steps` steps, to `previous/`.

    Args:
      folder: `train` in the run folder.
      inputs: all that the parameters depend on.
      steps: number of steps of the training that is about to start or resume.
    """
    path = folder / SETTINGS
    with disk_errors(folder):
        if path.is_file():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                before = {}
            if before != inputs:
                changed = ", ".join(_differences(before, inputs)) or "settings"
                kept = set_aside(folder)
                info(f"train     restarting from scratch: {changed} changed; the old run is kept in {kept}")
            elif _is_longer(folder, steps):
                kept = set_aside(folder)
                info(f"train     restarting from scratch for fewer steps; the longer run is kept in {kept}")
        (folder / checkpoints.FOLDER).mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(inputs, indent=1) + "\n")


def _is_longer(folder: Path, steps: int) -> bool:
    """Whether there are checkpoints beyond this step, but none at it."""
    saved = checkpoints.saved_steps(folder / checkpoints.FOLDER)
    return bool(saved) and saved[-1] > steps and steps not in saved


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of what differs between two nested mappings."""
    names: list[str] = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            names += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            names.append(f"{prefix}{name}")
    return names
