"""Two tasks that write one shard, as when Slurm starts a task again that still runs elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stores import MakeRecipe
from t5smith.base.artifact import read_manifest
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan, workspace
from t5smith.store import prepare as module
from t5smith.store.prepare import prepare
from t5smith.store.shard_writer import ShardWriter
from t5smith.store.worker import Task
from t5smith.store.workspace import Workspace

# A task whose folder is gone ends; what it had open is closed with its process.
pytestmark = pytest.mark.filterwarnings("ignore:.*unclosed file", "ignore:.*_io.FileIO")
STEPS = [(), ("exact_duplicates",)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("MIN_BLOCK_BYTES", "MAX_BLOCK_BYTES"):
        monkeypatch.setattr(plan, limit, 100)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def unfinished(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plan a store and make none of its shards; returns the folder of its notes."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe)
    (notes,) = Workspace.beside(recipe.folder / "store").notes.iterdir()
    return notes


def interrupt_at(
    where: str, moment: int, meanwhile: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the task opens or closes its shard of this number, let another process do something."""
    method, numbers = getattr(ShardWriter, where), itertools.count()

    def after(self: ShardWriter, *args: Any) -> Any:
        if next(numbers) == moment:
            with monkeypatch.context() as patch:
                patch.setattr(workspace, "_PROCESS", "another")
                patch.setattr(ShardWriter, where, method)
                meanwhile()
        return method(self, *args)

    monkeypatch.setattr(ShardWriter, where, after)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("where", ["__init__", "close"])
@pytest.mark.parametrize("moment", [0, 2])
def test_a_task_that_runs_twice_writes_the_same_shards(
    recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, steps: tuple[str, ...], where: str, moment: int
) -> None:
    settings = recipe().replace(**{"cleaning.steps": steps})
    found = contents(prepare(settings))
    prepare(settings).rename(settings.folder / "reference")
    notes = unfinished(settings, monkeypatch)
    interrupt_at(where, moment, Task.load(notes, 1, 0).run, monkeypatch)
    Task.load(notes, 1, 0).run()
    assert contents(prepare(settings)) == found


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("where", ["__init__", "close"])
def test_a_task_that_outlives_its_store_does_not_change_it(
    recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, steps: tuple[str, ...], where: str
) -> None:
    settings = recipe().replace(**{"cleaning.steps": steps})
    notes = unfinished(settings, monkeypatch)
    interrupt_at(where, 1, lambda: prepare(settings), monkeypatch)
    with pytest.raises(FileNotFoundError):
        Task.load(notes, 1, 0).run()
    made = settings.folder / "store"
    assert contents(made).keys() == {*read_manifest(made, "store").files, "manifest.json"}
    kept = [] if steps else ["store.shards"]
    assert [path.name for path in settings.folder.glob("store.*")] == kept


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("where", ["__init__", "close"])
@pytest.mark.parametrize("moment", [0, 2])
def test_a_task_of_other_settings_writes_nothing_into_the_store(
    recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, steps: tuple[str, ...], where: str, moment: int
) -> None:
    """Its shards have the same names, and other contents."""
    before = recipe().replace(**{"cleaning.steps": steps})
    after = before.replace(**{"prepare.document_separator": "none"})
    found = contents(prepare(after))
    (before.folder / "store").rename(before.folder / "reference")
    notes = unfinished(before, monkeypatch)
    interrupt_at(where, moment, lambda: unfinished(after, monkeypatch), monkeypatch)
    with pytest.raises(FileNotFoundError):
        Task.load(notes, 1, 0).run()
    assert contents(prepare(after)) == found


@pytest.mark.parametrize("steps", STEPS)
def test_what_is_not_finished_is_in_the_notes(
    recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, steps: tuple[str, ...]
) -> None:
    """A store may be finished, and renamed, while a task that was believed dead still writes a shard."""
    settings = recipe().replace(**{"cleaning.steps": steps})
    notes = unfinished(settings, monkeypatch)
    seen: list[str] = []

    def look() -> None:
        for folder in settings.folder.rglob("*.part"):
            seen.append(folder.relative_to(settings.folder).parts[0])

    interrupt_at("close", 1, look, monkeypatch)
    Task.load(notes, 1, 0).run()
    assert seen
    assert set(seen) == {"store.notes"}
