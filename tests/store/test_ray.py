"""Ray: a worker or a machine that is lost in the middle of a unit does not change the store."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from clusters import sibling, store_files
from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan
from t5smith.store import prepare as module
from t5smith.store.prepare import prepare
from t5smith.store.tasks.ray import RETRIES
from t5smith.store.tasks.status import prepare_status
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
    started = started_file(notes, rank)
    if not (started.exists() and any((notes / "shards").glob("*.json"))):
        return None
    return None if completed_file(notes, tasks, rank).exists() else json.loads(started.read_text())["pid"]


def test_ray_makes_the_same_store(on_ray: Recipe, recipe: Recipe) -> None:
    """Ray is started for it, and stopped."""
    made = store_files(prepare(on_ray.replace(**{"prepare.tasks": 3, "prepare.workers": 2})))
    assert made == store_files(prepare(sibling(recipe, "local")))
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    """A cluster whose tasks run on its only worker node."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.add_node(num_cpus=2)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_killed_worker_does_not_change_the_store(
    on_ray: Recipe, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
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


def test_a_task_whose_worker_is_lost_too_often_is_an_error(
    on_ray: Recipe, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    killed: set[int] = set()

    def kill(notes: Path, tasks: int) -> None:
        pid = process_in_a_unit(notes, tasks, 1)
        if pid is not None and pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        while_it_runs(patch, kill)
        with pytest.raises(T5smithError, match=r"a task was lost 4 times \(WorkerCrashedError\)"):
            prepare(on_ray)
    assert len(killed) == RETRIES + 1
    assert store_files(prepare(on_ray)) == store_files(prepare(sibling(recipe, "local")))


def test_a_lost_machine_does_not_change_the_store(
    on_ray: Recipe, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    nodes = list(cluster.worker_nodes)

    def lose(notes: Path, tasks: int) -> None:
        if nodes and process_in_a_unit(notes, tasks, 1) is not None:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            cluster.add_node(num_cpus=2)

    while_it_runs(monkeypatch, lose)
    made = store_files(prepare(on_ray))
    assert not nodes
    assert made == store_files(prepare(sibling(recipe, "local")))


def test_a_user_error_of_a_task_names_the_task_and_its_machine(
    on_ray: Recipe, tmp_path: Path, cluster: Cluster
) -> None:
    with (tmp_path / "text.jsonl").open("a") as file:
        file.write('{"text": 7}\n')
    with pytest.raises(T5smithError, match=r"text\.jsonl:1001: .* is a number, not text \(task 1 on "):
        prepare(on_ray.replace(**{"corpus.strict": True}))


def test_text_may_be_named_relative_to_the_folder_of_the_command(
    on_ray: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    """The machines of the cluster were started in another one."""
    monkeypatch.chdir(tmp_path)
    prepare(on_ray.replace(**{"corpus.train": ("text.jsonl",)}))
    assert prepare_status(on_ray).documents == 1000


def test_a_machine_that_does_not_see_the_folder_is_named(
    on_ray: Recipe, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    run = module.run_tasks

    def elsewhere(recipe: Recipe, notes: Path, *rest: Any) -> None:
        run(recipe, notes.with_name("not here"), *rest)

    monkeypatch.setattr(module, "run_tasks", elsewhere)
    with pytest.raises(T5smithError, match=r"not here: \S+ does not see this folder\. Put run_dir on a file"):
        prepare(on_ray)
