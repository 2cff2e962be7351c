"""How long training takes: which steps are timed, and what is added for evaluations and checkpoints."""

from __future__ import annotations

from itertools import accumulate

import pytest

from t5smith.base.progress import Bar
from t5smith.recipe.train import TrainSettings
from t5smith.training.compile import compiled_step
from t5smith.training.setup import Run
from t5smith.training.timing import forecast as module
from t5smith.training.timing import trial
from t5smith.training.timing.forecast import Forecast
from t5smith.training.timing.summary import evaluation_seconds, expected_memory, first_forecast, state_bytes
from t5smith.training.train import train
from tiny import tiny_recipe


def settings(**changes):
    return TrainSettings.model_validate({"steps": 1_000, "checkpoint_every": 400, **changes})


def timed(monkeypatch, seconds):
    """The moments at which the steps of a trial end, which take so many seconds each."""
    monkeypatch.setattr(trial, "SECONDS", 2.0)
    ends = []
    for end in accumulate(seconds):
        ends.append(end)
        if trial.is_enough(0.0, ends):
            return ends
    raise AssertionError("the trial does not end")


@pytest.mark.parametrize(
    ("step", "steps"), [(0.02, 101), (0.5, 5), (0.9, 4), (2.4, 5), (4.0, 3), (10.0, 2), (60.0, 2)]
)
def test_steps_are_timed_for_two_seconds_but_slow_ones_hardly(monkeypatch, step, steps):
    ends = timed(monkeypatch, [step] * 1_000)
    assert abs(len(ends) - steps) <= 1
    assert len(ends) >= 2
    assert trial.seconds_per_step(ends) == pytest.approx(step)


@pytest.mark.parametrize("slow", [{0: 3.0}, {0: 3.0, 1: 1.0}, {0: 3.0, 1: 1.0, 2: 0.5}, {30: 1.0}])
def test_steps_that_wait_for_the_heap_are_not_taken_for_usual_ones(monkeypatch, slow):
    ends = timed(monkeypatch, [slow.get(number, 0.02) for number in range(1_000)])
    assert trial.seconds_per_step(ends) == pytest.approx(0.02)


def test_evaluations_and_checkpoints_count(monkeypatch):
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 2.0)
    monkeypatch.setattr(module, "BYTES_PER_SECOND", 100.0)
    forecast = Forecast(settings(), 0.1, evaluate_every=300, evaluation=7.0, state_bytes=300)
    # After 300, 600, 900 and 1,000 steps; after 400, 800 and 1,000.
    assert forecast.left(0) == pytest.approx(1_000 * 0.1 + 4 * 7 + 3 * 5)
    assert forecast.left(600) == pytest.approx(400 * 0.1 + 2 * 7 + 2 * 5)
    assert forecast.left(1_000) == 0
    # The first evaluation also compiles.
    forecast.evaluated(30.0)
    assert forecast.evaluation == 7.0
    forecast.evaluated(9.0)
    forecast.saved(1.0)
    assert forecast.left(900) == pytest.approx(100 * 0.1 + 9 + 1)


def test_the_last_step_is_counted_once():
    forecast = Forecast(settings(steps=800), 0.1, evaluate_every=400)
    assert forecast.evaluations_left(0) == 2
    assert forecast.checkpoints_left(0) == 2
    assert Forecast(settings(), 0.1).evaluations_left(0) == 0


def test_the_pace_is_that_of_the_last_minute():
    forecast = Forecast(settings(), 0.1)
    forecast.stepped(1.5)
    assert forecast.step == 0.1
    forecast.stepped(0.5)
    assert forecast.step == 1.0
    for _ in range(100):
        forecast.stepped(2.0)
    assert forecast.step == 2.0
    # The machine is calm again.
    for _ in range(600):
        forecast.stepped(0.1)
    assert forecast.step == pytest.approx(0.1)


def test_the_pace_is_that_of_all_steps_not_of_the_usual_one():
    forecast = Forecast(settings(), 0.1)
    for _ in range(20):
        forecast.stepped(0.1)
        forecast.stepped(0.3)
    assert forecast.step == pytest.approx(0.2)


def test_the_first_forecast_is_of_the_recipe(run_folder):
    recipe = tiny_recipe(run_folder, **{"train.steps": 100, "train.evaluate_every": 25})
    setup = Run(recipe).setup
    forecast = first_forecast(setup, 0.5, 25, 0)
    assert forecast.evaluations_left(0) == 4
    windows = setup.store.valid.window_count(setup.objective.window)
    # A third of the operations of a step with as many examples.
    assert forecast.evaluation == pytest.approx(0.5 * windows / 4 / 3)
    assert evaluation_seconds(setup, 8, 0.5) == pytest.approx(0.5 * 8 / 4 / 3)
    assert forecast.left(0) > 100 * 0.5 + 4 * forecast.evaluation


def test_the_memory_of_the_process_is_more_than_that_of_the_program(run_folder):
    setup = Run(tiny_recipe(run_folder)).setup
    step = compiled_step(setup)
    batches = 3 * 4 * (32 + 8) * 4
    assert step.runtime > 10_000_000
    assert step.memory > state_bytes(setup) > 3 * 29_000
    assert expected_memory(setup, step) == step.runtime + step.memory + batches + state_bytes(setup)


def test_steps_are_tried_on_a_state_of_their_own(run_folder):
    setup = Run(tiny_recipe(run_folder)).setup
    found = trial.try_steps(setup, compiled_step(setup))
    assert 0 < found.seconds < 60


def test_training_corrects_the_forecast_and_announces_its_phases(run_folder, monkeypatch, capfd):
    calls: list[tuple[str, float]] = []
    for name in ("stepped", "evaluated", "saved"):
        monkeypatch.setattr(Forecast, name, lambda self, seconds, name=name: calls.append((name, seconds)))
    monkeypatch.setattr(Forecast, "left", lambda self, done: 1_000.0 - done)
    left: list[float] = []
    monkeypatch.setattr(Bar, "expect", lambda self, seconds: left.append(seconds))
    train(
        tiny_recipe(run_folder, **{"train.steps": 8, "train.evaluate_every": 2, "train.checkpoint_every": 2})
    )
    names = [name for name, _ in calls]
    assert names == ["stepped", "stepped", "evaluated", "saved"] * 4
    assert all(seconds > 0 for _, seconds in calls)
    # Four steps tell how long one takes.
    assert left[0] == 996
    assert left[-1] == 992
    lines = capfd.readouterr().err.splitlines()
    for doing in ("compiling the step", "initialising the parameters"):
        assert f"train     {doing}" in lines
