"""Training speed of t5smith: batch sizes up to what fits, recomputation, optimizers, precision."""

from __future__ import annotations

import gc
import statistics
from typing import Any

import jax

from gpu_parts.models import trial_of
from gpu_parts.results import Results
from gpu_parts.scale import Scale
from t5smith.benchmarking.training import trial_figures
from t5smith.parallel.backend import PRECISIONS

FIGURES = (
    "tokens_per_second",
    "seconds_per_step",
    "mfu",
    "compile_seconds",
    "program_memory_bytes",
    "peak_memory_bytes",
)
"""Of those of `t5smith bench train`; the peak is of the process so far."""
OTHER_OPTIMIZERS = ("adafactor", "adamwscale", "muon", "muon_adafactor")


def measure(results: Results, scale: Scale) -> None:
    """Fill the part `train`."""
    results.fact(input_length=scale.input_length, target_length=scale.target_length)
    best = dict.fromkeys(scale.sizes, scale.batches[0])

    def batches(size: str) -> None:
        fastest = 0.0
        for batch in scale.batches:
            row = one(results, scale, "batch sizes", size=size, batch=batch)
            if "error" in row:
                break  # larger ones do not fit either
            if row["tokens_per_second"] > fastest * 1.02:
                fastest, best[size] = row["tokens_per_second"], batch
            if results.left() <= 0:
                break
        results.fact(**{f"best_batch_{size}": best[size]})

    def varied(what: str, name: str, values: tuple[str, ...]) -> None:
        for size in scale.sizes:
            for value in values:
                if results.left() > 0:
                    one(results, scale, what, size=size, batch=best[size], **{name: value})

    results.run(
        [
            *((f"batch sizes of {size}", lambda size=size: batches(size)) for size in scale.sizes),
            ("recomputation", lambda: varied("recomputation", "remat", ("dots", "full"))),
            (
                "optimizers",
                lambda: varied("optimizers", "optimizer", OTHER_OPTIMIZERS),
            ),
            ("precision", lambda: varied("precision", "precision", ("float32",))),
        ]
    )


def one(results: Results, scale: Scale, what: str, **settings: Any) -> dict[str, Any]:
    """One row: tokens per second, MFU, memory, compile time."""
    settings = {"precision": "bfloat16", "optimizer": "adamw", "remat": "none", **settings}
    with results.attempt(what=what, **settings) as row:
        trial = trial_of(scale=scale, **settings)
        trial.run()
        samples = [trial.run(scale.steps) / scale.steps for _ in range(scale.repeats)]
        found = trial_figures(trial, statistics.median(samples), PRECISIONS[settings["precision"]])
        row |= {name: found[name] for name in FIGURES} | {"slowest_step": max(samples)}
        del trial
    gc.collect()
    jax.clear_caches()
    return results.rows[-1]
