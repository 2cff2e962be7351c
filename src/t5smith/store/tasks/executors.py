"""Running the tasks of `prepare` on the recipe's executor; here those that are processes on this machine.

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
from t5smith.store.tasks.task import killed, log_file, lost, missing_ranks, run_task, task_error

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
    elif recipe.prepare.executor == "ray":
        from t5smith.store.tasks.ray import run_on_ray

        run_on_ray(recipe, notes, tasks, poll)
    else:
        from t5smith.store.tasks.slurm import run_on_slurm

        run_on_slurm(recipe, notes, tasks, poll)


def run_local(notes: Path, tasks: int, workers: int, poll: Callable[[], None]) -> None:
    """Run tasks as processes on this machine.

    Raises:
      T5smithError: a task failed with it, or was killed.
      RuntimeError: a task failed with another error.
    """
    waiting = missing_ranks(notes, tasks)[::-1]
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
                        raise _error(notes, tasks, rank, code)
            poll()
            time.sleep(POLL_INTERVAL_S)
    finally:
        for process in running.values():
            process.kill()
        for process in running.values():
            process.wait()


def _start(notes: Path, tasks: int, rank: int) -> subprocess.Popen[bytes]:
    environment = os.environ.copy()
    environment.pop("GLIBC_TUNABLES", None)
    with log_file(notes, rank).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, str(notes), str(tasks), str(rank)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            # Ctrl-C reaches only this process, which then kills its tasks.
            start_new_session=True,
        )


def _error(notes: Path, tasks: int, rank: int, code: int) -> Exception:
    """The error of a local task that ended with this exit code, not 0."""
    if (error := task_error(notes, tasks, rank)) is not None:
        return error
    if code < 0:
        return lost(notes, rank, killed(-code))
    log = log_file(notes, rank).read_text(errors="replace")
    return RuntimeError(f"task {rank} of prepare failed:\n{log[-4000:]}")


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
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
