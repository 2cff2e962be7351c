"""The figures in metrics.jsonl."""

from __future__ import annotations

import jax
import pytest

from t5smith.model.flops import step_flops
from t5smith.training import loop
from t5smith.training.loop import train
from t5smith.training.metrics import read_rows
from t5smith.training.setup import Run
from tiny import tiny_recipe


def test_mfu_is_the_share_of_the_peak_of_all_devices(run_folder, monkeypatch):
    peak = 1e-4  # 10^12 FLOP/s per device
    monkeypatch.setattr(loop, "peak_tflops", lambda dtype: peak)
    recipe = tiny_recipe(run_folder)
    train(recipe)
    rows = read_rows(run_folder / "train" / "metrics.jsonl")
    # 4 examples of 32 input and 8 target tokens.
    flops = step_flops(Run(recipe).setup.config, 4, 32, 8)
    for row in rows:
        expected = flops / row["seconds"] / (peak * 1e12 * jax.device_count())
        assert row["mfu"] == pytest.approx(expected, rel=1e-2, abs=6e-5)
        assert row["mfu"] > 1e-3
        assert row["tokens_per_second"] == pytest.approx(row["tokens"] / row["seconds"], rel=1e-3, abs=0.06)
