"""The speed and memory of devices."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import pytest

from t5smith.parallel import hardware

BFLOAT16, FLOAT32 = jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40", 181.0),
        ("NVIDIA L40S", 362.0),
        ("TPU v5 lite", 197.0),
        ("TPU v5p", 459.0),
    ],
)
def test_known_devices_are_looked_up_by_the_longest_name(monkeypatch, kind, tflops):
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(device_kind=kind)])
    monkeypatch.setattr(hardware, "measured_tflops", lambda dtype: -1.0)
    assert hardware.peak_tflops(BFLOAT16) == tflops
    # The data sheets' figures are of bfloat16.
    assert hardware.peak_tflops(FLOAT32) == -1.0


def test_other_devices_are_measured():
    assert 0 < hardware.measured_tflops(FLOAT32, 64, 3) < 1000


def test_bandwidth_counts_what_is_read_and_written(monkeypatch):
    monkeypatch.setattr(hardware, "median_seconds", lambda work, repeats: 0.5)
    hardware.measured_bandwidth.cache_clear()
    assert hardware.measured_bandwidth(1 << 20) == 2 * (1 << 20) / 0.5
    hardware.measured_bandwidth.cache_clear()


def test_the_median_time_without_the_first_call(monkeypatch):
    seconds = iter([9.0, 1.0, 2.0, 4.0, 3.0])
    now = [0.0]

    def work():
        now[0] += next(seconds)

    monkeypatch.setattr(hardware, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    assert hardware.median_seconds(work, 3) == 2.0
    seconds = iter([9.0, 1.0, 2.0, 4.0, 3.0])
    assert hardware.median_seconds(work, 1, least=10.0) == 2.5


def test_memory_of_this_machine():
    now, most = hardware.memory_in_use()
    assert 0 < now <= most
    assert hardware.memory_limit() > 0
