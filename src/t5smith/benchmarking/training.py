"""How fast a T5 is trained on this device: whole steps, update included, on random tokens."""

from __future__ import annotations

import statistics
import time
from typing import Any, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.base.progress import info
from t5smith.model.config import ModelConfig
from t5smith.model.flops import step_flops
from t5smith.model.params import parameter_count
from t5smith.model.t5 import Remat
from t5smith.parallel.hardware import measured_tflops, memory_in_use, peak_tflops
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
from t5smith.training.optimizer import create_optimizer
from t5smith.training.schedule import create_schedule
from t5smith.training.state import TrainState, fresh_state
from t5smith.training.step import StepSettings, create_step

SIZES = {
    "t5-v1.1-small": ModelSettings(),
    "t5-v1.1-base": ModelSettings(d_model=768, d_ff=2048, num_layers=12, num_decoder_layers=12, num_heads=12),
    "t5-v1.1-large": ModelSettings(
        d_model=1024, d_ff=2816, num_layers=24, num_decoder_layers=24, num_heads=16
    ),
    "t5-v1.1-xl": ModelSettings(d_model=2048, d_ff=5120, num_layers=24, num_decoder_layers=24, num_heads=32),
}
"""Google's T5 1.1, by the sizes in the configurations published with the models."""
VOCABULARY = 32_100
PRECISIONS = {"float32": jnp.dtype(jnp.float32), "bfloat16": jnp.dtype(jnp.bfloat16)}


class Trial:
    """A model, its optimizer and a compiled step, to be run and timed."""

    def __init__(
        self,
        size: str,
        batch: int,
        precision: str,
        *,
        input_length: int = 512,
        target_length: int = 114,
        optimizer: str = "adamw",
        remat: Remat = "none",
        accumulation: int = 1,
    ) -> None:
        self.config = ModelConfig.create(SIZES[size], VOCABULARY)
        settings = OptimizerSettings.model_validate({"name": optimizer})
        schedule = create_schedule(ScheduleSettings(name="constant"), 1e-3, 1_000_000)
        transformation = create_optimizer(settings, schedule)
        how = StepSettings(PRECISIONS[precision], remat=remat, accumulation=accumulation)
        step = create_step(self.config, transformation, schedule, how)

        def fresh() -> TrainState:
            return fresh_state(self.config, transformation, jax.random.key(0))

        rng = np.random.default_rng(0)
        self.batch = {
            "input_ids": rng.integers(3, VOCABULARY, (batch, input_length), np.int32),
            "targets": rng.integers(3, VOCABULARY, (batch, target_length), np.int32),
        }
        begun = time.perf_counter()
        self.step = step.lower(jax.eval_shape(fresh), self.batch).compile()
        self.compile_seconds = time.perf_counter() - begun
        self.state = jax.jit(fresh)()
        self.tokens = batch * (input_length + target_length)
        self.flops = step_flops(self.config, batch, input_length, target_length)

    def run(self, steps: int = 1) -> float:
        """Seconds for so many steps."""
        begun = time.perf_counter()
        for _ in range(steps):
            self.state, _ = self.step(self.state, self.batch)
        jax.block_until_ready(self.state)
        return time.perf_counter() - begun


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
) -> dict[str, Any]:
    """Tokens a second of training on random tokens, without padding and without dropout.

    Args:
      size: one of :data:`SIZES`.
      batch: rows of a batch.
      precision: `float32` or `bfloat16`, of the products.
      input_length: encoder positions.
      target_length: decoder positions.
      optimizer: its name in a recipe.
      remat: `none`, `dots` or `full`.
      gradient_accumulation: parts a batch is worked on in.
      steps: how many are timed at once.
      repeats: how many times; the median counts, after one that is not counted.

    Raises:
      T5smithError: settings that cannot be used.
    """
    _check(size, precision, remat)
    for name, value in (("batch", batch), ("steps", steps), ("repeats", repeats)):
        if value < 1:
            raise T5smithError(f"{value} cannot be used", where=f"--{name}", expected="1 or more")
    if gradient_accumulation < 1 or batch % gradient_accumulation:
        raise T5smithError(
            f"{gradient_accumulation} cannot be used",
            where="--gradient-accumulation",
            expected=f"a divisor of the batch of {batch}",
        )
    # What was compiled before would hide what compiling costs.
    cached = bool(cast(Any, jax.config).jax_enable_compilation_cache)
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        trial = Trial(
            size,
            batch,
            precision,
            input_length=input_length,
            target_length=target_length,
            optimizer=optimizer,
            remat=remat,  # pyright: ignore[reportArgumentType] - checked above
            accumulation=gradient_accumulation,
        )
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
    info(f"bench     compiled in {trial.compile_seconds:.1f} s; timing {repeats} times {steps} steps")
    trial.run()
    seconds = statistics.median(trial.run(steps) / steps for _ in range(repeats))
    dtype = PRECISIONS[precision]
    peak = peak_tflops(dtype)
    memory = memory_in_use()
    return {
        "tokens_per_second": round(trial.tokens / seconds),
        "seconds_per_step": round(seconds, 6),
        "mfu": round(trial.flops / seconds / (peak * 1e12), 4),
        "peak_tflops": round(peak, 4),
        "measured_tflops": round(measured_tflops(dtype), 4),
        "compile_seconds": round(trial.compile_seconds, 2),
        "peak_memory_bytes": None if memory is None else memory[1],
        "step_tflop": round(trial.flops / 1e12, 4),
        "parameters": parameter_count(trial.state.parameters),
        "size": size,
        "batch": batch,
        "precision": precision,
        "input_length": input_length,
        "target_length": target_length,
        "optimizer": optimizer,
        "remat": remat,
        "gradient_accumulation": gradient_accumulation,
        "device": jax.devices()[0].device_kind,
    }


def _check(size: str, precision: str, remat: str) -> None:
    """Refuse names that mean nothing."""
    for name, value, known in (
        ("size", size, tuple(SIZES)),
        ("precision", precision, tuple(PRECISIONS)),
        ("remat", remat, get_args(Remat)),
    ):
        if value not in known:
            raise T5smithError(
                f"{value!r} cannot be used", where=f"--{name}", expected=f"one of {', '.join(known)}"
            )
