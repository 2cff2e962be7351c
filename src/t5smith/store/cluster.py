"""Running the tasks of `prepare` on Slurm or Ray, with datatrove's executors."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from t5smith.base.errors import T5smithError
from t5smith.base.progress import info
from t5smith.recipe.recipe import Recipe
from t5smith.store.worker import run_task, task_error

RAY_POLL_INTERVAL_S = 0.05
SLURM_POLL_INTERVAL_S = 10.0


class PrepareStep(PipelineStep):
    """A task as a step of a datatrove pipeline."""

    type = "t5smith"
    name = "prepare"

    def __init__(self, notes: Path) -> None:
        super().__init__()
        self.notes = str(notes)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Run the task of a rank."""
        with self.track_time():
            progress = run_task(Path(self.notes), world_size, rank)
        for name, value in vars(progress).items():
            self.stat_update(name, value=value)
        return ()


def run_on_cluster(recipe: Recipe, notes: Path, tasks: int, poll: Callable[[], None]) -> None:
    """Run all tasks on Slurm or Ray; see :func:`t5smith.store.executors.run_tasks`.

    Raises:
      T5smithError: a task failed, or the cluster cannot be used.
    """
    # datatrove writes log files too; its lines on the terminal would break the progress display.
    logger.disable("datatrove")
    try:
        if recipe.prepare.executor == "ray":
            _run_on_ray(recipe, notes, tasks, poll)
        else:
            _run_on_slurm(recipe, notes, tasks, poll)
    finally:
        logger.enable("datatrove")


def _run_on_ray(recipe: Recipe, notes: Path, tasks: int, poll: Callable[[], None]) -> None:
    try:
        import ray
    except ImportError:
        fix = "run `pip install 't5smith[ray]'`"
        raise T5smithError("Ray is not installed", where="prepare.executor", fix=fix) from None
    from datatrove.executor.ray import RayPipelineExecutor

    if start_ray := not ray.is_initialized():
        # Finds a cluster that was started with `ray start`, or starts one on this machine.
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    executor = RayPipelineExecutor(
        [PrepareStep(notes)],
        tasks=tasks,
        workers=recipe.prepare.workers or -1,
        logging_dir=str(notes / "logs" / f"ray-{tasks}"),
        mem_per_cpu_gb=recipe.prepare.memory_gb,
    )
    errors: list[BaseException] = []

    def work() -> None:
        try:
            executor.run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(RAY_POLL_INTERVAL_S)
        poll()
    if start_ray:
        ray.shutdown()
    _raise_if_incomplete(notes, executor, errors[0] if errors else None)


def _run_on_slurm(recipe: Recipe, notes: Path, tasks: int, poll: Callable[[], None]) -> None:
    executor = slurm_executor(recipe, notes, tasks)
    submitted = notes / f"slurm-{tasks}.job"
    if not (submitted.is_file() and _is_queued(job := submitted.read_text())):
        try:
            executor.run()
        except FileNotFoundError:
            fix = "run this on a machine that submits jobs, or set prepare.executor"
            raise T5smithError("sbatch was not found", where="prepare.executor", fix=fix) from None
        except subprocess.CalledProcessError as error:
            raise T5smithError(f"sbatch rejected the job ({error})", where="prepare.slurm") from None
        job = str(executor.job_id)
        if job != "-1":
            submitted.write_text(job)
            info(f"prepare   Slurm job {job} continues if you stop this; run the same command to wait again")
    while executor.get_incomplete_ranks() and not any((notes / "failures").iterdir()):
        poll()
        queued = _is_queued(job)
        # Also after the job's end: on a network file system its last files appear with a delay.
        time.sleep(SLURM_POLL_INTERVAL_S)
        if not queued:
            break
    _raise_if_incomplete(notes, executor, None)


def slurm_executor(recipe: Recipe, notes: Path, tasks: int) -> Any:
    """Datatrove's Slurm executor with the recipe's settings; `prepare.slurm` may set any option of sbatch.

    Raises:
      T5smithError: an option is malformed or missing.
    """
    from datatrove.executor.slurm import SlurmPipelineExecutor

    where = "prepare.slurm"
    options: dict[str, str] = {}
    for entry in recipe.prepare.slurm:
        name, equals, value = entry.lstrip("-").partition("=")
        if not name or (equals and not value):
            raise T5smithError(
                f"{entry!r} cannot be used", where=where, expected="NAME=VALUE, such as partition=normal"
            )
        options[name] = value
    for name in ("partition", "time"):
        if name not in options:
            raise T5smithError(
                f"{name} is missing", where=where, expected=f"{name}=VALUE, as sbatch takes it"
            )
    return SlurmPipelineExecutor(
        [PrepareStep(notes)],
        tasks=tasks,
        time=options.pop("time"),
        partition=options.pop("partition"),
        workers=recipe.prepare.workers or -1,
        mem_per_cpu_gb=recipe.prepare.memory_gb,
        job_name=options.pop("job-name", f"t5smith-{recipe.name}"),
        qos=options.pop("qos", ""),
        # So that the job's shell finds the commands of this Python, datatrove's among them.
        env_command=f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        sbatch_args=options,
        logging_dir=str(notes / "logs" / f"slurm-{tasks}"),
    )


def _is_queued(job: str) -> bool:
    """Whether a Slurm job is waiting or running."""
    squeue = subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True, check=False)
    return squeue.returncode == 0 and bool(squeue.stdout.strip())


def _raise_if_incomplete(notes: Path, executor: PipelineExecutor, error: BaseException | None) -> None:
    """Raise the error of a task, `error`, or that tasks did not finish."""
    if failures := sorted((notes / "failures").iterdir()):
        raise task_error(notes, int(failures[0].stem), 2, failures[0])
    if error is not None:
        raise error
    if ranks := executor.get_incomplete_ranks():
        raise T5smithError(
            f"{len(ranks)} tasks did not finish, the first of them task {ranks[0]}",
            where="prepare",
            fix=f"see {notes / 'logs'}, then run the same command again; finished work is kept",
        )
