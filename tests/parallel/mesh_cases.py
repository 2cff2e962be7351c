"""Trainings of a small model on one device and on meshes of eight: settings, batches, losses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from t5smith.model.attention.items import ItemLayout
from t5smith.model.compute import Compute
from t5smith.model.config import ModelConfig
from t5smith.parallel.mesh import create_mesh, put_batch
from t5smith.recipe.train import AXES, OptimizerSettings, ScheduleSettings
from t5smith.training.optimizer import create_optimizer
from t5smith.training.schedule import create_schedule
from t5smith.training.state import abstract_state, fresh_program
from t5smith.training.step import StepSettings, create_step

# Matrices of 128 × 128: Adafactor factors their moments.
CONFIG = ModelConfig(
    256, 250, d_model=128, d_kv=16, d_ff=128, num_layers=2, num_decoder_layers=2, num_heads=8
)
TINY = ModelConfig(64, 60, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_decoder_layers=1, num_heads=4)
LAYOUT = ItemLayout(((6, 4), (4, 3), (3, 5)), ((0, 1), (2, 2, 1), (0, 2)))
INPUTS, TARGETS, ROWS = 12, 14, 16
FLOAT32 = jnp.dtype(jnp.float32)


def mesh_of(*sizes):
    count = int(np.prod(sizes))
    return create_mesh(dict(zip(AXES, sizes, strict=True)), jax.devices()[:count])


def batch(number, packed, ids=60):
    """A batch of random ids, with padded targets, or with the items of `LAYOUT`."""
    rng = np.random.default_rng(number)
    inputs = rng.integers(3, ids, (ROWS, INPUTS), np.int32)
    targets = rng.integers(3, ids, (ROWS, TARGETS), np.int32)
    if not packed:
        targets[::3, 5:] = 0
        return {"input_ids": inputs, "targets": targets}
    segments = [np.zeros((ROWS, size), np.int32) for size in (INPUTS, TARGETS)]
    items = np.full((ROWS, 3), -1, np.int32)
    for row in range(ROWS):
        at = [0, 0]
        for place, kind in enumerate(LAYOUT.cycle[(number * ROWS + row) % len(LAYOUT.cycle)]):
            items[row, place] = kind
            for side, size in enumerate(LAYOUT.sizes[kind]):
                segments[side][row, at[side] : at[side] + size] = place + 1
                at[side] += size
    return {
        "input_ids": np.where(segments[0] > 0, inputs, 0),
        "targets": np.where(segments[1] > 0, targets, 0),
        "input_segments": segments[0],
        "target_segments": segments[1],
        "items": items,
    }


def programs(mesh, optimizer, config=CONFIG, *, packed=False, **settings):
    """The first state, and the step; `mesh` None: as one CPU device computes it."""
    backend = "cpu_rows" if mesh is None else "xla"
    schedule = create_schedule(ScheduleSettings(name="constant"), 0.003, 100)
    rule = create_optimizer(OptimizerSettings(name=optimizer), schedule, config.num_heads, backend)
    averaged = settings.get("average_decay") is not None
    state = fresh_program(config, rule, 0, averaged, mesh)
    compute = Compute(FLOAT32, backend, mesh)
    layout = LAYOUT if packed else None
    step = create_step(config, rule, schedule, StepSettings(compute, layout=layout, **settings))
    return state, step, abstract_state(config, rule, averaged, mesh)


def losses(mesh, optimizer, steps, config=CONFIG, *, packed=False, **settings):
    """The loss of each step, and the last state."""
    first, step, _ = programs(mesh, optimizer, config, packed=packed, **settings)
    state, found = first(), []
    for number in range(steps):
        ids = batch(number, packed)
        state, metrics = step(state, ids if mesh is None else put_batch(mesh, ids, ROWS))
        found.append(float(metrics.loss))
    return np.array(found), state
