"""Batch size and number of steps as numbers, where a recipe leaves them to the machine or to the text.

What follows from the text (`train.tokens`, `train.epochs`) is computed at every start. What is measured on
the machine (a batch size of "auto", the steps of `train.hours`) is kept in `decided.json` in the run folder,
so that a resumed run uses the same numbers on any machine. The steps of `train.hours` are an estimate, which
the clock corrects: see :mod:`t5smith.training.timing.clock`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp

from t5smith.base.artifact import fingerprint
from t5smith.base.disk import disk_errors, write_atomically
from t5smith.base.errors import T5smithError
from t5smith.base.run_folder import TRAIN
from t5smith.model.config import ModelConfig
from t5smith.objective.batches import Objective, TrainingBatches, corpus_weights
from t5smith.parallel.mesh import Devices, choose_devices
from t5smith.recipe.recipe import Recipe, plain
from t5smith.recipe.train import AUTO, LENGTHS, TrainSettings
from t5smith.store.token_store import TokenStore
from t5smith.training.optimizer import create_optimizer, peak_learning_rate
from t5smith.training.schedule import warmup_steps
from t5smith.training.state import abstract_state
from t5smith.training.timing.record import CLOCK, DECIDED, Record, Spent, read_record

MEASURED_WITH = {
    "batch_size",
    "hours",
    "gradient_accumulation",
    "remat",
    "precision",
    "label_smoothing",
    "dropout_rate",
    "average_decay",
}
"""Settings of [train] that a measurement depends on."""
SAMPLE_BATCHES = 8
"""Number of batches whose tokens are counted to estimate the tokens per batch."""


def devices_of(recipe: Recipe, config: ModelConfig) -> Devices:
    """The devices of a recipe with a number for the batch size."""
    train = recipe.train

    def state_bytes() -> int:
        # Only the size matters, which no schedule changes.
        optimizer = create_optimizer(train.optimizer, lambda _: jnp.zeros(()), config.num_heads, "xla")
        shapes = abstract_state(config, optimizer, train.average_decay is not None)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))

    return choose_devices(train.mesh, config, train.rows // train.gradient_accumulation, state_bytes)


def training_batches(recipe: Recipe, store: TokenStore, objective: Objective) -> TrainingBatches:
    """The training batches of a recipe with a number for the batch size."""
    return TrainingBatches(
        store.train,
        objective,
        recipe.train.rows,
        recipe.seed,
        recipe.objective.shift_windows,
        corpus_weights(recipe.corpus, store.train),
    )


def unresolved_settings(train: TrainSettings) -> list[str]:
    """Names of the settings whose values only a measurement on the machine gives."""
    names = {"batch_size": train.batch_size == "auto", "hours": train.hours is not None}
    return [name for name, unresolved in names.items() if unresolved]


def clock_of(
    recipe: Recipe, trained: Mapping[str, Any] | None = None, train: Path | None = None
) -> Spent | None:
    """What the clock decided so far in a recipe's training; None without, or if its steps are fixed.

    They are in a training of an earlier version, which converted hours to steps once.

    Args:
      recipe: its length may be in hours.
      trained: inputs of the steps that are trained; None or empty without any.
      train: their folder `train`, if it is archived.
    """
    if recipe.train.hours is None or (trained and "steps" in trained["train"]):
        return None
    found = read_record(recipe.folder, (train or recipe.folder / TRAIN) if trained else None)
    if found and not trained and _saved(recipe).get("for") != _measured_for(recipe):
        return None
    return found


def expected_steps(recipe: Recipe, found: Spent) -> int:
    """Number of steps of a training by the clock; by its pace so far if its hours were changed."""
    hours = recipe.train.hours
    if hours is None or hours == found.record.hours or not found.seconds:
        return found.record.end
    return max(1, round(found.step * hours * 3600 / found.seconds))


def with_measured_settings(
    recipe: Recipe, trained: Mapping[str, Any] | None = None, train: Path | None = None
) -> Recipe:
    """The recipe with the numbers that were measured for it.

    Args:
      recipe: its batch size or length may be left to the machine.
      trained: inputs of the steps that are trained; None or empty without any.
      train: their folder `train`, if it is archived.

    Raises:
      T5smithError: they have not been measured yet.
    """
    names = unresolved_settings(recipe.train)
    if not names:
        return recipe
    measured = read_measured(recipe, trained, train)
    if measured is None:
        raise T5smithError(
            "not measured yet: training does so when it starts",
            where=" and ".join(f"train.{name}" for name in names),
            fix="run `t5smith train` first, or set a number",
        )
    if found := clock_of(recipe, trained, train):
        # Warm-up and learning rate are those of the first estimate, whatever the clock made of it.
        estimate = found.record.points[0][2]
        warmup = warmup_steps(recipe.train.schedule, estimate)
        rate = None if trained else peak_learning_rate(_replaced(recipe, measured), estimate)
        return _replaced(recipe, measured, warmup if warmup < measured["steps"] else None, rate)
    return _replaced(recipe, measured)


def save_measured(recipe: Recipe, values: Mapping[str, Any]) -> None:
    """Keep what was measured for a recipe: `batch_size`, and for hours `steps` and the clock's record."""
    _write(recipe, {"for": _measured_for(recipe), **values})


def save_record(recipe: Recipe, record: Record) -> None:
    """Keep what the clock decided, beside what was measured."""
    _write(recipe, {**_saved(recipe), CLOCK: record.to_json()})


def _write(recipe: Recipe, tree: dict[str, Any]) -> None:
    with disk_errors(recipe.folder):
        write_atomically(recipe.folder / DECIDED, json.dumps(tree, indent=1) + "\n")


def _saved(recipe: Recipe) -> dict[str, Any]:
    try:
        tree = json.loads((recipe.folder / DECIDED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", tree) if isinstance(tree, dict) else {}


def read_measured(
    recipe: Recipe, trained: Mapping[str, Any] | None = None, train: Path | None = None
) -> dict[str, int] | None:
    """What was measured for this model, objective and training; None without.

    Once there are trained steps, what they were trained with is never measured again.

    Args: see :func:`with_measured_settings`.
    """
    names = {"steps" if name == "hours" else name for name in unresolved_settings(recipe.train)}
    values: dict[str, int] = {}
    try:
        tree = _saved(recipe)
        if trained or tree.get("for") == _measured_for(recipe):
            values = {name: int(tree[name]) for name in names & tree.keys()}
    except (ValueError, TypeError):
        pass
    if trained:
        settings = trained["train"]
        values |= {name: settings[name] for name in names & settings.keys()}
    if found := clock_of(recipe, trained, train):
        values["steps"] = expected_steps(recipe, found)
    elif recipe.train.hours is not None and not trained:
        return None
    return values if names <= values.keys() else None


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


def _replaced(
    recipe: Recipe, values: dict[str, int], warmup: int | None = None, rate: float | None = None
) -> Recipe:
    changes: dict[str, Any] = {f"train.{name}": value for name, value in values.items()}
    if "steps" in values:
        changes |= {f"train.{name}": None for name in LENGTHS}
    if warmup is not None:
        changes["train.schedule.warmup_steps"] = warmup
    if rate is not None:
        changes["train.optimizer.learning_rate"] = rate
    return recipe.replace(**changes)


def _measured_for(recipe: Recipe) -> str:
    """Fingerprint of what a measurement depends on: all that decides the time and memory of a step."""
    train, platform = recipe.train, jax.devices()[0].platform
    alone = train.mesh == AUTO and (platform == "cpu" or jax.device_count() == 1)
    return fingerprint(
        {
            "device": jax.devices()[0].device_kind,
            "vocab": [recipe.vocab.size, recipe.vocab.tokenizer],
            "model": recipe.model.shape(),
            "objective": plain(recipe.objective),
            "train": train.model_dump(mode="json", include=MEASURED_WITH),
            "optimizer": train.optimizer.name,
            **({} if alone else {"mesh": [train.mesh, jax.device_count()]}),
        }
    )
