"""Whatever a mistaken command changes, no trained step is lost, and the right command continues.

A triple is a run, finished or stopped half-way; a command with another value for one setting, generated from
the setting's type; and the right command again.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys

import pytest

from mistakes import other_values
from t5smith.base.errors import T5smithError
from t5smith.base.run_folder import CHECKPOINTS, PREFIX, archives, saved_steps
from t5smith.pipeline import run
from t5smith.recipe.toml import dump
from t5smith.training.train import train
from tiny import tiny_recipe

HALF, WHOLE = 4, 6
TRIPLES = 40
QUICK = 4
"""Triples that are not slow tests."""
KILLS = 30
COSTLY = {"prepare.executor", "prepare.tasks", "train.prefetch_workers", "vocab.tokenizer"}
"""Settings that start processes or look for another host."""


def generated():
    """One mistake for each of 40 settings, drawn with a fixed seed, alternately on a half and a whole run."""
    by_name = {}
    for name, value in other_values(tiny_recipe("unused")):
        if not name.startswith("finetune."):  # without effect on `run`
            by_name.setdefault(name, []).append(value)
    draw = random.Random(17)
    names = draw.sample(sorted(by_name.keys() - COSTLY), TRIPLES)
    return [(name, draw.choice(by_name[name]), number % 2 == 0) for number, name in enumerate(names)]


MISTAKES = generated()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, and one whose training was stopped half-way."""
    folder = tmp_path_factory.mktemp("mistakes")
    half = tiny_recipe(folder / "half", **{"train.steps": HALF})
    run(half)
    whole = tiny_recipe(shutil.copytree(half.folder, folder / "whole"))
    run(whole)
    return {False: half.folder, True: whole.folder}


def at_stake(folder):
    """Identity and content of the files that cost time: file -> inode, size, time of change."""
    kept = {}
    for part in ("vocab", "store", f"train/{CHECKPOINTS}"):
        for file in sorted((folder / part).rglob("*")):
            # A process that was killed leaves a checkpoint that it had not finished.
            if file.is_file() and ".unfinished" not in str(file):
                status = file.stat()
                kept[file.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return kept


def newest(folder):
    return saved_steps(folder / "train" / CHECKPOINTS)[-1]


def assert_kept(before, folder):
    """No step, vocabulary or store is gone. An older checkpoint may have been deleted for a newer one."""
    after = at_stake(folder)
    for file, status in before.items():
        if file.startswith("train/"):
            step = int(file.split("/")[2][len(PREFIX) :])
            if step < newest(folder):
                continue
        assert after.get(file) == status, file
    assert not [one for one in archives(folder) if one.steps], "a training was archived unasked"


@pytest.mark.parametrize(
    ("name", "value", "whole"),
    [
        pytest.param(*mistake, id=f"{mistake[0]}={mistake[1]}", marks=[pytest.mark.slow] * (number >= QUICK))
        for number, mistake in enumerate(MISTAKES)
    ],
)
def test_a_mistake_costs_nothing_and_the_right_command_continues(name, value, whole, runs, tmp_path, capfd):
    folder = shutil.copytree(runs[whole], tmp_path / "run")
    right = tiny_recipe(folder, **{"train.steps": WHOLE})
    before, steps = at_stake(folder), newest(folder)
    with contextlib.suppress(T5smithError):
        run(right.replace(**{name: value}))
    assert_kept(before, folder)
    reached = newest(folder)
    assert reached >= steps
    capfd.readouterr()
    # A mistaken `train.steps` that is larger has trained further, as it was told to.
    run(right.replace(**{"train.steps": max(reached, WHOLE)}))
    error = capfd.readouterr().err
    assert "starting from scratch" not in error
    assert ("resuming from" in error) == (reached < WHOLE), error
    assert_kept(before, folder)


PROGRAM = "import sys; from t5smith.cli.main import main; sys.exit(main(['run', sys.argv[1]]))"


@pytest.mark.slow
def test_thirty_kills_during_mistakes_cost_nothing(runs, tmp_path):
    draw = random.Random(3)
    for number in range(KILLS):
        name, value, whole = MISTAKES[number]
        folder = shutil.copytree(runs[whole], tmp_path / str(number) / "run")
        right = tiny_recipe(folder, **{"train.steps": WHOLE})
        before = at_stake(folder)
        try:
            mistaken = right.replace(**{name: value})
        except T5smithError:
            continue
        settings = tmp_path / str(number) / "recipe.toml"
        settings.write_text(dump(mistaken))
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(settings)], stderr=subprocess.DEVNULL, env=dict(os.environ)
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(1.0, 9.0))
        process.kill()
        process.wait()
        assert_kept(before, folder)
        reached = newest(folder)
        assert train(right.replace(**{"train.steps": max(reached, WHOLE)})).parent.parent.parent == folder
        assert_kept(before, folder)
        shutil.rmtree(tmp_path / str(number))
