"""A stand-in for Slurm: sbatch, squeue, sacct, scancel and scontrol on this machine, with things going wrong.

`install` makes the commands. The folder of the stand-in has a folder for each job, and `events.json`: what
happens to the tasks of an array when they are started, such as `{"1": ["NODE_FAIL"]}`, each once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(os.environ.get("SLURM_STAND_IN", "."))
ENDED = ("COMPLETED", "FAILED", "NODE_FAIL", "TIMEOUT", "OUT_OF_MEMORY", "CANCELLED", "PREEMPTED")
SAID = {
    "TIMEOUT": "slurmstepd: error: *** JOB 77 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***",
    "OUT_OF_MEMORY": "slurmstepd: error: Detected 1 oom_kill event in StepId=77.0",
    "CANCELLED": "slurmstepd: error: *** JOB 77 ON n1 CANCELLED AT 2026-01-01T00:00:00 ***",
}


def install(folder: Path) -> None:
    """Make the commands in a folder, which becomes that of the stand-in."""
    for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol"):
        file = folder / name
        run = f'exec {shlex.quote(sys.executable)} {shlex.quote(__file__)} {name} "$@"'
        file.write_text(f"#!/bin/sh\nexport SLURM_STAND_IN={shlex.quote(str(folder))}\n{run}\n")
        file.chmod(0o755)


def write(file: Path, text: str) -> None:
    file.with_suffix(".new").write_text(text)
    file.with_suffix(".new").replace(file)


def sbatch(args: list[str]) -> None:
    if (HERE / "reject").exists():
        sys.exit(
            f"sbatch: error: {(HERE / 'reject').read_text()}\nsbatch: error: Batch job submission failed"
        )
    number = str(77 + len(list(HERE.glob("jobs/*"))))
    job = HERE / "jobs" / number
    job.mkdir(parents=True)
    (job / "script").write_text(Path(args[-1]).read_text())
    (job / "offset").write_text(args[0].rpartition("=")[2])
    last = int((job / "script").read_text().split("--array=0-")[1].split("\n")[0].split("%")[0])
    for index in range(last + 1):
        write(job / f"{index}.state", "PENDING|0:0|")
    subprocess.Popen(
        [sys.executable, __file__, "supervise", number],
        env=os.environ | {"SLURM_STAND_IN": str(HERE)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=(job / "supervisor.txt").open("w"),
    )
    print(f"Submitted batch job {number} on cluster c1")


class Element:
    """A task of an array."""

    def __init__(self, job: Path, index: int) -> None:
        self.job, self.index = job, index
        lines = (job / "script").read_text().splitlines()
        output = next(line for line in lines if line.startswith("#SBATCH --output="))
        pattern = shlex.split(output.partition("=")[2])[0]
        self.log = Path(pattern.replace("%A", job.name).replace("%a", str(index)).replace("%%", "%"))
        run = next(line for line in lines if "launch_pickled_pipeline" in line)
        self.pickle = shlex.split(run)[-1]
        self.notes = Path(self.pickle).parents[2]
        self.event = self.next_event()
        self.second: subprocess.Popen[bytes] | None = None
        self.process = self.start()

    def next_event(self) -> str:
        file = HERE / "events.json"
        events = json.loads(file.read_text()) if file.exists() else {}
        own = events.get(str(self.index), [])
        event = own.pop(0) if own else ""
        write(file, json.dumps(events))
        return event

    def start(self) -> subprocess.Popen[bytes] | None:
        if self.event == "HELD":
            write(self.job / f"{self.index}.state", "PENDING|0:0|")
            return None
        write(self.job / f"{self.index}.state", "RUNNING|0:0|n1")
        if self.event == "BLIND":
            self.end("FAILED", "0:53")
            return None
        environment = os.environ | {
            "SLURM_ARRAY_JOB_ID": self.job.name,
            "SLURM_ARRAY_TASK_ID": str(self.index),
            "SLURM_NODELIST": "n1",
            "RUN_OFFSET": (self.job / "offset").read_text(),
        }
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "datatrove.tools.launch_pickled_pipeline", self.pickle],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, state: str, code: str) -> None:
        write(self.job / f"{self.index}.state", f"{state}|{code}|n1")

    def kill(self) -> None:
        for process in (self.process, self.second):
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def poll(self) -> bool:
        """Whether it has ended."""
        if (self.job / "cancelled").exists():
            self.event = "CANCELLED"
            self.happen()
            return True
        if self.process is None:
            if self.event == "HELD" and not (HERE / "held").exists():
                self.event = ""
                self.process = self.start()
            return self.event == "BLIND"
        # In the middle of a unit: it has written shards.
        if self.event and any((self.notes / "shards").glob("*.json")):
            (HERE / "happened").open("a").write(f"{self.event}\n")
            return self.happen()
        if self.process.poll() is None or (self.second is not None and self.second.poll() is None):
            return False
        code = self.process.returncode
        self.end("COMPLETED" if code == 0 else "FAILED", f"0:{-code}" if code < 0 else f"{code}:0")
        return True

    def happen(self) -> bool:
        event, self.event = self.event, ""
        if event == "TWICE":
            # Slurm takes the machine for lost, but the task goes on there.
            self.second, self.event = self.process, ""
            self.process = self.start()
            return False
        self.kill()
        if event in SAID:
            with self.log.open("a") as log:
                log.write(f"{SAID[event]}\n")
        if event == "REQUEUE":
            self.event = self.next_event()
            self.process = self.start()
            return False
        if event == "SIGNAL":
            self.end("FAILED", "0:9")
        else:
            self.end(event, "0:125" if event == "OUT_OF_MEMORY" else "0:0")
        return True


def supervise(args: list[str]) -> None:
    job = HERE / "jobs" / args[0]
    count = len(list(job.glob("*.state")))
    elements = [Element(job, index) for index in range(count)]
    while elements and job.exists():
        elements = [element for element in elements if not element.poll()]
        time.sleep(0.002)
    for element in elements:
        element.kill()


def states(args: list[str]) -> list[tuple[str, list[str]]]:
    jobs = args[args.index("-j") + 1].split(",")
    known = [HERE / "jobs" / job for job in jobs if (HERE / "jobs" / job).exists()]
    if not known:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    return [
        (f"{job.name}_{file.stem}", file.read_text().split("|"))
        for job in known
        for file in sorted(job.glob("*.state"))
    ]


def squeue(args: list[str]) -> None:
    if (HERE / "down").exists():
        (HERE / "asked").open("a").write("1")
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    form = args[args.index("-o") + 1]
    for element, (state, _, node) in states(args):
        if "all" in args or state not in ENDED:
            reason = "JobHeldUser" if state == "PENDING" and (HERE / "held").exists() else "None"
            values = {"%i": element, "%T": state, "%r": reason, "%N": node}
            print("|".join(values[part] if part else "" for part in form.split("|")))


def sacct(args: list[str]) -> None:
    if (HERE / "no-accounts").exists():
        sys.exit("Slurm accounting storage is disabled")
    for element, (state, code, node) in states(args):
        print(f"{element}|{'CANCELLED by 1000' if state == 'CANCELLED' else state}|{code}|{node}")


def main(name: str, args: list[str]) -> None:
    if name == "scontrol":
        print("n1")
    elif name == "scancel":
        for job in args:
            (HERE / "jobs" / job / "cancelled").touch()
    else:
        {"sbatch": sbatch, "supervise": supervise, "squeue": squeue, "sacct": sacct}[name](args)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(sys.argv[1], sys.argv[2:])
