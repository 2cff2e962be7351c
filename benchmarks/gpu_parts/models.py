"""The models and batches that the parts share."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np

from gpu_parts.results import Results
from gpu_parts.scale import Scale
from t5smith.benchmarking.training import SIZES
from t5smith.benchmarking.trial import VOCABULARY, Trial
from t5smith.model.config import ModelConfig
from t5smith.model.params import init
from t5smith.parallel.backend import compute_in
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
from t5smith.training.optimizer import create_optimizer
from t5smith.training.schedule import create_schedule
from t5smith.training.state import fresh_state
from t5smith.training.step import StepSettings, create_step

TINY = ModelSettings(d_model=64, d_kv=16, d_ff=128, num_layers=2, num_decoder_layers=1, num_heads=4)
TINY_IDS = 500


def settings_of(size: str) -> ModelSettings:
    """The settings of `tiny` or of a published model."""
    return TINY if size == "tiny" else SIZES[size]


def ids_of(size: str) -> int:
    """The number of ids of a model's vocabulary."""
    return TINY_IDS if size == "tiny" else VOCABULARY


def config_of(size: str, ids: int | None = None) -> ModelConfig:
    """The sizes of a model, with another vocabulary if `ids` is set."""
    return ModelConfig.create(settings_of(size), ids or ids_of(size))


def trial_of(size: str, batch: int, scale: Scale, precision: str = "bfloat16", **options: Any) -> Trial:
    """A compiled step on a random batch, as `t5smith bench train` times it."""
    return Trial(
        settings_of(size),
        batch,
        precision,
        ids=ids_of(size),
        input_length=scale.input_length,
        target_length=scale.target_length,
        **options,
    )


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


def best_batch(results: Results, scale: Scale, size: str) -> int:
    """The fastest batch that the part `train` found to fit; without its results the usual one."""
    file = results.file.with_name("train.json")
    facts = json.loads(file.read_text(encoding="utf-8"))["facts"] if file.is_file() else {}
    return facts.get(f"best_batch_{size}", scale.batch)


def training(size: str, precision: str, ids: int | None = None) -> tuple[Any, Any]:
    """A jitted step with AdamW and the state that it starts from."""
    config = config_of(size, ids)
    schedule = create_schedule(ScheduleSettings(name="constant", warmup_steps=5), 1e-3, 1_000)
    compute = compute_in(precision)
    settings = OptimizerSettings(name="adamw")
    transformation = create_optimizer(settings, schedule, config.num_heads, compute.backend)
    step = create_step(config, transformation, schedule, StepSettings(compute))
    state = jax.jit(lambda: fresh_state(config, transformation, jax.random.key(0)))()
    return step, state


def parameters_of(size: str) -> Any:
    """Fresh parameters; random bits are the same on every backend."""
    return jax.jit(lambda: init(config_of(size), jax.random.key(0)))()
