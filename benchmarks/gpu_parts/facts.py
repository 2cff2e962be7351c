"""What the card is and what it can do: products at T5's shapes, memory bandwidth, what "float32" computes."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gpu_parts.results import Results
from gpu_parts.scale import Scale

PACKAGES = (
    "jax",
    "jaxlib",
    "jax-cuda13-plugin",
    "jax-cuda12-plugin",
    "optax",
    "numpy",
    "torch",
    "transformers",
)
WIDTHS = {"t5-v1.1-small": (512, 1024), "t5-v1.1-base": (768, 2048), "t5-v1.1-large": (1024, 2816)}
"""d_model and d_ff."""
VOCABULARY = 32_128
MODES = {
    "bfloat16": (jnp.bfloat16, "default"),
    "float32 default": (jnp.float32, "default"),
    "float32 tf32": (jnp.float32, "tensorfloat32"),
    "float32 highest": (jnp.float32, "highest"),
}


def seconds_of(run: Callable[[], Any], repeats: int, inner: int = 10) -> float:
    """The median seconds of one call, `inner` calls being queued at a time; one round warms up."""
    jax.block_until_ready(run())
    found: list[float] = []
    for _ in range(repeats):
        begun = time.perf_counter()
        last = None
        for _ in range(inner):
            last = run()
        jax.block_until_ready(last)
        found.append((time.perf_counter() - begun) / inner)
    return statistics.median(found)


def measure(results: Results, scale: Scale) -> None:
    """Fill the part `facts`."""
    results.run(
        [
            ("machine", lambda: machine(results)),
            ("float32", lambda: precision(results, scale)),
            ("bandwidth", lambda: bandwidth(results, scale)),
            ("products", lambda: products(results, scale)),
        ]
    )


def machine(results: Results) -> None:
    """The card, its driver, the software."""
    device = jax.devices()[0]
    results.fact(device=device.device_kind, platform=device.platform, devices=len(jax.devices()))
    results.fact(python=platform.python_version())
    for name in PACKAGES:
        try:
            results.fact(**{name: importlib.metadata.version(name)})
        except importlib.metadata.PackageNotFoundError:
            continue
    if limit := (device.memory_stats() or {}).get("bytes_limit"):
        results.fact(bytes_limit=limit)
    query = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,memory.total,power.limit",
        "--format=csv,noheader",
    ]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        results.fact(nvidia_smi=done.stdout.strip())
    except (OSError, subprocess.SubprocessError) as error:
        results.fact(nvidia_smi=f"none ({type(error).__name__})")


def precision(results: Results, scale: Scale) -> None:
    """The error of one product in each mode, against float64."""
    size = 64 if scale.rehearse else 1024
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, size, size))
    exact = a @ b
    for name, (dtype, mode) in MODES.items():
        with results.attempt(what="error of a product", mode=name) as row:
            x, y = jnp.asarray(a, dtype), jnp.asarray(b, dtype)
            with jax.default_matmul_precision(mode):
                found = jnp.matmul(x, y, preferred_element_type=jnp.float32)
            error = np.linalg.norm(np.asarray(found, np.float64) - exact) / np.linalg.norm(exact)
            row["relative_error"] = float(error)
            row["computes_in"] = "bfloat16" if error > 1e-3 else "tf32" if error > 1e-5 else "float32"


def bandwidth(results: Results, scale: Scale) -> None:
    """Bytes read and written per second by a copy."""
    with results.attempt(what="copy") as row:
        x = jnp.ones(scale.copy_bytes // 4, jnp.float32)
        copy = jax.jit(lambda x: x + 1)
        seconds = seconds_of(lambda: copy(x), scale.repeats, inner=3)
        row |= {
            "bytes": scale.copy_bytes,
            "seconds": seconds,
            "gb_per_second": 2 * scale.copy_bytes / seconds / 1e9,
        }


def products(results: Results, scale: Scale) -> None:
    """Speed of the products of T5's layers and head, in 10^12 operations per second."""
    key = jax.random.key(0)
    for name, (dtype, mode) in MODES.items():
        for size, (d_model, d_ff) in WIDTHS.items():
            shapes = {
                "d_model x d_model": d_model,
                "d_model x d_ff": d_ff,
                "d_model x vocabulary": VOCABULARY,
            }
            for title, columns in shapes.items():
                if results.left() <= 0:
                    return
                if scale.rehearse:
                    d_model, columns = 16, 32
                # The head sees targets only, a quarter as many rows as the encoder has.
                rows = scale.products // (4 if columns == VOCABULARY else 1)
                with results.attempt(what=f"products, {name}", model=size, product=title) as row:
                    a = jax.random.normal(key, (rows, d_model), dtype)
                    b = jax.random.normal(key, (d_model, columns), dtype)
                    with jax.default_matmul_precision(mode):
                        product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
                        seconds = seconds_of(lambda a=a, b=b, f=product: f(a, b), scale.repeats)
                    row |= {"rows": rows, "tflops": 2 * rows * d_model * columns / seconds / 1e12}
