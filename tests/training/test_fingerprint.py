"""Each setting has a place: the parameters depend on it, or they do not."""

from __future__ import annotations

import pytest

from t5smith.recipe.recipe import Recipe
from t5smith.recipe.train import LENGTHS, OptimizerSettings, ScheduleSettings, TrainSettings
from t5smith.training.resume.fingerprint import NOT_IN_FINGERPRINT, training_fingerprint
from tiny import tiny_recipe

BY_THE_STORE = {"corpus", "cleaning", "vocab", "prepare"}
"""Tables that decide the store, whose key is among the inputs of a training."""
WITHOUT_EFFECT = {"name", "run_dir", "language", "license", "evaluate", "export", "finetune"}

DEPENDS = {
    "seed": 1,
    "objective.input_length": 40,
    "objective.noise_density": 0.3,
    "model.d_ff": 40,
    "model.num_layers": 3,
    "model.feed_forward": "relu",
    "model.relative_attention_bias": "per-layer",
    "model.tie_word_embeddings": True,
    "train.batch_size": 8,
    "train.precision": "bfloat16",
    "train.z_loss": 0.1,
    "train.label_smoothing": 0.1,
    "train.dropout_rate": 0.1,
    "train.average_decay": 0.9,
    "train.explosion_factor": 50.0,
    "train.rollback_after": 7,
    "train.optimizer.name": "adamw",
    "train.optimizer.learning_rate": 0.5,
    "train.optimizer.weight_decay": 0.1,
    "train.optimizer.beta1": 0.8,
    "train.optimizer.beta2": 0.9,
    "train.optimizer.epsilon": 1e-5,
    "train.optimizer.clip_norm": 2.0,
    "train.schedule.name": "wsd",
    "train.schedule.warmup_steps": 3,
    "train.schedule.plateau_steps": 5,
    "train.schedule.decay_fraction": 0.5,
    "train.schedule.final_fraction": 0.5,
}
"""Settings that the parameters depend on, each with another value than the tiny recipe's."""

DOES_NOT = {
    "train.gradient_accumulation": 2,
    "train.remat": "full",
    "train.checkpoint_every": 5,
    "train.keep_checkpoints": 5,
    "train.keep_every": 5,
    "train.log_every": 5,
    "train.loggers": (),
    "train.evaluate_every": 5,
    "train.prefetch_batches": 5,
    "train.prefetch_workers": 1,
    "train.steps": 60,
    "train.init_from": "some/model",
    "train.mesh": "data=2",
}
"""Settings that they do not depend on; the number of steps only under a schedule that never falls."""


def names(settings: type, table: str) -> set[str]:
    return {f"{table}.{name}" for name in settings.model_fields}


def test_a_new_setting_of_training_must_be_put_somewhere():
    placed = DEPENDS.keys() | DOES_NOT.keys() | {"train.keep_best", "train.optimizer", "train.schedule"}
    assert names(TrainSettings, "train") <= placed | {f"train.{name}" for name in LENGTHS}
    assert names(OptimizerSettings, "train.optimizer") <= placed
    assert names(ScheduleSettings, "train.schedule") <= placed
    without_effect = {f"train.{name}" for name in NOT_IN_FINGERPRINT}
    assert without_effect == DOES_NOT.keys() - {"train.steps"} | {"train.keep_best"}
    tables = {dotted.split(".")[0] for dotted in DEPENDS}
    assert Recipe.model_fields.keys() == tables | BY_THE_STORE | WITHOUT_EFFECT


@pytest.mark.parametrize("setting", DEPENDS)
def test_the_parameters_depend_on_it(tmp_path, setting):
    recipe = tiny_recipe(tmp_path)
    changed = recipe.replace(**{setting: DEPENDS[setting]})
    assert training_fingerprint(changed) != training_fingerprint(recipe)


@pytest.mark.parametrize("setting", DOES_NOT)
def test_the_parameters_do_not_depend_on_it(tmp_path, setting):
    recipe = tiny_recipe(tmp_path)
    changed = recipe.replace(**{setting: DOES_NOT[setting]})
    assert changed != recipe
    assert training_fingerprint(changed) == training_fingerprint(recipe)


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd"])
def test_the_number_of_steps_matters_where_the_learning_rate_falls(tmp_path, name):
    recipe = tiny_recipe(tmp_path, **{"train.schedule.name": name})
    longer = recipe.replace(**{"train.steps": 60})
    assert training_fingerprint(longer) != training_fingerprint(recipe)


def test_the_number_of_steps_matters_where_the_default_warm_up_follows_from_it(tmp_path):
    recipe = tiny_recipe(tmp_path, **{"train.schedule.warmup_steps": None, "train.steps": 200})
    longer = recipe.replace(**{"train.steps": 400})
    by_hand = recipe.replace(**{"train.schedule.warmup_steps": 10})
    assert training_fingerprint(longer) != training_fingerprint(recipe)
    assert training_fingerprint(by_hand) == training_fingerprint(recipe)


def test_the_default_learning_rate_and_the_same_one_by_hand_are_the_same(tmp_path):
    recipe = tiny_recipe(tmp_path, **{"train.optimizer.name": "adafactor"})
    by_hand = recipe.replace(**{"train.optimizer.learning_rate": 0.04})
    assert training_fingerprint(by_hand) == training_fingerprint(recipe)
