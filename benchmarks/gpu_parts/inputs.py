"""Whether the input pipeline keeps up with the step that was measured, and what a real loop loses to it."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import jax

from gpu_parts.models import best_batch, training
from gpu_parts.results import Results
from gpu_parts.scale import Scale


def measure(results: Results, scale: Scale) -> None:
    """Fill the part `input`."""
    results.run(
        [
            ("pipeline", lambda: pipeline(results, scale)),
            ("loop", lambda: loop(results, scale)),
        ]
    )


def step_seconds(results: Results, size: str, batch: int) -> float | None:
    """Seconds of a model's step as the part `train` measured them, if it did."""
    file = results.file.with_name("train.json")
    if not file.is_file():
        return None
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    found = [row for row in rows if (row.get("size"), row.get("batch")) == (size, batch)]
    return min((row["seconds_per_step"] for row in found if "seconds_per_step" in row), default=None)


def pipeline(results: Results, scale: Scale) -> None:
    """Seconds per batch from the store, beside the step's."""
    from t5smith.benchmarking import inputs

    if scale.rehearse:
        inputs.TOKENS = 200_000
    size = scale.sizes[0]
    batch = best_batch(results, scale, size)
    step = step_seconds(results, size, batch)
    for objective in ("span_corruption", "ul2"):
        for workers in (0,) if scale.rehearse else (0, 4):
            names = {"objective": objective, "batch": batch, "workers": workers}
            with results.attempt(what="from the store to batches", **names) as row:
                found = inputs.bench_input(
                    objective=objective,
                    batch=batch,
                    workers=workers,
                    seconds=0.05 if scale.rehearse else 1.0,
                    repeats=1 if scale.rehearse else 3,
                )
                row["tokens_per_second"] = found["tokens_per_second"]
                row["seconds_per_batch"] = found["seconds_per_batch"]
                row["step_seconds_measured"] = step
                row["share_of_step"] = found["seconds_per_batch"] / step if step else None


def loop(results: Results, scale: Scale) -> None:
    """Steps on prefetched batches from a store, beside steps on one batch that is there already."""
    from t5smith.benchmarking import inputs
    from t5smith.objective.batches import TrainingBatches, prefetched
    from t5smith.objective.objective import Objective
    from t5smith.recipe.objective import ObjectiveSettings
    from t5smith.vocabulary.vocabulary import Vocabulary

    vocabulary = Vocabulary.bundled()
    steps = 3 if scale.rehearse else 30
    for name in ("span_corruption", "ul2"):
        # UL2's examples are about four times as long.
        rows = max(1, best_batch(results, scale, scale.sizes[0]) // (4 if name == "ul2" else 1))
        with (
            results.attempt(what="loop with prefetch", objective=name, rows=rows) as row,
            tempfile.TemporaryDirectory(prefix="t5smith-gpu-") as folder,
        ):
            settings = ObjectiveSettings.model_validate(
                {"name": name} | ({"input_length": 64} if scale.rehearse and name != "ul2" else {})
            )
            objective = Objective.create(settings, vocabulary)
            batches = TrainingBatches(inputs.synthetic_store(Path(folder)), objective, rows, 0)
            step, state = training(scale.sizes[0], "bfloat16", vocabulary.size)
            first = jax.device_put(dict(batches[0]))
            state, _ = step(state, first)
            jax.block_until_ready(state)
            begun = time.perf_counter()
            for _ in range(steps):
                state, _ = step(state, first)
            jax.block_until_ready(state)
            bare = (time.perf_counter() - begun) / steps
            times = []
            made = prefetched(batches, 0, 3 * steps, ahead=2, workers=0)
            for _ in range(3):
                begun = time.perf_counter()
                for _, batch in zip(range(steps), made, strict=False):
                    state, _ = step(state, batch)
                jax.block_until_ready(state)
                times.append((time.perf_counter() - begun) / steps)
            row["seconds_per_step"] = statistics.median(times)
            row["seconds_without_input"] = bare
            row["waiting_share"] = max(0.0, 1 - bare / statistics.median(times))
