"""`train.hours` is kept by the clock, and what the clock decided can be done again, bit for bit."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError, TrainingAtStake
from t5smith.recipe.train import ScheduleSettings, TrainSettings
from t5smith.training import compile as compiling
from t5smith.training import train as stage
from t5smith.training.loop import Loop
from t5smith.training.metrics import read_rows
from t5smith.training.resume import checkpoints
from t5smith.training.schedule import create_schedule, create_timed_schedule
from t5smith.training.setup import Run
from t5smith.training.timing import autotune, clock
from t5smith.training.timing.clock import Clock, points_after, progress
from t5smith.training.timing.forecast import Forecast
from t5smith.training.timing.record import Record
from t5smith.training.timing.trial import StepTrial
from t5smith.training.train import train
from tiny import tiny_recipe

SCHEDULES = ["linear", "cosine", "wsd", "constant", "inverse_sqrt"]


class FakeTime:
    """A clock that only moves when it is told to, and a little whenever it is read."""

    def __init__(self, monkeypatch):
        self.seconds = 0.0
        monkeypatch.setattr(clock, "now", self.read)

    def read(self):
        self.seconds += 1e-4
        return self.seconds


def simulated(time, limit, guess, pace, *, evaluate_every, evaluation, checkpoint, begins):
    """The record of a simulated training, and the seconds it took; `pace` gives the seconds of a step."""
    train = TrainSettings.model_validate({"steps": guess, "checkpoint_every": 50})
    forecast = Forecast(
        train, limit / guess, evaluate_every=evaluate_every, evaluation=evaluation, state_bytes=0
    )
    forecast.checkpoint = forecast.last_checkpoint = checkpoint
    warmup = guess // 20
    time.seconds = begins
    kept = []
    timer = Clock(
        Record(limit / 3600, ((0, 0.0, guess),)),
        forecast,
        0.01,
        warmup,
        spent=0.0,
        begun=0.0,
        save=kept.append,
    )
    done = 0
    while done < timer.end:
        seconds = pace(time.seconds)
        time.seconds += seconds
        done += 1
        forecast.stepped(seconds)
        if timer.updated(done):
            # It is kept before a step uses it: the next update may be under way.
            assert kept[-1] == timer.record
            assert timer.record.points[-1][0] == done + 1
        if done % evaluate_every == 0 or done == timer.end:
            time.seconds += evaluation
            forecast.evaluated(evaluation)
        if done % 50 == 0 or done == timer.end:
            time.seconds += checkpoint
            forecast.saved(checkpoint)
    return timer, time.seconds


@settings(max_examples=40, deadline=None)
@given(
    step=st.floats(0.02, 1.5),
    wrong=st.floats(0.3, 3.0),
    later=st.floats(0.4, 2.5),
    evaluate_every=st.integers(10, 200),
    begins=st.floats(0.0, 30.0),
)
def test_training_ends_when_the_hours_do(step, wrong, later, evaluate_every, begins):
    """The trial is wrong, and the machine becomes faster or slower in the middle."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        time, limit = FakeTime(monkeypatch), 300.0
        timer, took = simulated(
            time,
            limit,
            max(2, round(limit / (step * wrong))),
            lambda now: step * (later if now > limit / 2 else 1.0),
            evaluate_every=evaluate_every,
            evaluation=2 * step,
            checkpoint=0.5,
            begins=begins,
        )
    assert took == pytest.approx(limit, rel=0.05)
    warmup, record = timer.record.points[0][2] // 20, timer.record
    steps = [progress(record, warmup, step) for step in range(record.end + 1)]
    assert steps[0] == 0
    assert steps[-1] == 1
    assert all(before <= after for before, after in pairwise(steps))
    assert all(progress(record, warmup, step) < 1 for step in range(record.end))
    # A repeated run makes the same of it.
    again = Record.from_json(json.loads(json.dumps(record.to_json())))
    assert again == record


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_a_correction_the_rates_are_those_of_a_fixed_number_of_steps(name):
    settings = ScheduleSettings(name=name, warmup_steps=10, plateau_steps=20)
    fixed = create_schedule(settings, 0.01, 100)
    timed = jax.jit(create_timed_schedule(settings))
    record = Record(1.0, ((0, 0.0, 100),))
    for step in range(100):
        rate = timed(jnp.int32(step), jnp.asarray(points_after(record, 0.01, 10, step)))
        assert float(rate) == pytest.approx(float(fixed(jnp.int32(step))), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("behind", [0, 1])
def test_the_step_finds_its_point_whether_the_last_update_was_made_or_not(behind):
    """Rates as the host computes them, from points sent after all updates were read, or all but one."""
    record = Record(1.0, ((0, 0.0, 100), (20, 0.1, 60), (22, 0.15, 200), (90, 0.5, 95)))
    settings = ScheduleSettings(name="linear", final_fraction=0.0)
    timed = jax.jit(create_timed_schedule(settings))
    for step in range(5, 95):
        rate = timed(jnp.int32(step), jnp.asarray(points_after(record, 1.0, 5, step - behind)))
        assert float(rate) == pytest.approx(1 - progress(record, 5, step), abs=1e-6)


PROGRAMS = {}


class Machine:
    """A machine whose steps take as long as it says, by a clock of its own."""

    def __init__(self, monkeypatch, pace=lambda step: 1.0):
        self.time, self.pace, self.dies_at, self.made = FakeTime(monkeypatch), pace, None, 0
        self.compiled = 0

        def compiled_step(setup, _begun=None):
            self.compiled += 1
            train = setup.recipe.train
            key = train.schedule.name, train.optimizer.learning_rate
            # The program does not depend on the number of steps.
            if key not in PROGRAMS:
                PROGRAMS[key] = compiling.compiled_step(setup)
            step = PROGRAMS[key]

            def run(state, batch, points):
                return step.run(state, batch, points)

            return compiling.CompiledStep(run, step.memory, step.batch_size)

        record = Loop.record

        def timed_record(loop, metrics):
            # The device is done with a step when its figures are read.
            if self.made == self.dies_at:
                raise KeyboardInterrupt
            self.made += 1
            self.time.seconds += self.pace(self.made)
            return record(loop, metrics)

        monkeypatch.setattr(Loop, "record", timed_record)
        for module in (autotune, stage):
            monkeypatch.setattr(module, "compiled_step", compiled_step)
            monkeypatch.setattr(module, "try_steps", lambda *_: StepTrial(1.0))


def hours_recipe(folder, **changes):
    timed = {"train.hours": 40 / 3600, "train.checkpoint_every": 10, "train.evaluate_every": 7}
    return tiny_recipe(
        folder, **{**timed, "train.schedule.name": "linear", "train.schedule.warmup_steps": None, **changes}
    )


def decided(recipe):
    return json.loads((recipe.folder / "decided.json").read_text())["clock"]


def state_of(recipe, folder):
    state = checkpoints.restore(folder, Run(recipe).setup.abstract_state())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.mark.slow
def test_a_killed_training_ends_in_time_and_its_record_gives_the_same_parameters(
    prepared, tmp_path, monkeypatch, capfd
):
    recipe = hours_recipe(shutil.copytree(prepared, tmp_path / "run"))
    machine = Machine(monkeypatch, lambda step: 1.0 if step <= 10 else 2.0)
    machine.dies_at = 18
    with pytest.raises(KeyboardInterrupt):
        train(recipe)
    assert machine.compiled == 1, "the trial's program trains"
    saved = checkpoints.latest(Run(recipe).setup.checkpoints, Run(recipe).setup.inputs)
    lost = machine.time.seconds - saved[1].facts["clock"]["seconds"]
    assert lost > 5
    before = decided(recipe)
    assert before["points"][1:], "corrections are kept before the steps that use them"
    machine.dies_at = None
    folder = train(recipe)
    facts = read_manifest(folder, "checkpoint").facts
    assert facts["clock"]["seconds"] == pytest.approx(40, rel=0.05)
    assert facts["step"] < 40
    # Over both starts; the time since the last checkpoint is lost.
    assert machine.time.seconds - lost == pytest.approx(40, rel=0.05)
    after = decided(recipe)
    assert after["points"][: len(before["points"])] == before["points"]
    assert after["finished"]
    assert after["points"][-1][2] == facts["step"]
    # The other stages find the last checkpoint, and training is done.
    assert Run(recipe).trained[0] == folder
    capfd.readouterr()
    assert train(recipe) == folder
    assert "already done" in capfd.readouterr().err

    again = hours_recipe(shutil.copytree(prepared, tmp_path / "again"))
    shutil.copy(recipe.folder / "decided.json", again.folder)
    machine.pace = lambda step: 0.1
    repeated = train(again)
    assert repeated.name == folder.name
    rates = [
        [row["learning_rate"] for row in read_rows(r.folder / "train" / "metrics.jsonl")]
        for r in (recipe, again)
    ]
    assert rates[0] == rates[1]
    pairs = zip(state_of(recipe, folder), state_of(again, repeated), strict=True)
    assert all((one == other).all() for one, other in pairs)


def test_a_record_continues_another_if_it_has_its_points_and_its_training():
    short = Record(1.0, ((0, 0.0, 50), (5, 0.1, 40)), "a")
    assert Record(1.0, (*short.points, (9, 0.2, 30)), "a").continues(short)
    assert not Record(1.0, (*short.points, (9, 0.2, 30)), "b").continues(short)
    assert not Record(1.0, ((0, 0.0, 50), (6, 0.1, 40), (9, 0.2, 30)), "a").continues(short)
    assert not Record(1.0, short.points[:1], "a").continues(short)


@pytest.mark.slow
def test_a_lost_record_is_that_of_the_checkpoint_and_another_training_makes_its_own(
    prepared, tmp_path, monkeypatch
):
    recipe = hours_recipe(shutil.copytree(prepared, tmp_path / "run"))
    machine = Machine(monkeypatch)
    folder = train(recipe)
    record = decided(recipe)
    assert int(folder.name[-8:]) == record["points"][-1][2]
    (recipe.folder / "decided.json").unlink()
    assert Run(recipe).trained[0] == folder
    machine.pace = lambda step: 4.0
    slow = train(recipe.replace(**{"train.optimizer.learning_rate": 0.005}), restart=True)
    assert int(slow.name[-8:]) < int(folder.name[-8:]) / 2


@pytest.mark.slow
def test_more_hours_continue_or_say_how(prepared, tmp_path, monkeypatch):
    recipe = hours_recipe(shutil.copytree(prepared, tmp_path / "run"))
    Machine(monkeypatch)
    first = int(train(recipe).name[-8:])
    longer = recipe.replace(**{"train.hours": 80 / 3600})
    with pytest.raises(TrainingAtStake, match="--extend"):
        train(longer)
    folder = train(longer, extend=True)
    facts = read_manifest(folder, "checkpoint").facts
    assert facts["step"] > 1.7 * first
    assert facts["clock"]["seconds"] == pytest.approx(80, rel=0.05)
    rows = list(read_rows(recipe.folder / "train" / "metrics.jsonl"))
    assert rows[first]["learning_rate"] > rows[first - 1]["learning_rate"]
    with pytest.raises(T5smithError, match="steps are trained"):
        train(recipe)


@pytest.mark.slow
def test_constant_rates_continue_with_more_hours(prepared, tmp_path, monkeypatch):
    changes = {"train.schedule.name": "constant", "train.evaluate_every": 0}
    recipe = hours_recipe(shutil.copytree(prepared, tmp_path / "run"), **changes)
    Machine(monkeypatch)
    first = int(train(recipe).name[-8:])
    folder = train(recipe.replace(**{"train.hours": 60 / 3600}))
    assert int(folder.name[-8:]) > 1.3 * first
    assert read_manifest(folder, "checkpoint").facts["clock"]["seconds"] == pytest.approx(60, rel=0.05)
