"""What Slurm says of the tasks of `prepare`: which wait or run, and how the others ended."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ARRAY_LIMIT = 1001
"""Slurm's default for the largest array; more tasks are several jobs."""
LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")
"""States of tasks that Slurm ended for reasons that are not theirs."""
HELD = ("JobHeldUser", "JobHeldAdmin", "DependencyNeverSatisfied", "launch failed requeued held")
"""Reasons why a task waits that do not pass by themselves; so do limits of a partition."""
TAIL_BYTES = 1 << 16
_ENDS = {
    **dict.fromkeys(("TIMEOUT", "DEADLINE"), "ran out of time"),
    "OUT_OF_MEMORY": "ran out of memory",
    "CANCELLED": "cancelled",
    **dict.fromkeys(("NODE_FAIL", "BOOT_FAIL"), "lost with the machine"),
    "PREEMPTED": "preempted",
}


@dataclass(frozen=True)
class SlurmState:
    """The state of a task.

    Attributes:
      name: Slurm's name, such as RUNNING or TIMEOUT.
      reason: why it waits, or its exit code and signal, such as 0:9.
      node: the machine; empty if it has none yet.
    """

    name: str
    reason: str = ""
    node: str = ""

    def ended(self) -> str:
        """How it ended, and where if that may be the reason."""
        return f"{self.how()} on {self.node}" if self.node and self.name not in _ENDS else self.how()

    def how(self) -> str:
        """How it ended."""
        if self.name in _ENDS:
            return _ENDS[self.name]
        code, _, number = self.reason.partition(":")
        if number.isdecimal() and int(number):
            known = int(number) in [member.value for member in signal.Signals]
            return f"killed by {signal.Signals(int(number)).name if known else f'signal {number}'}"
        return f"{self.name.lower()}{f' with exit code {code}' if code.isdecimal() and int(code) else ''}"


@dataclass(frozen=True)
class SlurmJobs:
    """The jobs that were submitted last.

    Attributes:
      tasks: number of all tasks of `prepare`.
      ranks: those that were submitted, in the order of the arrays.
      jobs: numbers of the job arrays, ARRAY_LIMIT tasks each.
      folder: of their files, in the notes.
    """

    tasks: int
    ranks: tuple[int, ...]
    jobs: tuple[str, ...]
    folder: str

    @staticmethod
    def file(notes: Path) -> Path:
        """The file that has them."""
        return notes / "slurm.json"

    @classmethod
    def read(cls, notes: Path) -> SlurmJobs | None:
        """Read them; None: nothing was submitted."""
        try:
            found = json.loads(cls.file(notes).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(found["tasks"], tuple(found["ranks"]), tuple(found["jobs"]), found["folder"])

    def element(self, rank: int) -> tuple[str, int]:
        """The job of a task, and its number in the array."""
        number, index = divmod(self.ranks.index(rank), ARRAY_LIMIT)
        return self.jobs[number], index

    def rank(self, job: str, index: int) -> int | None:
        """The task of a job's element."""
        if job not in self.jobs:
            return None
        place = self.jobs.index(job) * ARRAY_LIMIT + index
        return self.ranks[place] if place < len(self.ranks) else None

    def log(self, notes: Path, rank: int) -> Path:
        """What a task prints."""
        job, index = self.element(rank)
        return notes / self.folder / "slurm_logs" / f"{job}_{index}.out"


def job_number(printed: str) -> str | None:
    """The job's number in what sbatch prints: a sentence, which may name a cluster, or only the number."""
    found = re.search(r"^(?:Submitted batch job )?(\d+)", printed.strip(), re.MULTILINE)
    return found[1] if found else None


def queued_states(jobs: SlurmJobs) -> dict[int, SlurmState] | None:
    """The tasks that wait or run; empty: the jobs have ended; None: Slurm does not answer."""
    printed = _ask(["squeue", "-h", "-r", "-j", ",".join(jobs.jobs), "-o", "%i|%T|%r|%N"])
    return None if printed is None else dict(_states(jobs, printed))


def ended_states(jobs: SlurmJobs) -> dict[int, SlurmState]:
    """How tasks ended, as far as Slurm knows: it may keep no accounts."""
    printed = _ask(
        ["sacct", "-n", "-P", "-X", "-j", ",".join(jobs.jobs), "-o", "JobID,State,ExitCode,NodeList"]
    )
    if not printed:
        # Without accounts, Slurm knows for some minutes.
        printed = _ask(["squeue", "-h", "-r", "-t", "all", "-j", ",".join(jobs.jobs), "-o", "%i|%T||%N"])
    waiting = ("PENDING", "RUNNING", "REQUEUED", "SUSPENDED", "CONFIGURING", "COMPLETING")
    return {rank: state for rank, state in _states(jobs, printed or "") if state.name not in waiting}


def last_error(log: Path) -> str | None:
    """The last line of a log file that tells of an error, else its last line; None: there is no such file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    # srun puts the number of the process before each line.
    lines = [re.sub(r"^\s*\d+: ", "", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    told = [
        line for line in lines if re.search(r"\b\w*(error|exception)\b|cancelled|killed", line, re.IGNORECASE)
    ]
    return (told or lines or ["nothing"])[-1]


def _ask(command: Sequence[str]) -> str | None:
    """What a command of Slurm prints; empty if it knows no such job; None if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return "" if "invalid job id" in done.stderr.lower() else None
    return done.stdout


def _states(jobs: SlurmJobs, said: str) -> Iterator[tuple[int, SlurmState]]:
    """Tasks and states in lines like `77_3|RUNNING|None|n1`; one may have several: `77_[4-9,12%2]`."""
    for line in said.splitlines():
        element, name, reason, node = (*line.split("|"), "", "", "", "")[:4]
        job, _, index = element.strip().partition("_")
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", index.partition("%")[0]):
            for number in range(int(first), int(last or first) + 1):
                rank = jobs.rank(job, number)
                if rank is not None:
                    # "CANCELLED by 1000"
                    yield rank, SlurmState(name.split(" ")[0], reason.strip(), node.strip())
