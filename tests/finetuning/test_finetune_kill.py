"""Killed thirty times at random, fine-tuning ends with the parameters of an uninterrupted run."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from finetuning.pairs import pairs, tuned, write_jsonl
from finetuning.test_finetune import arrays_of, rows_of
from t5smith.finetuning.finetune import finetune
from t5smith.recipe.toml import dump
from t5smith.training.resume import checkpoints

KILLS = 30
LONGEST = 1.6
"""A process may live at most so many times as long as one takes from its start to its first checkpoint."""
PROGRAM = "import sys; from t5smith.cli.main import main; sys.exit(main(['finetune', sys.argv[1]]))"


def newest_in(folder):
    """The step of the newest checkpoint; 0 without one."""
    return max(checkpoints.saved_steps(folder), default=0) if folder.exists() else 0


@pytest.mark.slow
def test_thirty_kills_lose_nothing_but_the_steps_since_the_last_checkpoint(finished, tmp_path):
    file = write_jsonl(tmp_path / "pairs.jsonl", pairs(60))
    reference = tuned(
        tmp_path / "reference",
        file,
        **{
            "finetune.model": str(finished.folder),
            # Its default depends on the number of steps, which differs.
            "finetune.train.schedule.warmup_steps": 2,
            "finetune.train.evaluate_every": 5,
        },
    )
    endless = {"finetune.train.steps": 1_000_000, "finetune.train.checkpoint_every": 3}
    recipe = reference.replace(run_dir=tmp_path / "run", **endless)
    settings = tmp_path / "recipe.toml"
    settings.write_text(dump(recipe), encoding="utf-8")
    draw = random.Random(0)
    folder = recipe.folder / "finetune" / "train" / "checkpoints"
    reached, moments, longest = 0, [], 0.0
    for kill in range(KILLS):
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(settings)],
            stderr=subprocess.PIPE,
            env=dict(os.environ),
            text=True,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            while not kill and not newest_in(folder):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
                    pytest.fail(process.stderr.read())
            process.wait(draw.uniform(0.0, longest) if kill else 0.1)
            pytest.fail(process.stderr.read())
        longest = longest or LONGEST * (time.monotonic() - begun)
        process.kill()
        process.communicate()
        newest = newest_in(folder)
        assert newest >= reached
        moments.append(newest - reached)
        reached = newest
    # The kills fell into starts as well as into training.
    assert 0 in moments
    assert sum(moment > 0 for moment in moments) > KILLS // 10
    last = reached + 10
    whole = {"finetune.train.steps": last, "finetune.train.checkpoint_every": 1_000_000}
    ended, uninterrupted = recipe.replace(**whole), reference.replace(**whole)
    found = finetune(ended), finetune(uninterrupted)
    for ours, theirs in zip(arrays_of(ended, last), arrays_of(uninterrupted, last), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert rows_of(ended) == rows_of(uninterrupted)
    assert found[0]["scores"].keys() == found[1]["scores"].keys()
