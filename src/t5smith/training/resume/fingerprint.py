"""What the parameters depend on, and whether a checkpoint can belong to a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from t5smith.base.artifact import fingerprint
from t5smith.base.run_folder import differences
from t5smith.objective.batches import Objective, corpus_weights
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.recipe import Recipe, plain
from t5smith.recipe.train import LENGTHS, TrainSettings
from t5smith.store.token_store import Split
from t5smith.training.optimizer import peak_learning_rate
from t5smith.training.schedule import FALLING, decay_start, warmup_steps

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
    # These change how sums are rounded, not what is summed.
    "gradient_accumulation",
    "mesh",
    "remat",
    # The content of the model is part of the fingerprint, not its name.
    "init_from",
}
"""Settings of [train] that do not affect the parameters."""
ONLY_FOR = {
    "train.optimizer": {
        **dict.fromkeys(("beta1", "beta2", "epsilon"), ("adamw", "adamwscale", "muon")),
    },
    "train.schedule": {
        "plateau_steps": ("inverse_sqrt",),
        "decay_fraction": ("wsd",),
        "final_fraction": FALLING,
    },
    "objective": {"mean_noise_span_length": ("span_corruption",)},
}
"""Settings that have an effect under some names of their table only."""


def training_fingerprint(recipe: Recipe, hours: float | None = None) -> dict[str, Any]:
    """The settings that the parameters depend on.

    The number of steps is one only if the learning rate falls towards the last step: otherwise a longer run
    continues from the checkpoint of a shorter one. With `train.hours` it is the hours.

    Args:
      recipe: with a number of steps.
      hours: how long training lasts by the clock; None: as many steps as the recipe says.
    """
    train = recipe.train.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT | {"steps", *LENGTHS})
    train["optimizer"]["learning_rate"] = peak_learning_rate(recipe)
    train["schedule"]["warmup_steps"] = warmup_steps(recipe.train.schedule, recipe.train.steps)
    if recipe.train.schedule.name in FALLING:
        train |= {"steps": recipe.train.steps} if hours is None else {"hours": hours}
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


def settings_in_effect(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a training without settings that have no effect, and with those it did not know yet.

    A training of an earlier version lacks the settings that were added since; it had their defaults.
    """
    tree = deepcopy(dict(inputs))
    if not tree.get("extended"):
        tree.pop("extended", None)
    tables = {"objective": ObjectiveSettings(), "model": ModelSettings(), "train": TrainSettings()}
    for table, defaults in tables.items():
        known = defaults.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT | {"steps", *LENGTHS})
        for name, value in known.items():
            if value is not None and table in tree and not isinstance(value, dict):
                tree[table].setdefault(name, value)
    for dotted, names in ONLY_FOR.items():
        table = _table(tree, dotted)
        for name, of in names.items():
            if table.get("name") not in of:
                table.pop(name, None)
    return tree


def _table(tree: dict[str, Any], dotted: str) -> dict[str, Any]:
    for part in dotted.split("."):
        tree = tree.get(part, {})
    return tree


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ between the inputs of two trainings, as `name old → new`.

    What follows from another difference is not named: the default learning rate of another optimizer, the
    default warm-up of another schedule, the rows of another batch.
    """
    old, new = settings_in_effect(before), settings_in_effect(now)
    derived = {"rows", "extended", "store"}
    for dotted, only_for in ONLY_FOR.items():
        before_table, now_table = _table(old, dotted), _table(new, dotted)
        if before_table.get("name") != now_table.get("name"):
            missing = only_for.keys() - (before_table.keys() & now_table.keys())
            derived |= {f"{dotted}.{name}" for name in {*missing, "learning_rate", "warmup_steps"}}
            derived |= {"train.steps", "train.hours"} if dotted == "train.schedule" else set()
    found = [text for text in differences(old, new) if text.split(" ")[0] not in derived]
    if weights := [text for text in found if text.startswith("corpora.")]:
        found = [text for text in found if text not in weights] + ["corpus.weights or corpus.temperature"]
    if not found and old.get("store") != new.get("store"):
        return ["another store, made of other text or settings"]
    if not found and old.get("rows") != new.get("rows"):
        return ["another packing of the examples"]
    return found


def continues(before: Mapping[str, Any], now: Mapping[str, Any], step: int) -> bool:
    """Whether a state is one that another training has too.

    It is if the settings are equal, and the learning rates of all its steps are: that of `wsd`, for instance,
    does not depend on `train.steps` until it falls.

    Args:
      before: inputs of the training that made the state.
      now: inputs of the other training.
      step: number of updates of the state.
    """
    old, new = settings_in_effect(before), settings_in_effect(now)
    if old == new:
        return True
    for number, (end, train) in enumerate(now.get("extended", ())):
        earlier = {**now, "train": train, "extended": now["extended"][:number]}
        if step <= end and continues(before, earlier, step):
            return True
    (shape, until), (other_shape, other_until) = _rates(old), _rates(new)
    return old == new and shape == other_shape and step <= min(until, other_until)


def _rates(inputs: dict[str, Any]) -> tuple[tuple[Any, ...], float]:
    """The shape of the first learning rates, and how many steps have it.

    The schedule is removed from the inputs, so that the rest can be compared.
    """
    hours, steps = inputs["train"].pop("hours", None), inputs["train"].pop("steps", None)
    inputs.pop("extended", None)
    schedule = inputs["train"].pop("schedule")
    shape = ("flat", schedule["warmup_steps"])
    if schedule["name"] == "inverse_sqrt":
        shape = ("inverse_sqrt", schedule["warmup_steps"], schedule["plateau_steps"])
    if hours is not None:
        # The clock may have corrected any step after the warm-up.
        return shape, schedule["warmup_steps"] if schedule["name"] in FALLING else math.inf
    return shape, math.inf if steps is None else decay_start(schedule, steps)
