"""Tasks in local processes: kills at any moment do not change the store, and errors are reported."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clusters import sibling, store_files
from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import dump
from t5smith.store import plan
from t5smith.store import prepare as module
from t5smith.store.prepare import prepare
from t5smith.store.tasks import executors
from t5smith.store.workspace import Workspace

KILLS = 30
PROGRAM = """
import sys
from t5smith.store import plan
from t5smith.store import prepare
plan.MIN_BLOCK_BYTES = plan.MAX_BLOCK_BYTES = 20_000
prepare.IN_PROCESS_BYTES = 0
from t5smith.cli.main import main
sys.exit(main(["prepare", sys.argv[1]]))
"""


@pytest.fixture
def recipe(recipe_of_tasks: Recipe) -> Recipe:
    return recipe_of_tasks


def test_several_processes_make_the_same_store_as_one(recipe: Recipe) -> None:
    made = store_files(prepare(recipe))
    assert made == store_files(prepare(sibling(recipe, "one").replace(**{"prepare.tasks": 1})))
    assert not Workspace.beside(recipe.folder / "store").notes.exists()


def test_a_user_error_of_a_task_is_raised(recipe: Recipe, tmp_path: Path) -> None:
    with (tmp_path / "text.jsonl").open("a") as file:
        file.write('{"text": 7}\n')
    with pytest.raises(T5smithError, match=r"text\.jsonl:1001: the field 'text' is a number, not text"):
        prepare(recipe.replace(**{"corpus.strict": True}))


def test_a_killed_task_is_reported_and_its_shards_are_kept(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    start = executors._start

    def start_and_kill(notes: Path, tasks: int, rank: int) -> subprocess.Popen[bytes]:
        process = start(notes, tasks, rank)
        if rank == 1:
            process.send_signal(signal.SIGKILL)
            killed.append(process.pid)
        return process

    monkeypatch.setattr(executors, "_start", start_and_kill)
    with pytest.raises(T5smithError, match="a task was killed by signal 9; the system does that if mem"):
        prepare(recipe)
    assert killed
    monkeypatch.undo()
    assert store_files(prepare(recipe)) == store_files(prepare(sibling(recipe, "again")))


def test_half_removed_notes_are_not_resumed(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    # With this step, notes are not kept for shards that may be used again.
    recipe = recipe.replace(**{"cleaning.steps": ("exact_duplicates",)})
    found = store_files(prepare(recipe))
    shutil.rmtree(recipe.folder / "store")
    removed = module.discard

    def ended(path: Path) -> None:
        if path.name == "store.notes":
            (next(path.iterdir()) / "plan.json").unlink()
            raise KeyboardInterrupt
        removed(path)

    with monkeypatch.context() as patch:
        patch.setattr(module, "discard", ended)
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe)
    shutil.rmtree(recipe.folder / "store")
    assert store_files(prepare(recipe)) == found


def test_notes_of_another_version_are_not_resumed(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "finish_store", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe)
    (notes,) = Workspace.beside(recipe.folder / "store").notes.iterdir()
    job = json.loads((notes / "job.json").read_text())
    (notes / "job.json").write_text(json.dumps(job | {"notes_format": 1}))
    for note in (notes / "shards").iterdir():
        note.write_text('{"other": "names"}')
    assert store_files(prepare(recipe)) == store_files(prepare(sibling(recipe, "again")))


def test_an_internal_error_of_a_task_is_raised(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = module._plan

    def without_a_plan(*args: object) -> object:
        plan = begin(*args)  # type: ignore[arg-type]
        (args[2].notes / "plan.json").write_text("{}")  # type: ignore[attr-defined]
        return plan

    monkeypatch.setattr(module, "_plan", without_a_plan)
    with pytest.raises(RuntimeError, match="KeyError: 'units'"):
        prepare(recipe)


def test_completed_tasks_are_not_started_again(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = module.finish_store
    monkeypatch.setattr(module, "finish_store", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(recipe)
    monkeypatch.setattr(module, "finish_store", finish)
    monkeypatch.setattr(executors, "_start", lambda *_: pytest.fail("a task was started again"))
    assert store_files(prepare(recipe))


@pytest.mark.slow
def test_a_run_resumes_with_another_number_of_tasks(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Task 1 of 2 is done; task 1 of 3, which reads another part, is not."""
    for limit in ("MIN_BLOCK_BYTES", "MAX_BLOCK_BYTES"):
        monkeypatch.setattr(plan, limit, 100_000)
    with monkeypatch.context() as patch:
        patch.setattr(module, "finish_store", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe)
    (notes,) = Workspace.beside(recipe.folder / "store").notes.iterdir()
    (notes / "shards" / "00000-00001.json").unlink()
    again = recipe.replace(**{"prepare.tasks": 3})
    assert store_files(prepare(again)) == store_files(prepare(sibling(again, "whole")))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(), ("length", "exact_duplicates", "near_duplicates")])
def test_thirty_kills_do_not_change_the_store(recipe: Recipe, tmp_path: Path, steps: tuple[str, ...]) -> None:
    recipe = recipe.replace(**{"cleaning.steps": steps, "cleaning.length.min_characters": 240})
    reference = sibling(recipe, "reference")
    for made in (recipe, reference):
        (tmp_path / f"{made.folder.name}.toml").write_text(dump(made))
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "reference.toml")], check=True)
    draw = random.Random(1)
    progress: list[int] = []
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "run.toml")], start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0.0, 2.5))
        # Otherwise the tasks must end by themselves.
        if draw.random() < 0.5:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        progress.append(len(list((recipe.folder / "store.notes").glob("**/shards/*.json"))))
        if (recipe.folder / "store").exists():
            shutil.rmtree(recipe.folder / "store")
    assert max(progress) > 0
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "run.toml")], check=True)
    assert store_files(recipe.folder / "store") == store_files(reference.folder / "store")
