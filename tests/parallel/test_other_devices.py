"""A run that moves to other devices, and what is measured on several."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest
from mesh_cases import TINY, mesh_of, programs

from programs import init
from t5smith.model.compute import Compute
from t5smith.objective.batches import TrainingBatches
from t5smith.parallel.rules import parameter_specs
from t5smith.recipe.train import OptimizerSettings
from t5smith.training import eval_step
from t5smith.training.resume import checkpoints
from t5smith.training.train import train
from tiny import tiny_recipe

SETTINGS = {
    "train.batch_size": 8,
    "train.steps": 6,
    "train.evaluate_every": 2,
    "train.schedule.warmup_steps": 1,
    "train.keep_checkpoints": 9,
    "train.average_decay": 0.9,
    "evaluate.batch_size": 3,
}


def rows(folder, name):
    return [json.loads(line) for line in (folder / "train" / name).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adafactor", "adamw"])
def test_a_run_resumes_on_other_devices_with_the_same_batches_and_losses(
    optimizer, prepared, tmp_path, monkeypatch
):
    asked, read = [], TrainingBatches.__getitem__

    def remembered(self, b):
        found = read(self, b)
        asked.append((b, {name: ids.tobytes() for name, ids in found.items()}))
        return found

    monkeypatch.setattr(TrainingBatches, "__getitem__", remembered)
    folders = {name: shutil.copytree(prepared, tmp_path / name) for name in ("one", "moved")}
    settings = SETTINGS | {"train.optimizer.name": optimizer}
    train(tiny_recipe(folders["one"], **settings))
    on_one = dict(asked)
    asked.clear()
    for steps, mesh in ((2, "data=4 fsdp=2"), (4, "fsdp=2 tensor=2"), (6, "auto")):
        folder = train(tiny_recipe(folders["moved"], **settings | {"train.steps": steps, "train.mesh": mesh}))
        facts = json.loads((folder / "manifest.json").read_text())["facts"]
        assert facts["mesh"] == ("" if mesh == "auto" else mesh)
        assert facts["devices"] == {2: 8, 4: 4, 6: 1}[steps]
        backend = "cpu_rows" if mesh == "auto" else "xla"
        assert facts["computed_in"] == f"float32 operands, float32 sums, backend {backend}"
    assert {b: ids for b, ids in asked if b in on_one} == on_one
    for file, figure in (("metrics.jsonl", "loss"), ("metrics.jsonl", "gradient_norm")):
        one, moved = ([row[figure] for row in rows(folders[name], file)] for name in folders)
        np.testing.assert_allclose(moved, one, rtol=1e-5, err_msg=figure)
    one, moved = ([row["all"]["nll"] for row in rows(folders[name], "heldout.jsonl")] for name in folders)
    assert len(one) == 3
    np.testing.assert_allclose(moved, one, rtol=1e-5)


@pytest.mark.slow
def test_a_state_of_one_mesh_is_read_onto_another(tmp_path):
    first, _, _ = programs(mesh_of(2, 2, 2), OptimizerSettings().name, TINY)
    state = first()
    folder = checkpoints.save(tmp_path, state, {}, {}, checkpoints.Retention(1))
    for mesh in (mesh_of(1, 4, 1), None):
        like = programs(mesh, OptimizerSettings().name, TINY)[2]
        moved = checkpoints.restore(folder, like)
        for before, after, where in zip(*map(jax.tree.leaves, (state, moved, like)), strict=True):
            np.testing.assert_array_equal(before, after)
            assert mesh is None or after.sharding.is_equivalent_to(where.sharding, after.ndim)


def test_held_out_figures_on_a_mesh_are_those_of_one_device():
    config = TINY
    parameters, mesh = init(config, jax.random.key(0)), mesh_of(2, 2, 2)
    rng = np.random.default_rng(0)
    # Batches of which no number of rows divides by the devices; the last is smaller.
    batches = [
        {"input_ids": rng.integers(3, 60, (n, 9), np.int32), "targets": rng.integers(0, 60, (n, 5), np.int32)}
        for n in (3, 3, 1)
    ]
    classes = np.zeros(60, np.int32)
    found = []
    for compute in (Compute(np.dtype(np.float32), "cpu_rows"), Compute(np.dtype(np.float32), "xla", mesh)):
        scorer = eval_step.create_scorer(config, classes, compute)
        specs = parameter_specs(parameters, mesh)
        there = jax.tree.map(
            lambda x, spec: jax.device_put(x, jax.sharding.NamedSharding(mesh, spec)), parameters, specs
        )
        found.append(list(scorer(parameters if compute.mesh is None else there, batches)))
    for one, many in zip(*found, strict=True):
        np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-5)
