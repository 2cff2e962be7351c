"""What the device can do: its speed, its memory, and whether its bfloat16 is fast."""

from __future__ import annotations

import functools
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5smith.parallel.host_memory import FreeMemory, free_memory, return_freed_memory

PEAK_TFLOPS = {
    "NVIDIA A100": 312.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100": 989.0,
    "NVIDIA H200": 989.0,
    "NVIDIA L4": 121.0,
    "NVIDIA L40": 181.0,
    "NVIDIA L40S": 362.0,
    "TPU v3": 61.5,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
}
"""Peak of dense bfloat16 products, 10^12 operations per second, by NVIDIA's and Google Cloud's data sheets.

The key is a prefix of the device's name; the longest that matches counts. The figure of TPU v3 is per core,
which JAX calls a device; the others are per chip.
"""


def peak_tflops(dtype: jnp.dtype) -> float:
    """The peak speed of one device in 10^12 operations per second.

    It is the data sheet's if the device is known and operands are bfloat16, else :func:`measured_tflops`.
    """
    kind = jax.devices()[0].device_kind
    known = [name for name in PEAK_TFLOPS if kind.startswith(name)]
    if known and dtype == jnp.bfloat16:
        return PEAK_TFLOPS[max(known, key=len)]
    return measured_tflops(dtype)


@functools.cache
def measured_tflops(dtype: jnp.dtype, size: int | None = None, repeats: int = 7) -> float:
    """The median speed of square matrix products with float32 sums, in 10^12 operations per second.

    Args:
      dtype: precision of the operands.
      size: rows and columns of both operands. Default: 2048 on CPU, else 8192.
      repeats: the number of products timed.
    """
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    # Made by numpy: JAX would compile a program for it.
    a = jax.device_put(np.ones((size, size), dtype))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    return 2 * size**3 / median_seconds(lambda: product(a, a), repeats) / 1e12


@functools.cache
def measured_bandwidth(size: int | None = None, repeats: int = 7) -> float:
    """The median speed at which an array is read and written in place, in bytes per second, both counted.

    Args:
      size: bytes of the array, larger than caches. Default: 256 MiB on CPU, else 1 GiB.
      repeats: the number of passes timed.
    """
    size = size or (1 << 28 if jax.default_backend() == "cpu" else 1 << 30)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    array = [jnp.zeros(size // 4, jnp.float32)]

    def one_pass() -> Any:
        array[:] = [add(*array)]
        return array

    return 2 * size / median_seconds(one_pass, repeats)


def median_seconds(work: Callable[[], Any], repeats: int, least: float = 0.0) -> float:
    """The median time until the arrays that a function returns are there, after a call that is not timed.

    The function is called `repeats` times, or more often until all calls took `least` seconds.
    """
    jax.block_until_ready(work())
    seconds: list[float] = []
    while len(seconds) < repeats or sum(seconds) < least:
        begun = time.perf_counter()
        jax.block_until_ready(work())
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def memory_limit() -> int | None:
    """Bytes that this process can still take on the device; None if unknown."""
    free = available_memory()
    return None if free is None else free.bytes


def available_memory() -> FreeMemory | None:
    """What :func:`memory_limit` returns, with what sets this limit."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return_freed_memory()
        return free_memory()
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return FreeMemory(stats["bytes_limit"] - stats.get("bytes_in_use", 0), f"free on {device.device_kind}")


def memory_in_use() -> tuple[int, int] | None:
    """Bytes in use and their peak, on CPU those of the process; None if the device does not report them."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_in_use" not in stats:
            return None
        return stats["bytes_in_use"], stats.get("peak_bytes_in_use", stats["bytes_in_use"])
    # Linux counts kilobytes, macOS bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak, peak
    now = pages * resource.getpagesize()
    # The kernel brings its peak up to date now and then.
    return now, max(now, peak)


def has_fast_bfloat16() -> bool:
    """Whether the device has units for bfloat16. NVIDIA's have them from compute capability 8.0 on."""
    device = jax.devices()[0]
    capability = getattr(device, "compute_capability", None)
    if device.platform == "gpu" and capability is not None:
        return float(capability) >= 8.0
    if device.platform == "cpu":
        try:
            words = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
            return not {"avx512_bf16", "bf16"}.isdisjoint(words)  # x86, Arm
        except OSError:
            return True  # not known to be slow
    return True
