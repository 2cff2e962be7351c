"""The speed of training on this device: whole steps with the update, on random tokens."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Generator
from typing import Any, cast, get_args

import jax
import jax.numpy as jnp

from t5smith.base.phase import phase
from t5smith.base.progress import info
from t5smith.benchmarking.checks import check_at_least_one, check_divides, check_one_of
from t5smith.benchmarking.parts import measured_parts
from t5smith.benchmarking.trial import VOCABULARY, Trial
from t5smith.model.params import parameter_count
from t5smith.model.t5 import Remat
from t5smith.parallel.backend import PRECISIONS
from t5smith.parallel.hardware import measured_bandwidth, measured_tflops, memory_in_use, peak_tflops
from t5smith.recipe.model import ModelSettings

SIZES = {
    name: ModelSettings.model_validate({"size": name})
    for name in ("t5-v1.1-small", "t5-v1.1-base", "t5-v1.1-large", "t5-v1.1-xl")
}
"""The sizes that can be measured."""


def bench_train(
    size: str = "t5-v1.1-small",
    batch: int = 8,
    precision: str = "bfloat16",
    input_length: int = 512,
    target_length: int = 114,
    optimizer: str = "adamw",
    remat: str = "none",
    gradient_accumulation: int = 1,
    steps: int = 1,
    repeats: int = 7,
    parts: bool = True,
) -> dict[str, Any]:
    """Tokens per second of training on random tokens, without padding and dropout.

    Args:
      size: one of :data:`SIZES`.
      batch: examples per batch.
      precision: `float32` or `bfloat16`, of the operands of products.
      input_length: encoder positions.
      target_length: decoder positions.
      optimizer: its name in a recipe.
      remat: `none`, `dots` or `full`.
      gradient_accumulation: the number of micro-batches per step.
      steps: steps per measurement.
      repeats: the number of measurements, after one that is not counted; the median is reported.
      parts: then measure where the step's time goes, see :func:`t5smith.benchmarking.parts.measured_parts`.

    Raises:
      T5smithError: settings out of range.
    """
    check_one_of(SIZES, size=size)
    check_one_of(PRECISIONS, precision=precision)
    check_one_of(get_args(Remat), remat=remat)
    lengths = {"input_length": input_length, "target_length": target_length}
    check_at_least_one(batch=batch, steps=steps, repeats=repeats, **lengths)
    check_divides(batch, gradient_accumulation=gradient_accumulation)
    with _no_compilation_cache(), phase("bench", "compiling the step"):
        trial = Trial(
            *(SIZES[size], batch, precision),
            ids=VOCABULARY,
            **lengths,
            optimizer=optimizer,
            remat=remat,  # pyright: ignore[reportArgumentType] - checked above
            accumulation=gradient_accumulation,
        )
    info(f"bench     compiled in {trial.compile_seconds:.1f} s; timing {repeats} × {steps} steps")
    trial.run()
    seconds = statistics.median(trial.run(steps) / steps for _ in range(repeats))
    figures = trial_figures(trial, seconds, PRECISIONS[precision]) | {
        "size": size,
        "batch": batch,
        "precision": precision,
        **lengths,
        "optimizer": optimizer,
        "remat": remat,
        "gradient_accumulation": gradient_accumulation,
        "device": jax.devices()[0].device_kind,
    }
    return figures | _parts_figures(trial, seconds) if parts else figures


def _parts_figures(trial: Trial, seconds: float) -> dict[str, Any]:
    """The parts of a step, and the speed of memory that their limits follow from."""
    with phase("bench", "timing the parts of a step"):
        memory = round(measured_bandwidth())
        return {"measured_bytes_per_second": memory, "parts": measured_parts(trial, seconds)}


def trial_figures(trial: Trial, seconds: float, dtype: jnp.dtype) -> dict[str, Any]:
    """Speed and memory of a trial, from the seconds per step."""
    peak = peak_tflops(dtype)
    memory = memory_in_use()
    return {
        "tokens_per_second": round(trial.tokens / seconds),
        "seconds_per_step": round(seconds, 6),
        "mfu": round(trial.flops / seconds / (peak * 1e12), 4),
        "peak_tflops": round(peak, 4),
        "measured_tflops": round(measured_tflops(dtype), 4),
        "compile_seconds": round(trial.compile_seconds, 2),
        "program_memory_bytes": trial.program_bytes,
        "peak_memory_bytes": None if memory is None else memory[1],
        "step_tflop": round(trial.flops / 1e12, 4),
        "parameters": parameter_count(trial.state.parameters),
    }


@contextlib.contextmanager
def _no_compilation_cache() -> Generator[None]:
    """Programs compiled before would hide the time of compilation."""
    enabled = bool(cast(Any, jax.config).jax_enable_compilation_cache)
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
