"""Killed fifty times at random, training ends with the parameters of an uninterrupted run."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from t5smith.recipe.toml import dump
from t5smith.training.metrics import read_rows
from t5smith.training.resume import checkpoints as checkpoint
from t5smith.training.setup import Run
from t5smith.training.train import train
from tiny import tiny_recipe

KILLS = 50
LONGEST = 9.0
"""Seconds a process may live: start and compilation are half of it."""
PROGRAM = "import sys; from t5smith.cli.main import main; sys.exit(main(['train', sys.argv[1]]))"


def state_of(recipe):
    setup = Run(recipe).setup
    state = checkpoint.restore(train(recipe), setup.abstract_state())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.mark.slow
def test_fifty_kills_lose_nothing_but_the_steps_since_the_last_checkpoint(run_folder, tmp_path):
    reference = tiny_recipe(shutil.copytree(run_folder, tmp_path / "reference"))
    # The default rate depends on the number of steps, which differs.
    reference = reference.replace(**{"train.optimizer.learning_rate": 0.01})
    recipe = reference.replace(run_dir=run_folder, **{"train.steps": 1_000_000, "train.checkpoint_every": 3})
    settings = tmp_path / "recipe.toml"
    settings.write_text(dump(recipe))
    draw = random.Random(0)
    checkpoints = run_folder / "train" / "checkpoints"
    reached, moments = 0, []
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(settings)],
            stderr=subprocess.PIPE,
            env=dict(os.environ),
            text=True,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0.0, LONGEST))
            pytest.fail(process.stderr.read())
        process.kill()
        process.communicate()
        saved = checkpoint.saved_steps(checkpoints) if checkpoints.exists() else []
        newest = saved[-1] if saved else 0
        assert newest >= reached
        moments.append(newest - reached)
        reached = newest
    # The kills fell into starts as well as into training.
    assert 0 in moments
    assert sum(moment > 0 for moment in moments) > KILLS // 10
    assert reached > 0
    whole = {"train.steps": reached + 10, "train.checkpoint_every": 1_000}
    ended, uninterrupted = state_of(recipe.replace(**whole)), state_of(reference.replace(**whole))
    for ours, theirs in zip(ended, uninterrupted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    rows = [
        [
            (row["step"], row["loss"], row["gradient_norm"])
            for row in read_rows(one.folder / "train" / "metrics.jsonl")
        ]
        for one in (recipe, reference)
    ]
    assert rows[0] == rows[1]
