"""The forecasts in the lines of training are read as they are printed."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import forecasts
from t5smith.base.progress import Bar
from t5smith.base.units import about


@pytest.mark.parametrize("seconds", [3.0, 45.0, 140.0, 725.0, 12_300.0, 1e6])
def test_a_forecast_is_read(seconds):
    bar = Bar("train", 100, "steps", 0)
    bar.expect(seconds + 1e-3)
    for line in (bar.line(), f"train     about {about(seconds)} on cpu, with 2 checkpoints"):
        assert forecasts.seconds_of(line) == pytest.approx(seconds, rel=0.06)
    assert forecasts.seconds_of("train     compiling the step  0:12") is None


def test_the_table_says_how_far_off_a_forecast_was():
    row = {"size": "1M", "length": "900 steps", "start": 90.0, "after_a_minute": 105.0, "truth": 100.0}
    assert "| 1M | 900 steps | 90 (-10%) | 105 (+5%) | 100 |" in forecasts.table([row])
