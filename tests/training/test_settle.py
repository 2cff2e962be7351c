"""What was measured on the machine is used again for the same training, and for no other."""

from __future__ import annotations

import pytest

from t5smith.training.settle import (
    read_measured,
    save_measured,
    trial_recipe,
    unresolved_settings,
    with_measured_settings,
)
from tiny import tiny_recipe

MEASURED = {"batch_size": 24, "steps": 70}
RECORD = {"hours": 1.0, "points": [[0, 0.0, 70]], "training": "", "finished": False}


@pytest.fixture
def recipe(tmp_path):
    recipe = tiny_recipe(tmp_path, **{"train.batch_size": "auto", "train.hours": 1.0})
    save_measured(recipe, {**MEASURED, "clock": RECORD})
    return recipe


def test_measured_numbers_replace_unresolved_settings(recipe):
    train = with_measured_settings(recipe).train
    assert (train.batch_size, train.steps, train.hours) == (24, 70, None)
    assert unresolved_settings(recipe.train) == ["batch_size", "hours"]
    assert unresolved_settings(train) == []


@pytest.mark.parametrize(
    "change", [{"name": "another"}, {"language": "nn"}, {"evaluate.windows": 3}, {"corpus.temperature": 2.0}]
)
def test_measurements_are_kept_while_the_step_is_the_same(recipe, change):
    assert read_measured(recipe.replace(**change)) == MEASURED


@pytest.mark.parametrize(
    "change",
    [
        {"model.d_ff": 40},
        {"model.num_layers": 3},
        {"objective.input_length": 40},
        {"train.precision": "bfloat16"},
    ],
)
def test_another_model_objective_or_training_is_measured_again(recipe, change):
    assert read_measured(recipe.replace(**change)) is None


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"for": 1'])
def test_a_damaged_file_is_measured_again(recipe, damage):
    (recipe.folder / "decided.json").write_text(damage)
    assert read_measured(recipe) is None


def test_trained_steps_keep_their_numbers_whatever_is_measured_now(recipe):
    trained = {"train": {"batch_size": 16}}
    other = recipe.replace(**{"model.d_ff": 40})
    found = read_measured(other, trained)
    assert found is not None
    assert found["batch_size"] == 16
    assert found["steps"] == MEASURED["steps"]


def test_the_learning_rate_is_that_of_the_first_estimate(recipe):
    record = {**RECORD, "points": [[0, 0.0, 6_400], [100, 0.5, 400]]}
    save_measured(recipe, {**MEASURED, "clock": record})
    measured = with_measured_settings(recipe)
    assert measured.train.steps == 400
    assert measured.train.optimizer.learning_rate == 0.027
    by_hand = recipe.replace(**{"train.optimizer.learning_rate": 0.5})
    assert with_measured_settings(by_hand).train.optimizer.learning_rate == 0.5


def test_a_trial_has_steps_beyond_its_warm_up(tmp_path):
    recipe = tiny_recipe(tmp_path, **{"train.hours": 1.0, "train.schedule.warmup_steps": 5_000_000})
    train = trial_recipe(recipe, 16).train
    assert train.rows == 16
    assert train.in_steps
    assert train.steps > 5_000_000
