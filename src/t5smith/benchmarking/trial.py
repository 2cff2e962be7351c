"""A model, its optimizer and a compiled step on a random batch, ready to be timed."""

from __future__ import annotations

import time

import jax
import numpy as np

from t5smith.model.config import ModelConfig
from t5smith.model.flops import step_flops
from t5smith.model.t5 import Remat
from t5smith.parallel.backend import compute_in
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
from t5smith.training.compile import compiled, program_memory
from t5smith.training.optimizer import create_optimizer
from t5smith.training.schedule import create_schedule
from t5smith.training.state import TrainState, fresh_state
from t5smith.training.step import StepSettings, create_step

VOCABULARY = 32_100


class Trial:
    """A step of a size, a batch and a precision, compiled when it is made; random ids, without padding."""

    def __init__(
        self,
        settings: ModelSettings,
        batch: int,
        precision: str,
        *,
        ids: int = VOCABULARY,
        input_length: int = 512,
        target_length: int = 114,
        optimizer: str = "adamw",
        remat: Remat = "none",
        accumulation: int = 1,
    ) -> None:
        self.optimizer_name = optimizer
        self.config = ModelConfig.create(settings, ids)
        optimizer_settings = OptimizerSettings.model_validate({"name": optimizer})
        self.schedule = create_schedule(ScheduleSettings(name="constant"), 1e-3, 1_000_000)
        compute = compute_in(precision)
        self.optimizer = create_optimizer(
            optimizer_settings, self.schedule, self.config.num_heads, compute.backend
        )
        self.step_settings = StepSettings(compute, remat=remat, accumulation=accumulation)
        step = create_step(self.config, self.optimizer, self.schedule, self.step_settings)

        def fresh() -> TrainState:
            return fresh_state(self.config, self.optimizer, jax.random.key(0))

        rng = np.random.default_rng(0)
        self.batch = {
            "input_ids": rng.integers(3, ids, (batch, input_length), np.int32),
            "targets": rng.integers(3, ids, (batch, target_length), np.int32),
        }
        begun = time.perf_counter()
        self.step = compiled(step.lower(jax.eval_shape(fresh), self.batch))
        self.program_bytes = program_memory(self.step)
        self.compile_seconds = time.perf_counter() - begun
        self.state = jax.jit(fresh)()
        self.tokens = batch * (input_length + target_length)
        self.flops = step_flops(self.config, batch, input_length, target_length)

    def run(self, steps: int = 1) -> float:
        """Run some steps; the seconds they took."""
        begun = time.perf_counter()
        for _ in range(steps):
            self.state, _ = self.step(self.state, self.batch)
        jax.block_until_ready(self.state)
        return time.perf_counter() - begun
