"""A checkpoint is written while training continues, and holds the state at the time of the call."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from t5smith.training.resume import checkpoints as checkpoint
from t5smith.training.resume.checkpoints import AsyncSaver
from t5smith.training.state import TrainState


def state_of(step, value):
    big = jnp.full((512, 1024), value, jnp.float32)
    return TrainState(jnp.int32(step), {"w": big}, (), None, jnp.float32(0))  # type: ignore[arg-type]


def test_later_steps_do_not_change_a_checkpoint_being_written(tmp_path):
    used_up = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    saver = AsyncSaver(tmp_path, {}, checkpoint.Retention(100))
    state = state_of(0, 0.0)
    for _ in range(12):
        saver.save(state, {})
        for _ in range(3):
            state = used_up(state)
    saver.finish()
    saver.close()
    saved = checkpoint.saved_steps(tmp_path)
    assert saved == list(range(0, 36, 3))
    for step in saved:
        like = jax.eval_shape(lambda: state_of(0, 0.0))
        read = checkpoint.restore(checkpoint.checkpoint_folder(tmp_path, step), like)
        assert (np.asarray(read.parameters["w"]) == step).all()


def test_the_best_is_kept_until_there_is_a_better_one(tmp_path):
    saver = AsyncSaver(tmp_path, {}, checkpoint.Retention(1))
    for step, best, there in ((1, 1, [1]), (2, 1, [1, 2]), (3, 1, [1, 3]), (4, 4, [4])):
        saver.save(state_of(step, 1.0), {}, best)
        saver.wait()
        assert checkpoint.saved_steps(tmp_path) == there
    saver.close()


def test_the_names_on_disk_are_those_of_0_1(tmp_path):
    """Renaming a part of the state must not make older checkpoints unreadable."""
    saved = checkpoint.save(tmp_path, state_of(3, 1.0), {}, {}, checkpoint.Retention(1))
    with ocp.StandardCheckpointer() as checkpointer:
        names = checkpointer.metadata((saved / "state").absolute()).item_metadata.tree.keys()
    assert names == {"step", "parameters", "optimizer", "average", "usual_norm"}


def test_a_manifest_of_0_1_gives_the_skipped_batches(tmp_path):
    saved = checkpoint.save(tmp_path, state_of(3, 1.0), {"seed": 0}, {}, checkpoint.Retention(1))
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["made_from"] = manifest.pop("inputs")
    manifest["facts"] = {"step": 3, "passed_over": [[1, 2]], "left_out_in_a_row": 1}
    (saved / "manifest.json").write_text(json.dumps(manifest))
    _, read = checkpoint.latest(tmp_path, {"seed": 0})
    assert read.facts == {"step": 3, "skipped_batches": [[1, 2]], "skipped_in_a_row": 1}
