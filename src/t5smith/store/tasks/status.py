"""How far `prepare` is: read from the run folder and from Slurm, without a lock and without any change."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t5smith.base.artifact import read_manifest
from t5smith.base.disk import disk_errors
from t5smith.base.lock import lock_holder
from t5smith.base.process import is_alive
from t5smith.base.units import about, count
from t5smith.base.wrapping import pluralize
from t5smith.recipe.recipe import Recipe
from t5smith.store.plan import Plan
from t5smith.store.tasks.slurm_queue import SlurmJobs, ended_states, last_error, queued_states
from t5smith.store.tasks.task import (
    failure_text,
    failures,
    log_file,
    missing_ranks,
    read_progress,
    started_file,
)
from t5smith.store.workspace import SPLITS, Workspace

QUIET_S = 60.0
"""A task on another machine that has reported nothing for so long is taken for stopped."""
SHOWN = 10
"""Failed tasks that are printed."""
RETRIES = 3


@dataclass(frozen=True)
class FailedTask:
    """A task that failed.

    Attributes:
      task: its number.
      machine: where it ran; empty if it is not known.
      error: one line.
      log: the file with what it printed, if there is one.
    """

    task: int
    machine: str
    error: str
    log: str | None


@dataclass(frozen=True)
class PrepareStatus:
    """How far `prepare` is in a run folder.

    Attributes:
      state: `not started`, `running`, `stopped` or `finished`. It is running while the command or a task runs
        or waits in Slurm's queue.
      store: the store's folder, which exists if it is finished, or was before.
      executor: local, ray or slurm; empty if it is not known.
      command: the process and machine that works in the run folder; empty if there is none.
      bytes_read, bytes_total: of the files, as they are stored; 0 if it is finished.
      blocks, blocks_total: finished blocks, and all of them; None: not known before archives are read.
      documents, tokens: in finished blocks, of both splits.
      tasks: number of tasks that are `done`, `running`, `failed`, `stopped` or `waiting`.
      failed: the failed tasks.
      jobs: the numbers of Slurm's jobs.
      seconds_left: until all text is read; None: it is not known, or nothing runs.
    """

    state: str
    store: Path
    executor: str = ""
    command: str = ""
    bytes_read: int = 0
    bytes_total: int = 0
    blocks: int = 0
    blocks_total: int | None = None
    documents: int = 0
    tokens: int = 0
    tasks: dict[str, int] | None = None
    failed: tuple[FailedTask, ...] = ()
    jobs: tuple[str, ...] = ()
    seconds_left: float | None = None

    def lines(self) -> Iterator[str]:
        """What is printed of it."""
        yield f"prepare   {self._headline()}"
        if self.blocks or self.bytes_total:
            of = "" if self.blocks_total is None else f" of {self.blocks_total:,}"
            yield (
                f"{'':<10}{self.blocks:,}{of} blocks written: {pluralize(self.documents, 'document')}, "
                f"{pluralize(self.tokens, 'token')}"
            )
        if self.tasks:
            kinds = ", ".join(f"{number:,} {kind}" for kind, number in self.tasks.items() if number)
            on = {"ray": " on Ray", "slurm": " on Slurm"}.get(self.executor, "")
            jobs = f"; job {' '.join(self.jobs)}" if self.jobs else ""
            yield f"{'':<10}tasks{on}: {kinds}{jobs}"
        for task in self.failed[:SHOWN]:
            on = f" on {task.machine}" if task.machine else ""
            yield f"failed    task {task.task}{on}: {task.error}"
            if task.log:
                yield f"{'':<10}log: {task.log}"
        if len(self.failed) > SHOWN:
            yield f"{'':<10}and {pluralize(len(self.failed) - SHOWN, 'more task')}"

    def _headline(self) -> str:
        by = f" ({self.command})" if self.command else ""
        if self.state == "finished":
            return (
                f"finished: {self.tokens:,} tokens of {pluralize(self.documents, 'document')} in {self.store}"
            )
        if self.state == "not started":
            works = f"; t5smith works in this folder{by}" if by else ""
            return f"not started: no store in {self.store.parent}{works}"
        share = f"{100 * self.bytes_read / self.bytes_total:.0f} % of " if self.bytes_total else ""
        read = f"{share}{count(self.bytes_total)} bytes read"
        if self.state == "stopped":
            return f"stopped: {read}; the same command without --status continues"
        if self.tasks and self.tasks["done"] == sum(self.tasks.values()):
            return f"running{by}: all text is read, the store is being finished"
        left = "" if self.seconds_left is None else f", {about(self.seconds_left)} left"
        return f"running{by}: {read}{left}"


def prepare_status(recipe: Recipe) -> PrepareStatus:
    """How far `prepare` is in a recipe's run folder. Nothing is started, locked or changed.

    A finished store is not compared with the recipe and its text: `prepare` does that.

    Args:
      recipe: names the run folder.

    Raises:
      T5smithError: the run folder cannot be read, or its store is damaged.
    """
    for last in (False,) * RETRIES + (True,):
        try:
            with disk_errors(recipe.folder):
                return _status(recipe.folder)
        except FileNotFoundError:
            # The store was finished, or begun again, while its notes were read.
            if last:
                raise
    raise AssertionError


def _status(folder: Path) -> PrepareStatus:
    store = folder / "store"
    holder = lock_holder(folder)
    command = ""
    if holder is not None and (alive := is_alive(holder)) is not False:
        command = f"process {holder['pid']} on {holder['host']}"
        command += ", if it still runs" if alive is None else ""
    plans = [
        file
        for file in Workspace.beside(store).notes.glob("*/plan.json")
        if file.with_name("job.json").is_file() and not file.parent.suffix  # else it is being removed
    ]
    if plans:
        notes = max(plans, key=lambda file: file.stat().st_mtime).parent
        return _unfinished(store, notes, command)
    if not (store / "manifest.json").is_file():
        return PrepareStatus("not started", store, command=command)
    facts = read_manifest(store, "store", check_hashes=False).facts
    return PrepareStatus(
        "finished",
        store,
        command=command,
        documents=sum(facts[split]["documents"] for split in SPLITS),
        tokens=sum(facts[split]["tokens"] for split in SPLITS),
    )


def _unfinished(store: Path, notes: Path, command: str) -> PrepareStatus:
    job: dict[str, Any] = json.loads((notes / "job.json").read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(job["recipe"])
    plan = Plan.read(notes / "plan.json")
    tasks: int = job.get("tasks") or recipe.prepare.tasks or 1
    workspace = Workspace(store, notes, draft=bool(recipe.cleaning.duplicate_steps))
    reported = read_progress(notes)
    states, failed, slurm = _tasks(notes, tasks, recipe.prepare.executor == "slurm")
    finished = workspace.finished_shards()
    documents = tokens = 0
    for unit, blocks in finished.items():
        for block in blocks:
            note = json.loads(workspace.note(f"{unit:05d}-{block:05d}").read_text(encoding="utf-8"))
            documents += sum(note[split]["documents"] for split in SPLITS)
            tokens += sum(note[split]["tokens"] for split in SPLITS)
    known = [_blocks(workspace, unit.number, unit.blocks) for unit in plan.units]
    total = plan.bytes_to_read(tasks)
    # Tasks that have not started again have reported nothing; a block that is not finished has no shard.
    in_shards = sum(
        unit.read * len(finished.get(unit.number, ())) // blocks
        for unit, blocks in zip(plan.units, known, strict=True)
        if blocks
    )
    done = min(max(sum(own.read for own in reported.values()), in_shards), total)
    running = [rank for rank, state in enumerate(states) if state == "running"]
    speed = sum(
        (own.read - own.found) / own.seconds
        for rank in running
        if (own := reported.get(rank)) is not None and own.seconds
    )
    waits = bool(slurm) and "waiting" in states
    counts = Counter(states)
    return PrepareStatus(
        "running" if command or running or waits else "stopped",
        store,
        recipe.prepare.executor,
        command,
        done,
        total,
        sum(map(len, finished.values())),
        None if None in known else sum(blocks or 0 for blocks in known),
        documents,
        tokens,
        {kind: counts[kind] for kind in ("done", "running", "failed", "stopped", "waiting")},
        failed,
        slurm,
        (total - done) / speed if speed else None,
    )


def _blocks(workspace: Workspace, unit: int, planned: int | None) -> int | None:
    """The number of blocks of a unit; None: it is not known yet."""
    if planned is None and workspace.end(unit).is_file():
        return int(workspace.end(unit).read_text())
    return planned


def _tasks(
    notes: Path, tasks: int, on_slurm: bool
) -> tuple[list[str], tuple[FailedTask, ...], tuple[str, ...]]:
    """The state of each task, the failed ones, and the numbers of Slurm's jobs that wait or run."""
    jobs = SlurmJobs.read(notes) if on_slurm else None
    jobs = jobs if jobs is not None and jobs.tasks == tasks else None
    queued = queued_states(jobs) if jobs else None
    ended = ended_states(jobs) if jobs and queued is not None else {}
    noted = failures(notes, tasks)
    missing = frozenset(missing_ranks(notes, tasks))
    states: list[str] = []
    failed: list[FailedTask] = []
    for rank in range(tasks):
        if rank not in missing:
            states.append("done")
        elif queued and rank in queued:
            states.append("running" if queued[rank].name == "RUNNING" else "waiting")
        elif rank in noted or rank in ended:
            states.append("failed")
            log = jobs.log(notes, rank) if jobs and rank in jobs.ranks else log_file(notes, rank)
            if rank in noted:
                machine, error = noted[rank]["host"], failure_text(noted[rank])
            else:
                machine, error = ended[rank].node, f"{ended[rank].how()}; its last line: {last_error(log)}"
            failed.append(FailedTask(rank, machine, error, str(log) if log.is_file() else None))
        else:
            states.append(_state(notes, rank))
    return states, tuple(failed), jobs.jobs if jobs and queued else ()


def _state(notes: Path, rank: int) -> str:
    """Whether a task that is not done runs, by its process or by its last report."""
    file = started_file(notes, rank)
    if not file.is_file():
        return "waiting"
    alive = is_alive(json.loads(file.read_text(encoding="utf-8")))
    if alive is None:
        report = notes / "progress" / file.name
        newest = max(path.stat().st_mtime for path in (file, report) if path.is_file())
        alive = time.time() - newest < QUIET_S
    return "running" if alive else "stopped"
