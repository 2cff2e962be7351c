"""A checkpoint is written while training goes on, and holds what the state was when it was asked for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from t5smith.training import checkpoints as checkpoint
from t5smith.training.checkpoints import AsyncSaver
from t5smith.training.state import TrainState


def state_of(step, value):
    big = jnp.full((512, 1024), value, jnp.float32)
    return TrainState(jnp.int32(step), {"w": big}, (), None, jnp.float32(0))  # type: ignore[arg-type]


def test_steps_taken_meanwhile_are_not_in_it(tmp_path):
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


def test_the_best_stays_until_there_is_a_better_one(tmp_path):
    saver = AsyncSaver(tmp_path, {}, checkpoint.Retention(1))
    for step, best, there in ((1, 1, [1]), (2, 1, [1, 2]), (3, 1, [1, 3]), (4, 4, [4])):
        saver.save(state_of(step, 1.0), {}, best)
        saver.wait()
        assert checkpoint.saved_steps(tmp_path) == there
    saver.close()
