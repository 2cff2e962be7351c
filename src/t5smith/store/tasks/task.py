"""One task in a process of its own; the files by which others know that it started, ended or failed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from t5smith.base.disk import disk_errors
from t5smith.base.errors import T5smithError
from t5smith.base.process import this_process
from t5smith.store.worker import Progress, Task
from t5smith.store.workspace import write

FIELDS = ("what", "where", "expected", "fix")
FEWER = "start again, with fewer prepare.tasks if memory ran out; finished work is kept"


def run_task(
    notes: Path, tasks: int, rank: int, on_progress: Callable[[Progress], None] | None = None
) -> Progress:
    """Run a task in this process, and note its start and its end; an error for :func:`task_error`.

    Args:
      notes: the folder with the job.
      tasks: number of tasks.
      rank: the task.
      on_progress: also called with its progress. Default: this process runs one task of several.

    Raises:
      T5smithError: text cannot be read, the disk is full, or this machine does not see the run folder.
    """
    if not (notes / "job.json").is_file():
        raise T5smithError(
            f"{socket.gethostname()} does not see this folder",
            where=notes,
            fix="put run_dir on a file system that all machines share, then run the same command again",
        )
    if on_progress is None:
        # There are as many tasks as cores, so each encodes in one thread.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    failure_file(notes, rank).unlink(missing_ok=True)
    write(started_file(notes, rank), json.dumps(this_process()).encode())
    try:
        with disk_errors(notes):
            task = Task.load(notes, tasks, rank, on_progress)
            task.run()
            write(completed_file(notes, tasks, rank), b"")
    except T5smithError as error:
        note_failure(notes, rank, {name: getattr(error, name) for name in FIELDS})
        raise
    except Exception as error:
        what = "".join(traceback.format_exception_only(error)).strip()
        note_failure(notes, rank, {"what": what, "traceback": traceback.format_exc()})
        raise
    return task.progress


def started_file(notes: Path, rank: int) -> Path:
    """Which process ran a task last; see :func:`t5smith.base.process.this_process`."""
    return notes / "started" / f"{rank:05d}"


def failure_file(notes: Path, rank: int) -> Path:
    """How a task failed."""
    return notes / "failures" / f"{rank:05d}.json"


def completed_file(notes: Path, tasks: int, rank: int) -> Path:
    """Exists once a task of this many is done."""
    return notes / "completed" / f"{rank:05d}-of-{tasks}"


def log_file(notes: Path, rank: int) -> Path:
    """What a task on this machine or on Ray prints."""
    return notes / "logs" / f"task-{rank:05d}.txt"


def missing_ranks(notes: Path, tasks: int) -> list[int]:
    """The tasks that are not done."""
    done = {file.name for file in (notes / "completed").glob("*")}
    return [rank for rank in range(tasks) if completed_file(notes, tasks, rank).name not in done]


def forget_reports(notes: Path, tasks: int) -> None:
    """Remove the failures and the progress of an earlier start. What tasks have completed is found now."""
    for file in (notes / "failures").iterdir():
        file.unlink(missing_ok=True)
    reported = read_progress(notes)
    for file in (notes / "progress").iterdir():
        file.unlink(missing_ok=True)
    for rank, own in reported.items():
        if completed_file(notes, tasks, rank).is_file():
            found = Progress(read=own.read, found=own.read)
            write(notes / "progress" / f"{rank:05d}", json.dumps(vars(found)).encode())


def read_progress(notes: Path) -> dict[int, Progress]:
    """What tasks have reported last."""
    found: dict[int, Progress] = {}
    for file in (notes / "progress").glob("[0-9]*[0-9]"):
        # Empty after a crash of the machine: reports are not flushed to disk.
        with contextlib.suppress(ValueError, FileNotFoundError):
            found[int(file.name)] = Progress(**json.loads(file.read_text()))
    return found


def note_failure(notes: Path, rank: int, failure: dict[str, Any]) -> None:
    """Note how a task failed, with the machine. The notes may be gone: another run has taken over."""
    if (notes / "failures").is_dir():
        text = json.dumps(failure | {"host": socket.gethostname()}, ensure_ascii=False)
        write(failure_file(notes, rank), text.encode(errors="replace"))


def failures(notes: Path, tasks: int) -> dict[int, dict[str, Any]]:
    """How tasks failed. One that has been done since has not: it ran twice."""
    found: dict[int, dict[str, Any]] = {}
    for file in sorted((notes / "failures").glob("*.json")):
        rank = int(file.stem)
        if not completed_file(notes, tasks, rank).is_file():
            with contextlib.suppress(ValueError, FileNotFoundError):
                found[rank] = json.loads(file.read_text(encoding="utf-8"))
    return found


def task_error(notes: Path, tasks: int, rank: int, name_place: bool = False) -> Exception | None:
    """The error of a task that noted one.

    Args:
      notes: the folder with the job.
      tasks: number of tasks.
      rank: the task.
      name_place: say which task it was, and on which machine.
    """
    failure = failures(notes, tasks).get(rank)
    if failure is None:
        return None
    place = f" (task {rank} on {failure['host']})" if name_place else ""
    if "traceback" in failure:
        return RuntimeError(f"task {rank} of prepare failed{place}:\n{failure['traceback'][-4000:]}")
    return _user_error(failure, place)


def failure_text(failure: dict[str, Any]) -> str:
    """The error of a task in one line."""
    line = failure["what"] if "traceback" in failure else str(_user_error(failure))
    return " ".join(line.split())


def _user_error(failure: dict[str, Any], place: str = "") -> T5smithError:
    fields = {name: failure[name] for name in FIELDS}
    return T5smithError(**fields | {"what": fields["what"] + place})


def lost(notes: Path, rank: int, how: str, fix: str = FEWER) -> T5smithError:
    """The error of a task that ended without noting one, which is noted for it."""
    error = T5smithError(f"a task was {how}", where="prepare", fix=fix)
    note_failure(notes, rank, {name: getattr(error, name) for name in FIELDS})
    return error


def killed(signal: int) -> str:
    """How a task ended that a signal ended, for its error."""
    reason = "; the system does that if memory runs out" if signal == 9 else ""
    return f"killed by signal {signal}{reason}"
