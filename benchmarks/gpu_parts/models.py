"""The models and batches that the parts share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5smith.benchmarking.training import SIZES
from t5smith.model.config import ModelConfig
from t5smith.model.params import init
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
from t5smith.training.optimizer import create_optimizer
from t5smith.training.schedule import create_schedule
from t5smith.training.state import fresh_state
from t5smith.training.step import StepSettings, create_step

TINY = ModelSettings(d_model=64, d_kv=16, d_ff=128, num_layers=2, num_decoder_layers=2, num_heads=4)
VOCABULARY = {"tiny": 500}
"""Ids of a size; 32,100 for the published ones."""
DTYPES = {"float32": jnp.dtype(jnp.float32), "bfloat16": jnp.dtype(jnp.bfloat16)}


def config_of(size: str) -> ModelConfig:
    """The sizes of `tiny` or of a published model."""
    return ModelConfig.create(TINY if size == "tiny" else SIZES[size], ids_of(size))


def ids_of(size: str) -> int:
    """How many ids a model's vocabulary has."""
    return VOCABULARY.get(size, 32_100)


def random_batch(
    size: str, rows: int, input_length: int, target_length: int, seed: int = 0
) -> dict[str, Any]:
    """Random ids without padding."""
    rng = np.random.default_rng(seed)
    ids = ids_of(size)
    return {
        "input_ids": rng.integers(3, ids, (rows, input_length), np.int32),
        "targets": rng.integers(3, ids, (rows, target_length), np.int32),
    }


def padded_batch(size: str, rows: int, input_length: int, target_length: int) -> dict[str, Any]:
    """The same, each row padded from another place on."""
    batch = random_batch(size, rows, input_length, target_length)
    for name, length in (("input_ids", input_length), ("targets", target_length)):
        ends = np.linspace(length // 2, length, rows).astype(int)
        batch[name][np.arange(length)[None] >= ends[:, None]] = 0
    return batch


def packed_batch(size: str, rows: int, input_length: int, target_length: int) -> dict[str, Any]:
    """The same in two segments per row, of odd lengths, and padding behind them."""
    batch = random_batch(size, rows, input_length, target_length)
    for name, length, segments in (
        ("input_ids", input_length, "input_segments"),
        ("targets", target_length, "target_segments"),
    ):
        first, last = length // 2 - 1, length - 1
        numbers = np.where(np.arange(length) < first, 1, np.where(np.arange(length) < last, 2, 0))
        batch[segments] = np.broadcast_to(numbers, (rows, length)).astype(np.int32).copy()
        batch[name][batch[segments] == 0] = 0
    return batch


BATCHES = {"full": random_batch, "padded": padded_batch, "packed": packed_batch}


def training(size: str, precision: str, optimizer: str = "adamw") -> tuple[Any, Any]:
    """A jitted step and the state that it starts from."""
    config = config_of(size)
    schedule = create_schedule(ScheduleSettings(name="constant", warmup_steps=5), 1e-3, 1_000)
    transformation = create_optimizer(OptimizerSettings.model_validate({"name": optimizer}), schedule)
    step = create_step(config, transformation, schedule, StepSettings(DTYPES[precision]))
    state = jax.jit(lambda: fresh_state(config, transformation, jax.random.key(0)))()
    return step, state


def parameters_of(size: str) -> Any:
    """Fresh parameters; random bits are the same on every backend."""
    return jax.jit(lambda: init(config_of(size), jax.random.key(0)))()
