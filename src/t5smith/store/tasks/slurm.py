"""Running the tasks of `prepare` on Slurm, as job arrays of datatrove's executor."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from t5smith.base.artifact import write_atomically
from t5smith.base.errors import T5smithError
from t5smith.base.progress import info, warn
from t5smith.base.wrapping import pluralize
from t5smith.recipe.recipe import Recipe
from t5smith.store.tasks.slurm_queue import (
    ARRAY_LIMIT,
    HELD,
    LOST,
    SlurmJobs,
    ended_states,
    job_number,
    last_error,
    queued_states,
)
from t5smith.store.tasks.task import failures, missing_ranks, run_task, task_error

POLL_INTERVAL_S = 10.0
SEEN_AFTER_S = 90.0
"""A network file system may show the last files of a job this much later than its end."""
RESUBMISSIONS = 3
"""How often tasks are submitted again whose machine was lost."""
OURS = ("array", "output", "error", "export", "wait", "test-only")
"""Options of sbatch that are set here, or that this cannot work with."""


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


def run_on_slurm(recipe: Recipe, notes: Path, tasks: int, poll: Callable[[], None]) -> None:
    """Run all tasks on Slurm; see :func:`t5smith.store.tasks.executors.run_tasks`.

    A job that an earlier start submitted is waited for. What it leaves is submitted again, and so are tasks
    whose machine was lost.

    Raises:
      T5smithError: a task failed, was killed or ran out of time; Slurm's commands are missing or reject the
        job.
      RuntimeError: a task failed with another error.
    """
    for command in ("sbatch", "squeue"):
        if shutil.which(command) is None:
            fix = "run this on a machine that submits jobs, or set prepare.executor"
            raise T5smithError(f"{command} was not found", where="prepare.executor", fix=fix)
    again = RESUBMISSIONS
    while missing := missing_ranks(notes, tasks):
        earlier = SlurmJobs.read(notes)
        own = earlier is None or earlier.tasks != tasks or queued_states(earlier) == {}
        if earlier is None or own:
            jobs = _submit(recipe, notes, tasks, missing)
        else:
            jobs = earlier
            info(f"prepare   waiting for Slurm job {' '.join(jobs.jobs)}, which an earlier start submitted")
        _wait(notes, jobs, poll)
        for rank in failures(notes, tasks):
            raise _with_job(task_error(notes, tasks, rank, name_place=True), jobs)
        if not (missing := missing_ranks(notes, tasks)):
            return
        states = ended_states(jobs)
        found = [states[rank].name if rank in states else "" for rank in missing]
        if own and not (again and all(name in LOST for name in found)):
            raise _unfinished(recipe, notes, jobs, missing)
        again -= own
        info(f"prepare   {pluralize(len(missing), 'task')} did not finish; submitting again")


def slurm_executor(recipe: Recipe, notes: Path, tasks: int, folder: Path) -> Any:
    """Datatrove's Slurm executor with the recipe's settings; `prepare.slurm` sets other options of sbatch.

    Its own files are in `folder`.

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
        if name in OURS:
            raise T5smithError(f"{name} cannot be set", where=where, fix=f"remove {entry!r}")
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
        max_array_size=ARRAY_LIMIT,
        logging_dir=str(folder),
    )


def _submit(recipe: Recipe, notes: Path, tasks: int, ranks: Sequence[int]) -> SlurmJobs:
    """Submit tasks as one or more job arrays.

    Raises:
      T5smithError: sbatch is missing or rejects the job.
    """
    import dill
    from dill import CONTENTS_FMODE

    number = sum(1 for _ in (notes / "logs").glob(f"slurm-{tasks}-*")) + 1
    folder = notes / "logs" / f"slurm-{tasks}-{number}"
    executor = slurm_executor(recipe, notes, tasks, folder)
    with executor.logging_dir.open("executor.pik", "wb") as file:
        dill.dump(executor, file, fmode=CONTENTS_FMODE)
    with executor.logging_dir.open("ranks_to_run.json", "w") as file:
        json.dump(list(ranks), file)
    options = executor.get_sbatch_args(min(len(ranks), ARRAY_LIMIT))
    # Slurm replaces % in the name, and a folder may have spaces in its name.
    log = shlex.quote(f"{folder / 'slurm_logs'}".replace("%", "%%") + "/%A_%a.out")
    options |= {"output": log, "error": log}
    command = f"srun -l -n 1 launch_pickled_pipeline {shlex.quote(str(folder / 'executor.pik'))}"
    script = executor.get_launch_file_contents(options, command)
    jobs: list[str] = []
    for offset in range(-(-len(ranks) // ARRAY_LIMIT)):
        arguments = [f"--export=ALL,RUN_OFFSET={offset}"]
        if jobs:
            arguments.append(f"--dependency=afterany:{jobs[-1]}")
        try:
            jobs.append(_sbatch(script, arguments))
        except T5smithError:
            if jobs:
                subprocess.run(["scancel", *jobs], capture_output=True, check=False)
            raise
    submitted = SlurmJobs(tasks, tuple(ranks), tuple(jobs), folder.relative_to(notes).as_posix())
    write_atomically(SlurmJobs.file(notes), json.dumps(asdict(submitted)))
    info(
        f"prepare   Slurm job {' '.join(jobs)} continues if you stop this; run the same command to wait "
        "again; `t5smith prepare RECIPE --status` says how far it is"
    )
    return submitted


def _sbatch(script: str, arguments: Sequence[str]) -> str:
    """Submit a script; returns the number of its job."""
    with tempfile.NamedTemporaryFile("w", suffix=".slurm", encoding="utf-8") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            ["sbatch", *arguments, file.name], capture_output=True, text=True, errors="replace", check=False
        )
    printed = " ".join(line.removeprefix("sbatch: ") for line in done.stderr.strip().splitlines())
    if done.returncode:
        what = f"sbatch rejected the job ({printed or f'exit code {done.returncode}'})"
        raise T5smithError(what, where="prepare.slurm", fix="change the options of sbatch there")
    if printed:
        warn(f"sbatch: {printed}")
    job = job_number(done.stdout)
    if job is None:
        what = f"sbatch printed no job number ({' '.join(done.stdout.split())!r})"
        raise T5smithError(what, where="prepare.slurm", fix="check that `sbatch` on this machine is Slurm's")
    return job


def _wait(notes: Path, jobs: SlurmJobs, poll: Callable[[], None]) -> None:
    """Wait until all tasks are done, one has failed, or the job has ended."""
    ended = 0.0
    warned: set[str] = set()
    while missing_ranks(notes, jobs.tasks) and not failures(notes, jobs.tasks):
        poll()
        queued = queued_states(jobs)
        if queued is None and "silent" not in warned:
            warned.add("silent")
            warn("squeue does not answer; waiting until it does, or until the tasks are done")
        for state in (queued or {}).values():
            if state.reason in HELD and state.reason not in warned:
                warned.add(state.reason)
                warn(f"Slurm does not start a task: {state.reason}; see `scontrol show job {jobs.jobs[0]}`")
        if queued == {}:
            ended = ended or time.monotonic()
            states = ended_states(jobs)
            unsuccessful = [state for state in states.values() if state.name != "COMPLETED"]
            if unsuccessful or time.monotonic() - ended >= SEEN_AFTER_S:
                return
        else:
            ended = 0.0
        time.sleep(POLL_INTERVAL_S)


def _with_job(error: Exception | None, jobs: SlurmJobs) -> Exception:
    """The error of a task, with how to end the others if they go on."""
    assert error is not None
    if queued_states(jobs) and isinstance(error, T5smithError):
        how = f"its other tasks go on; `scancel {' '.join(jobs.jobs)}` ends them"
        fix = f"{error.fix}; {how}" if error.fix else how
        return T5smithError(error.what, where=error.where, expected=error.expected, fix=fix)
    return error


_FIXES = {
    **dict.fromkeys(("TIMEOUT", "DEADLINE"), "raise time= in prepare.slurm, or prepare.tasks"),
    "OUT_OF_MEMORY": "raise prepare.memory_gb",
}


def _unfinished(recipe: Recipe, notes: Path, jobs: SlurmJobs, missing: Sequence[int]) -> T5smithError:
    """The error of tasks that ended without an error of their own."""
    states = ended_states(jobs)
    kinds: dict[str, int] = {}
    fixes: list[str] = []
    for rank in missing:
        state = states.get(rank)
        how = state.ended() if state else "ended for a reason Slurm does not say"
        kinds[how] = kinds.get(how, 0) + 1
        if state and state.name in _FIXES:
            fixes.append(_FIXES[state.name])
    parts = ", ".join(f"{number} {how}" for how, number in kinds.items())
    log = jobs.log(notes, missing[0])
    line = last_error(log)
    if line is None:
        shown = f"{log} was not written, so its machine may not see this folder"
        fixes.append("put run_dir on a file system that all machines share")
    else:
        shown = f"{log} ends with: {line}"
    return T5smithError(
        f"{len(missing)} of {jobs.tasks} tasks did not finish ({parts}); task {missing[0]}: {shown}",
        where="prepare",
        fix="; ".join([*dict.fromkeys(fixes), "run the same command again; finished work is kept"]),
    )
