"""Ray: a worker or a machine that is lost in the middle of a unit does not change the store."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clusters import sibling, store_files
from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan
from t5smith.store import prepare as module
from t5smith.store.prepare import prepare
from t5smith.store.tasks.ray import RETRIES
from t5smith.store.tasks.task import completed_file, started_file

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def recipe(recipe_of_tasks: Recipe, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    for limit in ("MIN_BLOCK_BYTES", "MAX_BLOCK_BYTES"):
        monkeypatch.setattr(plan, limit, 4_000)
    return recipe_of_tasks


@pytest.fixture
def on_ray(recipe: Recipe) -> Recipe:
    return sibling(recipe, "on ray").replace(**{"prepare.executor": "ray", "prepare.memory_gb": 1})


def while_it_runs(monkeypatch: pytest.MonkeyPatch, happen: Callable[[Path, int], None]) -> None:
    """Call a function with the notes and the number of tasks again and again while tasks run."""
    run = module.run_tasks

    def run_tasks(recipe: Recipe, notes: Path, tasks: int, workers: int, poll: Callable[[], None]) -> None:
        def both() -> None:
            poll()
            happen(notes, tasks)

        run(recipe, notes, tasks, workers, both)

    monkeypatch.setattr(module, "run_tasks", run_tasks)


def process_in_a_unit(notes: Path, tasks: int, rank: int) -> int | None:
    """The process of a task that has begun and is not done."""
    if not any((notes / "shards").glob("*.json")) or completed_file(notes, tasks, rank).exists():
        return None
    found: dict[str, Any] = json.loads(started_file(notes, rank).read_text())
    return found["pid"]


def test_a_killed_worker_does_not_change_the_store(
    on_ray: Recipe, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: set[int] = set()

    def kill(notes: Path, tasks: int) -> None:
        pid = process_in_a_unit(notes, tasks, 1) if len(killed) < RETRIES else None
        if pid is not None and pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)

    while_it_runs(monkeypatch, kill)
    made = store_files(prepare(on_ray))
    assert killed
    assert made == store_files(prepare(sibling(recipe, "local")))
