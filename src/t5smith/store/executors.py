"""Where the tasks of `prepare` run: here, on a Slurm cluster, on Ray. The executors are datatrove's.

Its local executor waits for ever when the system kills one of its processes; ours starts each task as a
process of its own, and notices.
"""

from __future__ import annotations

import json
import logging
import os
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

from t5smith.base.artifact import disk_errors
from t5smith.base.errors import T5smithError
from t5smith.base.progress import info
from t5smith.recipe.recipe import Recipe
from t5smith.store.worker import Task

LOOKS_SECONDS = 0.05
SLURM_SECONDS = 10.0


class Prepare(PipelineStep):
    """datatrove's view of a task: a step that reads, tokenises and writes."""

    type = "t5smith"
    name = "prepare"

    def __init__(self, notes: Path) -> None:
        super().__init__()
        self.notes = str(notes)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Do the task of a rank. What the person can mend is also written down, for whoever waits."""
        notes = Path(self.notes)
        try:
            with self.track_time(), disk_errors(notes):
                task = Task.load(notes, world_size, rank)
                task.run()
        except T5smithError as error:
            tree = {name: getattr(error, name) for name in ("what", "where", "expected", "fix")}
            (notes / "failures" / f"{rank:05d}.json").write_text(json.dumps(tree), encoding="utf-8")
            raise
        for name, value in vars(task.progress).items():
            self.stat_update(name, value=value)
        return ()


class Local(PipelineExecutor):
    """Tasks as processes on this machine, so many at a time."""

    def __init__(self, notes: Path, tasks: int, workers: int, look: Callable[[], None]) -> None:
        super().__init__([Prepare(notes)], str(notes / "logs" / f"local-{tasks}"))
        self.notes, self.tasks, self.workers, self.look = notes, tasks, workers, look

    @property
    def world_size(self) -> int:
        """The number of tasks."""
        return self.tasks

    def get_distributed_env(self, node_rank: int = -1) -> Any:
        """There is one node."""
        return {
            "datatrove_node_ips": "localhost",
            "datatrove_cpus_per_task": "1",
            "datatrove_mem_per_cpu": "-1",
            "datatrove_gpus_on_node": "-1",
            "datatrove_executor": "LOCAL",
        }

    def run(self) -> None:
        """Run the tasks that are not completed; `look` is called all the while.

        Raises:
          T5smithError: as the task that failed, or it died.
        """
        waiting = self.get_incomplete_ranks()[::-1]
        running: dict[int, subprocess.Popen[bytes]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    rank = waiting.pop()
                    running[rank] = self._start(rank)
                for rank, process in list(running.items()):
                    if (code := process.poll()) is not None:
                        del running[rank]
                        if code:
                            raise failure(self.notes, rank, code, self._log(rank))
                self.look()
                time.sleep(LOOKS_SECONDS)
        finally:
            for process in running.values():
                process.kill()
            for process in running.values():
                process.wait()

    def run_one(self, rank: int) -> None:
        """One task, in this process."""
        self._run_for_rank(rank)

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", __name__, str(self.notes), str(self.tasks), str(rank)]
        # One thread each: there are as many processes as cores. Ctrl-C comes to us, who end them.
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
        environment.pop("GLIBC_TUNABLES", None)
        log = self._log(rank)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,
            )

    def _log(self, rank: int) -> Path:
        return self.notes / "logs" / f"task-{rank:05d}.txt"


def run_tasks(recipe: Recipe, notes: Path, tasks: int, workers: int, look: Callable[[], None]) -> None:
    """Run all tasks where the recipe says; what is completed is not done again.

    Args:
      recipe: says where.
      notes: the folder with the job.
      tasks: how many.
      workers: how many at a time.
      look: called now and then, to show how far they are.

    Raises:
      T5smithError: a task failed.
    """
    # What datatrove tells of its own accord is in its logs; ours is on the screen.
    logger.disable("datatrove")
    try:
        if recipe.prepare.executor == "local":
            Local(notes, tasks, workers, look).run()
        elif recipe.prepare.executor == "ray":
            _on_ray(recipe, notes, tasks, look)
        else:
            _on_slurm(recipe, notes, tasks, look)
    finally:
        logger.enable("datatrove")


def _on_ray(recipe: Recipe, notes: Path, tasks: int, look: Callable[[], None]) -> None:
    try:
        import ray
    except ImportError:
        fix = "pip install 't5smith[ray]'"
        raise T5smithError("Ray is not installed", where="prepare.executor", fix=fix) from None
    from datatrove.executor.ray import RayPipelineExecutor

    if not (found := ray.is_initialized()):
        # A cluster that was started with `ray start` is found by its address; else Ray starts one here.
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    executor = RayPipelineExecutor(
        [Prepare(notes)],
        tasks=tasks,
        workers=recipe.prepare.workers or -1,
        logging_dir=str(notes / "logs" / f"ray-{tasks}"),
        mem_per_cpu_gb=recipe.prepare.memory_gb,
    )
    failed: list[BaseException] = []

    def work() -> None:
        try:
            executor.run()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOKS_SECONDS)
        look()
    if not found:
        ray.shutdown()
    _refuse_incomplete(notes, executor, failed[0] if failed else None)


def _on_slurm(recipe: Recipe, notes: Path, tasks: int, look: Callable[[], None]) -> None:
    executor = slurm_executor(recipe, notes, tasks)
    submitted = notes / f"slurm-{tasks}.job"
    if not (submitted.is_file() and _queued(job := submitted.read_text())):
        try:
            executor.run()
        except FileNotFoundError:
            fix = "start this on a machine that submits jobs, or set prepare.executor"
            raise T5smithError("there is no sbatch here", where="prepare.executor", fix=fix) from None
        except subprocess.CalledProcessError as error:
            raise T5smithError(f"sbatch refused the job ({error})", where="prepare.slurm") from None
        job = str(executor.job_id)
        if job != "-1":
            submitted.write_text(job)
            info(f"prepare   Slurm job {job}; it goes on if this is stopped; the same command waits again")
    while executor.get_incomplete_ranks() and not any((notes / "failures").iterdir()):
        look()
        if not _queued(job):
            # What was written last may not be seen from here at once.
            time.sleep(SLURM_SECONDS)
            break
        time.sleep(SLURM_SECONDS)
    _refuse_incomplete(notes, executor, None)


def slurm_executor(recipe: Recipe, notes: Path, tasks: int) -> Any:
    """Datatrove's executor with the settings of a recipe; each of its options of sbatch may be set.

    Raises:
      T5smithError: options that cannot be used.
    """
    from datatrove.executor.slurm import SlurmPipelineExecutor

    options: dict[str, str] = {}
    for entry in recipe.prepare.slurm:
        name, equals, value = entry.lstrip("-").partition("=")
        if not name or (equals and not value):
            raise T5smithError(
                f"{entry!r} cannot be used", where="prepare.slurm", expected="NAME=VALUE, as partition=normal"
            )
        options[name] = value
    where = "prepare.slurm"
    for name in ("partition", "time"):
        if name not in options:
            raise T5smithError(f"no {name} is given", where=where, expected=f"{name}=…, as sbatch takes it")
    return SlurmPipelineExecutor(
        [Prepare(notes)],
        tasks=tasks,
        time=options.pop("time"),
        partition=options.pop("partition"),
        workers=recipe.prepare.workers or -1,
        mem_per_cpu_gb=recipe.prepare.memory_gb,
        job_name=options.pop("job-name", f"t5smith-{recipe.name}"),
        qos=options.pop("qos", ""),
        # The job's shell finds this Python's commands, datatrove's among them.
        env_command=f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        sbatch_args=options,
        logging_dir=str(notes / "logs" / f"slurm-{tasks}"),
    )


def _queued(job: str) -> bool:
    """Whether Slurm still knows a job."""
    asked = subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True, check=False)
    return asked.returncode == 0 and bool(asked.stdout.strip())


def _refuse_incomplete(notes: Path, executor: PipelineExecutor, error: BaseException | None) -> None:
    """Say why a task is not done, if one is not."""
    if failed := sorted((notes / "failures").iterdir()):
        raise failure(notes, int(failed[0].stem), 2, failed[0])
    if error is not None:
        raise error
    if left := executor.get_incomplete_ranks():
        raise T5smithError(
            f"{len(left)} tasks did not end, the first of them {left[0]}",
            where="prepare",
            fix=f"see {notes / 'logs'}, then start again; what is finished is kept",
        )


def failure(notes: Path, rank: int, code: int, log: Path) -> Exception:
    """What to raise for a task that failed."""
    file = notes / "failures" / f"{rank:05d}.json"
    if file.is_file():
        return T5smithError(**json.loads(file.read_text(encoding="utf-8")))
    if code < 0:
        return T5smithError(
            f"a task was ended by signal {-code}" + (", as when memory runs out" if code == -9 else ""),
            where="prepare",
            fix="start again, with fewer prepare.tasks if it was memory; what is finished is kept",
        )
    return RuntimeError(f"task {rank} of prepare failed:\n{log.read_text(errors='replace')[-4000:]}")


def _end_with_parent() -> None:
    """Whoever started us may be killed; then nobody waits for this."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(notes: str, tasks: str, rank: str) -> int:
    """One local task."""
    _end_with_parent()
    try:
        Local(Path(notes), int(tasks), 1, lambda: None).run_one(int(rank))
    except T5smithError:
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
