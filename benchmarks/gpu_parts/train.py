"""Training speed of t5smith: batch sizes up to what fits, recomputation, optimizers, precision."""

from __future__ import annotations

import gc
import statistics
from typing import Any

import jax

from gpu_parts.models import TINY
from gpu_parts.results import Results
from gpu_parts.scale import Scale

OTHER_OPTIMIZERS = ("adafactor", "adamwscale", "muon", "muon_adafactor")


def measure(results: Results, scale: Scale) -> None:
    """Fill the part `train`."""
    from t5smith.benchmarking import training

    if scale.rehearse:
        training.SIZES["tiny"] = TINY
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
    from t5smith.benchmarking.training import Trial
    from t5smith.parallel.hardware import memory_in_use, peak_tflops

    settings = {"precision": "bfloat16", "optimizer": "adamw", "remat": "none", **settings}
    with results.attempt(what=what, **settings) as row:
        trial = Trial(
            settings["size"],
            settings["batch"],
            settings["precision"],
            input_length=scale.input_length,
            target_length=scale.target_length,
            optimizer=settings["optimizer"],
            remat=settings["remat"],
        )
        trial.run()
        samples = [trial.run(scale.steps) / scale.steps for _ in range(scale.repeats)]
        seconds = statistics.median(samples)
        peak = peak_tflops(trial_dtype(settings["precision"])) * 1e12
        analysis = trial.step.memory_analysis()
        row["tokens_per_second"] = trial.tokens / seconds
        row["seconds_per_step"] = seconds
        row["slowest"] = max(samples)
        row["mfu"] = trial.flops / seconds / peak
        row["compile_seconds"] = trial.compile_seconds
        if analysis is not None:
            row["program_bytes"] = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
        if memory := memory_in_use():
            row["peak_bytes_so_far"] = memory[1]
        del trial
    gc.collect()
    jax.clear_caches()
    return results.rows[-1]


def trial_dtype(precision: str) -> Any:
    """The dtype of a precision's products."""
    from gpu_parts.models import DTYPES

    return DTYPES[precision]
