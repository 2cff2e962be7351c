"""What stands between the command and the first step: programs, compiled once and found again; imports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tiny import tiny_recipe

CHILD = """
import json, logging, os, sys
from pathlib import Path
import jax
from jax import monitoring
from t5smith.recipe.toml import load_recipe

programs, missed, first = [], [], {}

class Compiled(logging.Handler):
    def emit(self, record):
        text = record.getMessage()
        if text.startswith("Finished XLA compilation of "):
            programs.append(text.split()[4])

jax.config.update("jax_log_compiles", True)
logging.getLogger("jax").addHandler(Compiled())
logging.getLogger("jax").propagate = False
monitoring.register_event_listener(
    lambda event, **_: missed.append(event) if event == "/jax/compilation_cache/cache_misses" else None
)

from t5smith.training.loop import Loop
from t5smith.training.timing import trial
from t5smith.training.train import train

record = Loop.record

def recorded(loop, metrics):
    first.setdefault("programs", list(programs))
    first.setdefault("modules", sorted(sys.modules))
    return record(loop, metrics)

Loop.record, trial.SECONDS = recorded, 0.0
recipe = load_recipe(Path(sys.argv[1])).replace(**json.loads(sys.argv[2]))
train(recipe)
print(json.dumps({**first, "all": programs, "missed": len(missed)}))
"""
HEAVY = ("torch", "transformers", "datasets", "matplotlib", "pandas", "tensorflow", "scipy.optimize", "flax")


def started(folder, changes=None, **environment):
    """What a process of its own tells of a training in a prepared run folder."""
    recipe = folder / "recipe.toml"
    found = subprocess.run(
        [sys.executable, "-c", CHILD, str(recipe if recipe.exists() else folder), json.dumps(changes or {})],
        env=os.environ | environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(found.stdout.splitlines()[-1])


@pytest.fixture
def saved(run_folder):
    """A run folder with its recipe, prepared and not trained."""
    from t5smith.recipe.toml import save_run_settings

    save_run_settings(tiny_recipe(run_folder, **{"train.steps": 5}))
    return run_folder


def test_before_the_first_step_two_programs_are_compiled_and_nothing_heavy_is_imported(saved):
    found = started(saved)
    assert sorted(found["programs"]) == ["jit(fresh)", "jit(step)"]
    assert found["all"].count("jit(step)") == 1
    modules = {name for name in found["modules"] if name.startswith(HEAVY)}
    assert not {name for name in modules if name in HEAVY}


@pytest.mark.slow
def test_a_second_start_finds_every_program_also_with_other_names_and_logging(saved, tmp_path):
    other = shutil.copytree(saved, tmp_path / "other")
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    assert started(saved, **cache)["missed"]
    changes = {"run_dir": str(other), "name": "other", "train.log_every": 2, "train.checkpoint_every": 3}
    found = started(other, changes, **cache)
    assert found["missed"] == 0
    assert "jit(step)" in found["all"]
    assert Path(other / "train" / "checkpoints").is_dir()
