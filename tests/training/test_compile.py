"""Before the first step: whether it fits, how long it takes, what is measured on the machine."""

from __future__ import annotations

import itertools
import json
import re

import jax
import pytest

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError, TrainingAtStake
from t5smith.base.units import count
from t5smith.objective.batches import TrainingBatches
from t5smith.parallel import hardware
from t5smith.training import compile as start
from t5smith.training import settle
from t5smith.training.setup import Run
from t5smith.training.timing import autotune, clock
from t5smith.training.timing.trial import StepTrial
from t5smith.training.train import train
from tiny import tiny_recipe


def shallow(folder, **changes):
    """A run whose step compiles quickly: these tests compile many."""
    changes = {"model.num_layers": 1, "model.num_decoder_layers": 1, **changes}
    return tiny_recipe(folder, **{"train.optimizer.name": "adamw", **changes})


def pretend(monkeypatch, memory_of, limit):
    """A device with this memory and a compiler that says what a batch takes; nothing is compiled."""

    def compile_step(setup):
        batch_size = setup.recipe.train.rows
        return start.CompiledStep(lambda *_: pytest.fail("it runs"), memory_of(batch_size), batch_size)

    monkeypatch.setattr(autotune, "compile_step", compile_step)
    monkeypatch.setattr(hardware, "memory_limit", lambda: limit)


def steps_of(folder):
    return read_manifest(folder, "checkpoint").facts["step"]


def test_tokens_and_epochs_become_steps(run_folder):
    recipe = tiny_recipe(run_folder)
    setup = Run(recipe).setup
    batch = setup.batches()[0]
    a_batch = sum(int((batch[name] != 0).sum()) for name in ("input_ids", "targets"))
    assert Run(tiny_recipe(run_folder, **{"train.tokens": 10 * a_batch})).setup.recipe.train.steps == 10
    assert Run(tiny_recipe(run_folder, **{"train.tokens": 10 * a_batch + 1})).setup.recipe.train.steps == 11
    windows = setup.store.train.window_count(setup.objective.window)
    epochs = Run(tiny_recipe(run_folder, **{"train.epochs": 2.0})).setup.recipe.train
    assert epochs.steps == -(-2 * windows // 4)
    assert epochs.in_steps


def test_a_length_in_tokens_equals_its_length_in_steps(run_folder):
    setup = Run(tiny_recipe(run_folder)).setup
    by_tokens = tiny_recipe(
        run_folder, **{"train.tokens": round(3 * settle.tokens_per_batch(setup.batches()))}
    )
    assert steps_of(train(by_tokens)) == 3
    assert steps_of(train(tiny_recipe(run_folder, **{"train.steps": 3}))) == 3
    assert not (run_folder / "previous").exists()


@pytest.mark.slow
def test_hours_are_estimated_once_as_steps(run_folder, monkeypatch, capfd):
    # The clock hardly moves, so it corrects nothing.
    monkeypatch.setattr(clock, "now", itertools.count(0.0, 1e-6).__next__)
    monkeypatch.setattr(autotune, "try_steps", lambda *_: StepTrial(9.0))
    recipe = shallow(run_folder, **{"train.hours": 0.01})
    with pytest.raises(
        T5smithError, match=r"train\.hours: not measured yet: training does so when it starts"
    ):
        _ = Run(recipe).setup
    assert steps_of(train(recipe)) == 4
    assert "about 4 steps fit into 0.01 hours" in capfd.readouterr().err
    monkeypatch.setattr(autotune, "try_steps", lambda *_: StepTrial(1.0))
    assert steps_of(train(recipe)) == 4
    assert Run(recipe).setup.recipe.train.steps == 4
    # What has no effect on the time of a step is no reason to measure again, nor is anything once steps are
    # trained. Another training is another decision.
    assert steps_of(train(recipe.replace(**{"train.log_every": 3}))) == 4
    other = recipe.replace(**{"model.d_ff": 40})
    with pytest.raises(TrainingAtStake, match=r"model\.d_ff 32 → 40"):
        train(other)
    assert steps_of(train(other, restart=True)) == 36


def test_hours_that_are_over_before_the_first_step_are_reported(run_folder, monkeypatch, capfd):
    monkeypatch.setattr(clock, "now", itertools.count(0.0, 1e-6).__next__)
    monkeypatch.setattr(autotune, "try_steps", lambda *_: StepTrial(40.0))
    assert (
        steps_of(train(shallow(run_folder, **{"train.hours": 0.01, "train.schedule.warmup_steps": 0}))) == 1
    )
    shown = " ".join(capfd.readouterr().err.split())
    assert "warning: train.hours = 0.01 leaves no time for a step of 40 s" in shown
    assert "fit into" not in shown


def test_the_largest_batch_that_fits_is_found_and_kept(run_folder, monkeypatch, capfd):
    recipe = shallow(run_folder, **{"train.batch_size": "auto"})

    def needs(rows):
        return start.compiled_step(Run(recipe).trial_setup(rows)).memory

    limit = needs(32)
    monkeypatch.setattr(hardware, "memory_limit", lambda: round(limit / autotune.MEMORY_SHARE))
    rows = autotune.largest_batch(Run(recipe).trial_setup, 1)
    assert 24 <= rows <= 32
    assert needs(rows) <= limit
    train(recipe)
    assert f"batch size {rows} fits into memory" in capfd.readouterr().err
    monkeypatch.setattr(hardware, "memory_limit", lambda: 10 * limit)
    assert Run(recipe).setup.recipe.train.rows == rows
    assert json.loads((run_folder / "decided.json").read_text())["batch_size"] == rows


def test_the_largest_batch_is_a_multiple_of_the_accumulation(run_folder, monkeypatch):
    recipe = shallow(run_folder, **{"train.batch_size": "auto", "train.gradient_accumulation": 3})
    pretend(monkeypatch, lambda batch_size: batch_size, 10**9)
    monkeypatch.setattr(autotune, "MAX_BATCH_SIZE", 100)
    assert autotune.largest_batch(Run(recipe).trial_setup, 3) == 96


@pytest.mark.parametrize("most", [8, 9, 30, 64, 200])
@pytest.mark.parametrize("power", [1.0, 1.2])
def test_the_search_comes_near_the_largest_batch(run_folder, monkeypatch, most, power):
    def memory_of(batch_size):
        return round(1_000 + 100 * batch_size**power)

    pretend(monkeypatch, memory_of, round(memory_of(most) / autotune.MEMORY_SHARE))
    found = autotune.largest_batch(Run(shallow(run_folder, **{"train.batch_size": "auto"})).trial_setup, 1)
    assert found <= most
    assert found % 8 == 0
    assert found > 0.8 * most - 8


def test_the_error_for_full_memory_has_the_batch_the_bytes_and_three_ways_out(run_folder, monkeypatch):
    monkeypatch.setattr(hardware, "memory_limit", lambda: 100_000)
    with pytest.raises(T5smithError) as caught:
        train(tiny_recipe(run_folder))
    message = str(caught.value)
    assert re.search(
        r"train\.batch_size: a step of 4 examples takes [\d.]+[kM]B, but 100kB are free on this machine",
        message,
    )
    for way in ("Lower it", "train.gradient_accumulation", "train.remat"):
        assert way in message


@pytest.mark.parametrize(
    ("rows", "parts", "limit", "expected"),
    [(12, 1, 6_100, 2), (12, 1, 3_100, 4), (12, 1, 1_100, 12), (12, 1, 1_000, None), (64, 2, 9_000, 8)],
)
def test_the_error_names_the_smallest_accumulation_that_fits(
    run_folder, monkeypatch, rows, parts, limit, expected
):
    tried = []

    def compile_step(setup):
        train = setup.recipe.train
        tried.append(train.gradient_accumulation)
        return start.CompiledStep(
            lambda *_: pytest.fail("it runs"),
            100 + 1_000 * (train.rows // train.gradient_accumulation),
            train.rows,
        )

    monkeypatch.setattr(start, "compile_step", compile_step)
    monkeypatch.setattr(hardware, "memory_limit", lambda: limit)
    changes = {"train.batch_size": rows, "train.gradient_accumulation": parts}
    setup = Run(tiny_recipe(run_folder, **changes)).setup
    with pytest.raises(T5smithError) as caught:
        start.compiled_step(setup)
    if expected is None:
        assert "Set train.gradient_accumulation to" not in str(caught.value)
    else:
        takes = count(100 + 1_000 * (rows // expected))
        assert f"Set train.gradient_accumulation to {expected} (a step then takes {takes}B" in str(
            caught.value
        )
    assert len(tried) <= 5


def test_an_error_if_not_even_the_smallest_batch_fits(run_folder, monkeypatch):
    pretend(monkeypatch, lambda batch_size: 100_000 + batch_size, 100_000)
    with pytest.raises(T5smithError, match="a step of 1 examples takes more memory"):
        train(shallow(run_folder, **{"train.batch_size": "auto"}))


def test_the_devices_error_for_full_memory_becomes_one_line(monkeypatch):
    monkeypatch.setattr(hardware, "memory_limit", lambda: 8_000_000_000)
    expected = "a step of 64 examples takes 9GB, but 8GB are free"
    with pytest.raises(T5smithError, match=expected), start.out_of_memory(64, 9_000_000_000):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
    with pytest.raises(jax.errors.JaxRuntimeError), start.out_of_memory(64):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_the_estimate_has_parameters_memory_disk_and_time(run_folder, capfd):
    train(tiny_recipe(run_folder, **{"train.steps": 6, "train.checkpoint_every": 3}))
    output = " ".join(capfd.readouterr().err.split())
    assert re.search(
        r"29k parameters, 6 steps of 4 examples .* train memory about [\d.]+[MG]B; "
        r"[\d.]+GB are \w+ \w+ this (machine|container); disk [\d.]+kB .* "
        r"about 1 s on cpu, with 1 checkpoint; evaluating it afterwards about \d+ s",
        output,
    )
    assert "one device (cpu) of 8: CPU devices share its cores, so more are slower" in output
    assert "backend cpu_rows, for one CPU device; products in float32" in output


def test_a_device_without_fast_bfloat16_triggers_a_warning(run_folder, monkeypatch, capfd):
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda: False)
    train(shallow(run_folder, **{"train.steps": 3, "train.precision": "bfloat16"}))
    assert "no fast bfloat16" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.tokens": 5, "train.hours": 1.0}, "train.tokens and train.hours: the length of training"),
        ({"train.gradient_accumulation": 3}, "expected a divisor of train.batch_size, which is 4"),
        ({"train.loggers": ("tensorbord",)}, "'tensorbord' cannot be used; expected some of tensorboard"),
        ({"train.keep_best": True}, "Set train.evaluate_every"),
        ({"train.explosion_factor": 0.5}, "explosion_factor: 0.5 cannot be used"),
    ],
)
def test_settings_that_contradict_each_other_are_rejected(tmp_path, changes, message):
    with pytest.raises(T5smithError, match=re.escape(message)):
        tiny_recipe(tmp_path, **changes)


def test_none_by_name_clears_a_setting(tmp_path):
    changed = tiny_recipe(tmp_path, **{"train.hours": 1.0}).replace(**{"train.hours": "none"})
    assert changed.train.hours is None
    assert tiny_recipe(tmp_path, **{"train.explosion_factor": "none"}).train.explosion_factor is None


def test_tokens_per_batch_do_not_count_padding(run_folder):
    recipe = tiny_recipe(run_folder)
    batches = Run(recipe).setup.batches()
    assert isinstance(batches, TrainingBatches)
    assert settle.tokens_per_batch(batches) == 4 * (32 + 8)


def test_a_larger_batch_takes_more_memory(run_folder):
    setup_for = Run(shallow(run_folder, **{"train.batch_size": "auto"})).trial_setup
    three, four = (start.compiled_step(setup_for(rows)).memory for rows in (3, 4))
    assert four > three


@pytest.mark.parametrize("most", [1, 3, 7])
def test_a_batch_smaller_than_eight_is_found(run_folder, monkeypatch, most):
    setup_for = Run(shallow(run_folder, **{"train.batch_size": "auto"})).trial_setup
    pretend(monkeypatch, lambda batch_size: 100 * batch_size, round(100 * most / autotune.MEMORY_SHARE))
    assert autotune.largest_batch(setup_for, 1) == most


def test_a_device_too_small_for_any_batch(run_folder, monkeypatch):
    setup_for = Run(shallow(run_folder, **{"train.batch_size": "auto"})).trial_setup
    pretend(monkeypatch, lambda batch_size: 100 * batch_size, 1)
    with pytest.raises(T5smithError, match=r"train\.batch_size"):
        autotune.largest_batch(setup_for, 1)
