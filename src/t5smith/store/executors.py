"""Running the tasks of `prepare`: processes on this machine, or a cluster (:mod:`t5smith.store.cluster`).

Each local task is a process of its own, so that a killed one is noticed: datatrove's local executor waits for
it for ever.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.store.worker import run_task, task_error
from t5smith.store.workspace import write

POLL_INTERVAL_S = 0.05


def run_tasks(recipe: Recipe, notes: Path, tasks: int, workers: int, poll: Callable[[], None]) -> None:
    """Run all tasks on the recipe's executor; tasks that an earlier run completed are skipped.

    Args:
      recipe: its `prepare` selects the executor.
      notes: the folder with the job.
      tasks: number of tasks.
      workers: number of local tasks that run at the same time.
      poll: called regularly, to show progress.

    Raises:
      T5smithError: a task failed.
    """
    if recipe.prepare.executor == "local":
        run_local(notes, tasks, workers, poll)
    else:
        from t5smith.store.cluster import run_on_cluster

        run_on_cluster(recipe, notes, tasks, poll)


def run_local(notes: Path, tasks: int, workers: int, poll: Callable[[], None]) -> None:
    """Run tasks as processes on this machine.

    Raises:
      T5smithError: a task failed with it, or was killed.
      RuntimeError: a task failed with another error.
    """
    waiting = [rank for rank in reversed(range(tasks)) if not _completed(notes, tasks, rank).is_file()]
    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                rank = waiting.pop()
                running[rank] = _start(notes, tasks, rank)
            for rank, process in list(running.items()):
                if (code := process.poll()) is not None:
                    del running[rank]
                    if code:
                        raise task_error(notes, rank, code, _log(notes, rank))
            poll()
            time.sleep(POLL_INTERVAL_S)
    finally:
        for process in running.values():
            process.kill()
        for process in running.values():
            process.wait()


def _start(notes: Path, tasks: int, rank: int) -> subprocess.Popen[bytes]:
    # There are as many processes as cores, so each encodes in one thread.
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    environment.pop("GLIBC_TUNABLES", None)
    with _log(notes, rank).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, str(notes), str(tasks), str(rank)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            # Ctrl-C reaches only this process, which then kills its tasks.
            start_new_session=True,
        )


def _log(notes: Path, rank: int) -> Path:
    return notes / "logs" / f"task-{rank:05d}.txt"


def _completed(notes: Path, tasks: int, rank: int) -> Path:
    """Exists once the task is done."""
    return notes / "logs" / f"task-{rank:05d}-of-{tasks}.completed"


def _exit_with_parent() -> None:
    """End this process if its parent is killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(notes: str, tasks: str, rank: str) -> int:
    """Run one local task in this process; returns its exit code."""
    _exit_with_parent()
    try:
        run_task(Path(notes), int(tasks), int(rank))
    except T5smithError:
        return 2
    write(_completed(Path(notes), int(tasks), int(rank)), b"")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
