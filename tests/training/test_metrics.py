"""The figures in metrics.jsonl."""

from __future__ import annotations

import gc
import json
import sys
from itertools import count

import jax
import numpy as np
import pytest

from t5smith.base.errors import T5smithError
from t5smith.model.flops import step_flops
from t5smith.training.curves.summaries import StepTotals
from t5smith.training.metrics import MetricsFile, TrainingLog, read_columns, read_rows, up_to
from t5smith.training.setup import Run
from t5smith.training.timing import clock, trial
from t5smith.training.train import train
from tiny import tiny_recipe


@pytest.mark.slow
def test_mfu_is_the_share_of_the_peak_of_the_device_used(run_folder, monkeypatch):
    peak = 1e-4  # 10^12 FLOP/s per device
    monkeypatch.setattr(trial, "peak_tflops", lambda dtype: peak)
    recipe = tiny_recipe(run_folder)
    train(recipe)
    rows = read_rows(run_folder / "train" / "metrics.jsonl")
    # 4 examples of 32 input and 8 target tokens.
    flops = step_flops(Run(recipe).setup.config, 4, 32, 8)
    # One of the eight devices is used.
    assert jax.device_count() > 1
    for row in rows:
        expected = flops / row["seconds"] / (peak * 1e12)
        assert row["mfu"] == pytest.approx(expected, rel=1e-2, abs=6e-5)
        assert row["mfu"] > 1e-3
        assert row["tokens_per_second"] == pytest.approx(row["tokens"] / row["seconds"], rel=1e-3, abs=0.06)


def test_the_time_of_an_evaluation_is_not_the_next_steps(run_folder, monkeypatch):
    ticks, evaluating = count(0.0), [0]
    monkeypatch.setattr(clock, "now", lambda: next(ticks) + evaluating[0])

    def evaluated(self, *score):
        evaluating[0] += 1_000

    monkeypatch.setattr(TrainingLog, "evaluated", evaluated)
    # A checkpoint, whose time does not count either, is written only at the end.
    train(tiny_recipe(run_folder, **{"train.evaluate_every": 1, "train.checkpoint_every": 100}))
    assert evaluating == [6_000]
    assert all(row["seconds"] < 100 for row in read_rows(run_folder / "train" / "metrics.jsonl"))


def test_the_events_of_batches_that_are_repeated_are_removed(tmp_path):
    rows = [{"event": "skipped", "step": 1, "batch": batch} for batch in (1, 2, 3)]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    TrainingLog(tiny_recipe(tmp_path), tmp_path, step=1, batch=2)
    assert read_rows(tmp_path / "events.jsonl") == rows[:1]


def steps(numbers):
    return [
        {"step": n, "nll": 9 - n / 10, "tokens": 40.0, "seconds": 0.5 if n == 1 else 0.1} for n in numbers
    ]


def test_totals_are_restored_from_the_file_and_cut_back_with_it(tmp_path):
    whole, rows = StepTotals(), steps(range(1, 31))
    for row in rows:
        whole.add(row)
    first = StepTotals()
    file = MetricsFile(tmp_path / "metrics.jsonl", up_to(0), first)
    for row in steps(range(1, 26)):
        file.write(row)
    file.flush()
    again = StepTotals()
    resumed = MetricsFile(tmp_path / "metrics.jsonl", up_to(20), again)
    for row in rows[20:]:
        resumed.write(row)
    assert again.facts() == whole.facts()
    assert whole.facts() == {
        "first_loss": 8.9,
        "last_loss": pytest.approx(np.mean([row["nll"] for row in rows[-20:]])),
        "tokens": 1_200,
        "seconds": 3.4,
        "tokens_per_second": 400.0,
    }
    resumed.cut_back(up_to(25))
    assert again.facts() == first.facts()


def test_the_finished_line_has_the_speed_of_the_median_step(tmp_path, capfd):
    figures = {"tokens": 100.0, "nll": 4.0, "learning_rate": 0.01}
    with TrainingLog(tiny_recipe(tmp_path, **{"train.loggers": ()}), tmp_path, step=0, batch=0) as log:
        for step, seconds in enumerate((5.0, 0.1, 0.1, 0.1, 0.1, 0.001), 1):
            log.updated(step, figures, seconds, 0.5)
    assert "6/6 steps" in (line := capfd.readouterr().err.splitlines()[-1])
    assert "1k tokens/s" in line or "1,000 tokens/s" in line


def test_no_row_stays_in_memory(tmp_path):
    totals = StepTotals()
    file = MetricsFile(tmp_path / "metrics.jsonl", up_to(0), totals)
    rows = steps(range(1, 1_001))
    for row in rows:
        file.write(row)
    file.flush()
    file = MetricsFile(tmp_path / "metrics.jsonl", up_to(1_000), totals)
    held = gc.get_referents(file, *gc.get_referents(file), *vars(totals).values())
    assert not any(isinstance(one, dict) and "nll" in one for one in held)
    assert sum(map(sys.getsizeof, vars(totals).values())) < 16 * len(rows)
    assert len(totals.last_losses) == 20


def test_columns_are_the_numbers_of_the_rows_and_a_half_written_one_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*steps([1, 2]), {"step": 3}]) + '{"st')
    found = read_columns(path, ("step", "nll"))
    np.testing.assert_array_equal(found["step"], [1, 2, 3])
    np.testing.assert_array_equal(found["nll"], [8.9, 8.8, np.nan])
    path.write_text('{"st\n{"step": 2}\n')
    with pytest.raises(T5smithError, match=r"metrics.jsonl:1.*expected JSON"):
        read_columns(path, ("step",))
