"""Running the tasks of `prepare` on Ray. A task whose worker or machine is lost is started again elsewhere.

These are Ray's own tasks. datatrove's executor starts a process of its own in each worker, and waits for it
for ever if the system kills it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn
from t5smith.recipe.recipe import Recipe
from t5smith.store.tasks.task import log_file, lost, missing_ranks, run_task, task_error

POLL_INTERVAL_S = 0.05
RETRIES = 3
"""How often a task is started again whose worker or machine was lost."""


def run_on_ray(recipe: Recipe, notes: Path, tasks: int, poll: Callable[[], None]) -> None:
    """Run all tasks on Ray; see :func:`t5smith.store.tasks.executors.run_tasks`.

    Raises:
      T5smithError: a task failed, its worker was lost too often, or Ray is not installed.
      RuntimeError: a task failed with another error.
    """
    try:
        import ray
    except ImportError:
        fix = "run `pip install 't5smith[ray]'`"
        raise T5smithError("Ray is not installed", where="prepare.executor", fix=fix) from None
    if start_ray := not ray.is_initialized():
        try:
            # Finds a cluster that was started with `ray start`, or starts one on this machine.
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (ConnectionError, RuntimeError) as error:
            what = f"Ray cannot be reached ({str(error).strip().splitlines()[0]})"
            fix = "check RAY_ADDRESS and `ray status`, or start Ray again with `ray stop` and `ray start`"
            raise T5smithError(what, where="prepare.executor", fix=fix) from None
    running: dict[Any, int] = {}
    try:
        _run(ray, recipe, notes, tasks, running, poll)
    finally:
        for task in running:
            with contextlib.suppress(Exception):
                ray.cancel(task, force=True)
        if start_ray:
            ray.shutdown()


def _run(
    ray: Any, recipe: Recipe, notes: Path, tasks: int, running: dict[Any, int], poll: Callable[[], None]
) -> None:
    size = int(recipe.prepare.memory_gb * 2**30)
    _warn_of_size(ray, size)
    remote = ray.remote(num_cpus=1, memory=size, max_retries=RETRIES)(_ray_task)
    waiting = missing_ranks(notes, tasks)[::-1]
    while waiting or running:
        while waiting and len(running) < (recipe.prepare.workers or tasks):
            rank = waiting.pop()
            running[remote.remote(str(notes), tasks, rank, os.getcwd())] = rank
        ended, _ = ray.wait(list(running), timeout=POLL_INTERVAL_S)
        for task in ended:
            rank = running.pop(task)
            try:
                ray.get(task)
            except Exception as error:
                raise _error(notes, tasks, rank, error) from None
        poll()


def _ray_task(notes: str, tasks: int, rank: int, folder: str) -> None:
    """Run a task in a worker of Ray; what went wrong is also in its log file.

    Files of the text may be named relative to `folder`.
    """
    with contextlib.suppress(OSError):
        os.chdir(folder)
    try:
        run_task(Path(notes), tasks, rank)
    except Exception:
        with contextlib.suppress(OSError):
            log_file(Path(notes), rank).write_text(traceback.format_exc(), encoding="utf-8")
        raise


def _error(notes: Path, tasks: int, rank: int, error: Exception) -> Exception:
    """The error of a task, from what Ray raised for it."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return task_error(notes, tasks, rank, name_place=True) or cause
    # Its worker was lost, or never started.
    with contextlib.suppress(OSError):
        log_file(notes, rank).write_text(str(error), encoding="utf-8")
    return lost(notes, rank, f"lost {RETRIES + 1} times ({type(error).__name__})")


def _warn_of_size(ray: Any, size: int) -> None:
    """Warn if no machine of the cluster has room for a task: Ray waits for one to be added."""
    rooms = [node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]]
    if rooms and max(rooms) < size:
        warn(
            f"no machine of the Ray cluster has {size / 2**30:g} GB of memory for a task, the largest has "
            f"{max(rooms) / 2**30:.1f} GB; tasks wait until one has; or lower prepare.memory_gb"
        )
