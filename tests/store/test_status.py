"""`prepare --status`: how far it is, before, during and after it, and after a kill; nothing is changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from t5smith.base.errors import T5smithError
from t5smith.base.lock import LOCK
from t5smith.base.process import this_process
from t5smith.cli.main import main
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import dump
from t5smith.store import plan
from t5smith.store import prepare as module
from t5smith.store.plan import Plan
from t5smith.store.prepare import prepare
from t5smith.store.tasks import executors, status
from t5smith.store.tasks.status import PrepareStatus, prepare_status
from t5smith.store.tasks.task import completed_file, started_file
from t5smith.store.worker import Progress
from t5smith.store.workspace import Workspace, write


@pytest.fixture
def recipe(recipe_of_tasks: Recipe, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe of two tasks with about 70 blocks."""
    for limit in ("MIN_BLOCK_BYTES", "MAX_BLOCK_BYTES"):
        monkeypatch.setattr(plan, limit, 4_000)
    return recipe_of_tasks


def tree(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def unchanged(recipe: Recipe) -> PrepareStatus:
    """The status, which changes nothing."""
    before = tree(recipe.folder.parent)
    found = prepare_status(recipe)
    assert tree(recipe.folder.parent) == before
    return found


def stop_before_the_end(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepare in this process until all tasks are done; returns the notes."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "IN_PROCESS_BYTES", 4 << 20)
        patch.setattr(module, "finish_store", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe)
    (notes,) = Workspace.beside(recipe.folder / "store").notes.iterdir()
    return notes


def test_before_any_start_and_after_the_end(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = recipe.replace(run_dir=tmp_path / "none")
    found = unchanged(other)
    assert found.state == "not started"
    assert [*found.lines()] == [f"prepare   not started: no store in {tmp_path / 'none'}"]
    assert unchanged(recipe).state == "not started"
    prepare(recipe)
    found = unchanged(recipe)
    assert (found.state, found.documents) == ("finished", 1000)
    capsys.readouterr()
    assert main(["prepare", str(recipe.folder), "--status"]) == 0
    line = f"prepare   finished: {found.tokens:,} tokens of 1,000 documents in {recipe.folder}/store\n"
    assert capsys.readouterr().out == line


def test_while_another_process_prepares(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock does not block reading; what is read never exceeds what there is."""
    (tmp_path / "run.toml").write_text(dump(recipe))
    said: dict[str, Any] = {}
    seen: list[PrepareStatus] = []
    run = module.run_tasks

    def run_tasks(recipe: Recipe, notes: Path, tasks: int, workers: int, poll: Callable[[], None]) -> None:
        def ask() -> None:
            poll()
            seen.append(prepare_status(recipe))
            if not said and seen[-1].blocks:
                command = [sys.executable, "-m", "t5smith", "prepare", str(tmp_path / "run.toml")]
                command += ["--status", "--json"]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                said.update(json.loads(done.stdout))

        run(recipe, notes, tasks, workers, ask)

    monkeypatch.setattr(module, "run_tasks", run_tasks)
    prepare(recipe)
    assert said["state"] == "running"
    assert said["command"].startswith(f"process {os.getpid()} on ")
    size = (tmp_path / "text.jsonl").stat().st_size
    blocks = -(-size // 4_000)
    total = size // blocks * blocks  # each block counts as many bytes
    for found in seen:
        assert (found.state, found.executor, found.bytes_total) == ("running", "local", total)
        assert found.blocks_total == blocks
        assert found.tasks is not None
        assert sum(found.tasks.values()) == 2
    assert [one.blocks for one in seen] == sorted(one.blocks for one in seen)
    assert any(one.tasks is not None and one.tasks["running"] for one in seen)
    assert max(one.bytes_read for one in seen) == total


def test_after_a_kill_of_a_task(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = executors._start

    def start_and_kill(notes: Path, tasks: int, rank: int) -> subprocess.Popen[bytes]:
        process = start(notes, tasks, rank)
        if rank == 1:
            process.send_signal(signal.SIGKILL)
        return process

    with monkeypatch.context() as patch:
        patch.setattr(executors, "_start", start_and_kill)
        with pytest.raises(T5smithError):
            prepare(recipe)
    found = unchanged(recipe)
    assert found.state == "stopped"
    assert found.tasks is not None
    assert found.tasks["failed"] == 1
    (failed,) = found.failed
    assert failed.task == 1
    assert failed.error.startswith("prepare: a task was killed by signal 9; the system does that")
    assert failed.log is not None
    assert Path(failed.log).is_file()
    capsys.readouterr()
    assert main(["prepare", str(recipe.folder), "--status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("prepare   stopped: ")
    assert lines[3] == f"failed    task 1 on {failed.machine}: {failed.error}"
    assert lines[4] == f"          log: {failed.log}"
    prepare(recipe)
    assert unchanged(recipe).state == "finished"


def test_a_failure_in_this_process_is_noted_too(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_PROCESS_BYTES", 4 << 20)
    with (tmp_path / "text.jsonl").open("a") as file:
        file.write('{"text": 7}\n')
    with pytest.raises(T5smithError) as caught:
        prepare(recipe.replace(**{"corpus.strict": True}))
    (failed,) = unchanged(recipe).failed
    assert (failed.task, failed.error, failed.log) == (1, str(caught.value), None)


def test_after_a_stop_at_the_end(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = stop_before_the_end(recipe, monkeypatch)
    found = unchanged(recipe)
    total = found.bytes_total
    assert total == pytest.approx((tmp_path / "text.jsonl").stat().st_size, abs=found.blocks)
    assert (found.state, found.bytes_read) == ("stopped", total)
    assert (found.documents, found.blocks) == (1000, found.blocks_total)
    assert found.tasks == {"done": 2, "running": 0, "failed": 0, "stopped": 0, "waiting": 0}
    # A start that has begun again and reported nothing yet: what is finished counts.
    for file in (notes / "progress").iterdir():
        file.unlink()
    assert prepare_status(recipe).bytes_read == total


def test_what_completed_tasks_have_read_counts_after_a_resume(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar begins where the earlier start ended."""
    notes = stop_before_the_end(recipe, monkeypatch)
    before = {file.name: json.loads(file.read_text())["read"] for file in (notes / "progress").iterdir()}
    (notes / "progress" / "00000.1-2.part").touch()
    completed_file(notes, 2, 1).unlink()
    monkeypatch.setattr(module, "run_tasks", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(recipe)
    (file,) = (notes / "progress").iterdir()
    assert (file.name, json.loads(file.read_text())["found"]) == ("00000", before["00000"])


def test_the_time_left_is_that_of_the_running_tasks(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = stop_before_the_end(recipe, monkeypatch)
    for file in (notes / "shards").iterdir():
        file.unlink()
    for rank, process in ((0, this_process()), (1, this_process() | {"pid": 0x3FFFFFFF})):
        completed_file(notes, 2, rank).unlink()
        write(started_file(notes, rank), json.dumps(process).encode())
        own = Progress(read=30_000, found=10_000, seconds=4.0)
        write(notes / "progress" / f"{rank:05d}", json.dumps(vars(own)).encode())
    found = unchanged(recipe)
    assert found.state == "running"
    assert found.seconds_left == pytest.approx((found.bytes_total - 60_000) / 5_000)
    assert found.tasks == {"done": 0, "running": 1, "failed": 0, "stopped": 1, "waiting": 0}
    # After a crash of the machine a report may be empty.
    (notes / "progress" / "00000").write_bytes(b"")
    assert prepare_status(recipe).bytes_read == 30_000


def test_a_task_on_another_machine_runs_while_it_reports(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = stop_before_the_end(recipe, monkeypatch)
    completed_file(notes, 2, 1).unlink()
    write(started_file(notes, 1), json.dumps(this_process() | {"host": "elsewhere"}).encode())
    for age, kind in ((0.0, "running"), (2 * status.QUIET_S, "stopped")):
        for file in (started_file(notes, 1), notes / "progress" / "00001"):
            os.utime(file, (time.time() - age,) * 2)
        found = prepare_status(recipe)
        assert found.tasks is not None
        assert found.tasks[kind] == 1
        assert found.state == kind


def test_a_command_on_another_machine_may_be_dead(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the lock's file still names a process, it was killed or runs."""
    stop_before_the_end(recipe, monkeypatch)
    for host, pid, state, command in (
        ("elsewhere", 7, "running", "process 7 on elsewhere, if it still runs"),
        (this_process()["host"], 0x3FFFFFFF, "stopped", ""),
    ):
        holder = this_process() | {"host": host, "pid": pid}
        (recipe.folder / LOCK).write_text(json.dumps(holder))
        found = prepare_status(recipe)
        assert (found.state, found.command) == (state, command)


def test_notes_that_vanish_while_they_are_read_are_read_again(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has finished the store meanwhile."""
    stop_before_the_end(recipe, monkeypatch)
    read = Plan.read

    def finish(file: Path) -> Plan:
        monkeypatch.setattr(Plan, "read", read)
        prepare(recipe)
        return read(file)

    monkeypatch.setattr(Plan, "read", finish)
    assert prepare_status(recipe).state == "finished"


def test_notes_that_are_being_removed_do_not_count(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = stop_before_the_end(recipe, monkeypatch)
    notes.rename(notes.with_name(f"{notes.name}.removed"))
    assert prepare_status(recipe).state == "not started"


def test_flags_that_say_what_to_do_are_rejected(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--verify", "--restart"):
        assert main(["prepare", str(recipe.folder), "--status", flag]) == 2
        assert f"--status and {flag}: cannot be used together" in capsys.readouterr().err


def test_many_failed_tasks_are_cut(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = stop_before_the_end(recipe, monkeypatch)
    job = json.loads((notes / "job.json").read_text())
    (notes / "job.json").write_text(json.dumps(job | {"tasks": 30}))
    for rank in range(30):
        if rank >= 12:
            completed_file(notes, 30, rank).touch()
            continue
        failure = {"what": f"KeyError: {rank}", "traceback": "...", "host": "n1"}
        write(notes / "failures" / f"{rank:05d}.json", json.dumps(failure).encode())
    lines = [*prepare_status(recipe).lines()]
    assert lines[2].endswith("tasks: 18 done, 12 failed")
    assert lines[3] == "failed    task 0 on n1: KeyError: 0"
    assert lines[-1] == "          and 2 more tasks"
