"""A step on packed rows of UL2, with attention by item and over whole rows, in turns.

    python benchmarks/packed_rows.py --batch 2,8 --precision float32,bfloat16 --repeats 7

Figures are medians. The last line is one JSON object; `speed-up` is the time with whole rows over that by
item. Both steps start from the same state and see the same batches, one batch per turn: their losses differ
by `loss_difference` at most. Text is random tokens, the optimizer AdamW.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import jax
import numpy as np

from t5smith.benchmarking.training import SIZES
from t5smith.cli.environment import restart_with_huge_pages
from t5smith.model.attention.items import ItemLayout
from t5smith.model.config import ModelConfig
from t5smith.objective.batches import TrainingBatches
from t5smith.objective.objective import Objective
from t5smith.parallel.backend import compute_in
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
from t5smith.store.token_store import Split
from t5smith.training.compile import compiled, program_memory
from t5smith.training.optimizer import create_optimizer
from t5smith.training.schedule import create_schedule
from t5smith.training.state import TrainState, fresh_state
from t5smith.training.step import StepSettings, create_step
from t5smith.vocabulary.vocabulary import Vocabulary


def main() -> None:
    restart_with_huge_pages(["bench", "train"])
    parser = argparse.ArgumentParser(description="Packed rows by item and as a whole")
    parser.add_argument("--size", choices=SIZES, default="t5-v1.1-small")
    parser.add_argument("--batch", default="2,8", help="rows per batch")
    parser.add_argument("--precision", default="float32,bfloat16")
    parser.add_argument("--window-length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "size": arguments.size,
        "window_length": arguments.window_length,
        "repeats": arguments.repeats,
        "device": jax.devices()[0].device_kind,
    }
    for precision in arguments.precision.split(","):
        for rows in map(int, arguments.batch.split(",")):
            result[f"{precision} {rows}"] = compared(arguments, precision, rows)
            print(json.dumps(result), file=sys.stderr)
    print(json.dumps(result))


def compared(arguments: argparse.Namespace, precision: str, rows: int) -> dict[str, Any]:
    """Figures of both steps at one precision and batch size, taking turns."""
    vocabulary = Vocabulary.bundled()
    settings = ObjectiveSettings(name="ul2", window_length=arguments.window_length)
    objective = Objective.create(settings, vocabulary)
    tokens = np.random.default_rng(0).integers(3, 32_000, 400 * arguments.window_length).astype(np.uint16)
    batches = TrainingBatches(Split("train", tokens, np.array([len(tokens)]), 0), objective, rows, seed=0)
    config = ModelConfig.create(SIZES[arguments.size], vocabulary.size)
    schedule = create_schedule(ScheduleSettings(name="constant"), 1e-4, 1_000)
    compute = compute_in(precision)
    optimizer = create_optimizer(OptimizerSettings(name="adamw"), schedule, config.num_heads, compute.backend)

    def fresh() -> TrainState:
        return fresh_state(config, optimizer, jax.random.key(0))

    plan = objective.plan
    layouts = {"items": ItemLayout(plan.item_sizes, plan.rows), "whole_rows": None}
    steps, states, figures = {}, {}, {name: dict[str, Any]() for name in layouts}
    for name, layout in layouts.items():
        step = create_step(config, optimizer, schedule, StepSettings(compute, layout=layout))
        begun = time.perf_counter()
        steps[name] = compiled(step.lower(jax.eval_shape(fresh), batches[0]))
        figures[name]["compile_seconds"] = round(time.perf_counter() - begun, 2)
        figures[name]["program_memory_bytes"] = program_memory(steps[name])
        states[name] = jax.jit(fresh)()
    seconds: dict[str, list[float]] = {name: [] for name in layouts}
    losses: dict[str, list[float]] = {name: [] for name in layouts}
    for turn in range(arguments.repeats + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            states[name], metrics = step(states[name], batches[turn])
            losses[name].append(float(jax.block_until_ready((states[name], metrics))[1].loss))
            seconds[name].append(time.perf_counter() - begun)
    for name, measured in seconds.items():
        # The first turn is not counted.
        figures[name]["seconds_per_step"] = round(statistics.median(measured[1:]), 4)
        figures[name]["fastest_step"] = round(min(measured[1:]), 4)
    by_item, whole = (figures[name]["seconds_per_step"] for name in layouts)
    pairs = zip(losses["items"], losses["whole_rows"], strict=True)
    return {
        "example": objective.describe_shape(),
        "speed-up": round(whole / by_item, 3),
        "loss_difference": max(abs(ours - theirs) for ours, theirs in pairs),
        **figures,
    }


if __name__ == "__main__":
    main()
