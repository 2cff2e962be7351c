"""Learning rates at the steps that matter."""

from __future__ import annotations

import math

import jax.numpy as jnp
import pytest

from t5smith.base.errors import T5smithError
from t5smith.recipe.train import ScheduleSettings
from t5smith.training.schedule import create_schedule


def rate(step, steps=1000, peak=0.01, **settings):
    return float(create_schedule(ScheduleSettings(**settings), peak, steps)(jnp.int32(step)))


def test_inverse_sqrt_is_t5s_plateau_then_decay():
    t5 = {"name": "inverse_sqrt", "plateau_steps": 10_000}
    for step in (0, 1, 5_000, 10_000, 40_000, 1_000_000):
        assert rate(step, 1 << 20, **t5) == pytest.approx(1 / math.sqrt(max(step, 10_000)), rel=1e-6)


def test_warm_up_is_linear_and_starts_above_zero():
    for name in ("inverse_sqrt", "linear", "cosine", "constant"):
        rates = [rate(step, 10_000, name=name, warmup_steps=10) for step in range(10)]
        assert rates == pytest.approx([0.01 * (step + 1) / 10 for step in range(10)], rel=1e-3)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_decay_ends_at_the_final_fraction(name):
    settings = {"name": name, "warmup_steps": 100, "final_fraction": 0.1}
    assert rate(100, **settings) == pytest.approx(0.01)
    assert rate(550, **settings) == pytest.approx(0.0055)
    assert rate(1000, **settings) == pytest.approx(0.001)
    quarter = {"linear": 1 - 0.9 / 4, "cosine": 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2}[name]
    assert rate(325, **settings) == pytest.approx(0.01 * quarter)


def test_warm_up_stable_decay_falls_as_one_minus_the_root():
    settings = {"name": "wsd", "warmup_steps": 100, "decay_fraction": 0.2, "final_fraction": 0.1}
    assert rate(49, **settings) == pytest.approx(0.005)
    assert rate(100, **settings) == rate(500, **settings) == rate(819, **settings) == pytest.approx(0.01)
    assert rate(865, **settings) == pytest.approx(0.01 * (1 - 0.9 / 2), rel=1e-5)
    assert rate(1000, **settings) == pytest.approx(0.001, rel=1e-4)


def test_the_default_warm_up_depends_on_schedule_and_steps():
    assert rate(0, name="inverse_sqrt") == pytest.approx(0.01)
    for name in ("wsd", "cosine", "constant"):
        assert rate(0, 1000, name=name) == pytest.approx(0.01 / 50)
        assert rate(1999, 10**6, name=name) == pytest.approx(0.01, rel=1e-4)
        assert rate(0, 10, name=name) == pytest.approx(0.01)


def test_constant_is_constant():
    assert rate(50, name="constant") == rate(10**6, name="constant") == pytest.approx(0.01)


def test_a_warm_up_that_leaves_no_steps_is_rejected():
    with pytest.raises(T5smithError, match="50 of 50 steps are warm-up"):
        create_schedule(ScheduleSettings(name="linear", warmup_steps=50), 0.01, 50)
