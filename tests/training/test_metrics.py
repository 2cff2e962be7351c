"""The figures in metrics.jsonl."""

from __future__ import annotations

import json
from itertools import count
from types import SimpleNamespace

import jax
import pytest

from t5smith.model.flops import step_flops
from t5smith.training import loop
from t5smith.training.loop import train
from t5smith.training.metrics import TrainingLog, read_rows
from t5smith.training.setup import Run
from tiny import tiny_recipe


def test_mfu_is_the_share_of_the_peak_of_the_device_used(run_folder, monkeypatch):
    peak = 1e-4  # 10^12 FLOP/s per device
    monkeypatch.setattr(loop, "peak_tflops", lambda dtype: peak)
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
    clock = SimpleNamespace(monotonic=lambda: next(ticks) + evaluating[0])
    monkeypatch.setattr(loop, "time", clock)

    def evaluated(self, step, score):
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
