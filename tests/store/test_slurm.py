"""Slurm, with a stand-in for its commands: lost machines, limits, cancelled and rejected jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import slurm_stand_in
from clusters import sibling, store_files
from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan
from t5smith.store import prepare as module
from t5smith.store.prepare import prepare
from t5smith.store.tasks import slurm, slurm_queue
from t5smith.store.tasks.slurm_queue import SlurmJobs, SlurmState
from t5smith.store.tasks.status import prepare_status

SETTINGS = {"prepare.executor": "slurm", "prepare.slurm": ("partition=normal", "time=1:00")}


@pytest.fixture
def recipe(recipe_of_tasks: Recipe) -> Recipe:
    return recipe_of_tasks


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stand-in for Slurm."""
    tools = tmp_path / "the tools"
    tools.mkdir()
    slurm_stand_in.install(tools)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "POLL_INTERVAL_S", 0.1)
    monkeypatch.setattr(slurm, "SEEN_AFTER_S", 1.0)
    for limit in ("MIN_BLOCK_BYTES", "MAX_BLOCK_BYTES"):
        monkeypatch.setattr(plan, limit, 4_000)
    return tools


@pytest.fixture
def job(recipe: Recipe, stand_in: Path) -> Recipe:
    """A recipe for Slurm, whose run folder has a name with spaces and %."""
    return sibling(recipe, "a 100% run").replace(**SETTINGS)


def happens(stand_in: Path, **events: list[str]) -> None:
    (stand_in / "events.json").write_text(json.dumps({name[1:]: list(own) for name, own in events.items()}))


def submitted(stand_in: Path) -> int:
    return len(list((stand_in / "jobs").iterdir()))


def local_store(recipe: Recipe) -> dict[str, bytes]:
    return store_files(prepare(sibling(recipe, "local")))


def test_a_slurm_job_makes_the_same_store(job: Recipe, recipe: Recipe, stand_in: Path) -> None:
    assert store_files(prepare(job)) == local_store(recipe)
    assert "#SBATCH --partition=normal" in (stand_in / "jobs" / "77" / "script").read_text()
    assert submitted(stand_in) == 1  # and none for statistics, which would wait for ever if a task fails


@pytest.mark.slow
@pytest.mark.parametrize(
    ("events", "jobs"),
    [
        ({"_1": ["NODE_FAIL"]}, 2),  # and Slurm does not start it again
        ({"_0": ["NODE_FAIL", "PREEMPTED", "NODE_FAIL"], "_1": ["NODE_FAIL"]}, 4),
        ({"_0": ["REQUEUE", "REQUEUE"], "_1": ["REQUEUE"]}, 1),
        ({"_0": ["TWICE"], "_1": ["TWICE"]}, 1),
    ],
)
def test_a_machine_lost_in_the_middle_of_a_unit_does_not_change_the_store(
    job: Recipe,
    recipe: Recipe,
    stand_in: Path,
    events: dict[str, list[str]],
    jobs: int,
) -> None:
    happens(stand_in, **events)
    assert store_files(prepare(job)) == local_store(recipe)
    expected = [event for own in events.values() for event in own]
    assert sorted((stand_in / "happened").read_text().split()) == sorted(expected)
    assert submitted(stand_in) == jobs


@pytest.mark.slow
def test_tasks_lost_too_often_are_an_error(job: Recipe, stand_in: Path) -> None:
    happens(stand_in, _0=["NODE_FAIL"] * 9)
    with pytest.raises(T5smithError, match=r"1 of 2 tasks did not finish \(1 lost with the machine\)"):
        prepare(job)
    assert submitted(stand_in) == 1 + slurm.RESUBMISSIONS


@pytest.mark.slow
def test_a_job_array_that_failed_in_part_is_continued(
    job: Recipe,
    recipe: Recipe,
    stand_in: Path,
) -> None:
    happens(stand_in, _1=["TIMEOUT"], _2=["OUT_OF_MEMORY"], _3=["SIGNAL"])
    job = job.replace(**{"prepare.tasks": 4})
    with pytest.raises(T5smithError) as caught:
        prepare(job)
    message = str(caught.value)
    assert "prepare: 3 of 4 tasks did not finish (1 ran out of time, 1 ran out of memory, 1 killed" in message
    assert "1 killed by SIGKILL on n1); task 1: " in message
    assert "77_1.out ends with: slurmstepd: error: *** JOB 77 ON n1 CANCELLED AT 2026-01-01T00:00" in message
    assert "Raise time= in prepare.slurm, or prepare.tasks; raise prepare.memory_gb; run the same" in message
    found = prepare_status(job)
    assert (found.state, found.jobs) == ("stopped", ())
    assert found.tasks == {"done": 1, "running": 0, "failed": 3, "stopped": 0, "waiting": 0}
    ends = ("ran out of time", "ran out of memory", "killed by SIGKILL")
    for failed, rank, how in zip(found.failed, (1, 2, 3), ends, strict=True):
        assert (failed.task, failed.machine) == (rank, "n1")
        assert failed.error.startswith(f"{how}; its last line: ")
        assert failed.log is not None
        assert failed.log.endswith(f"77_{rank}.out")
    assert store_files(prepare(job)) == local_store(recipe)
    assert "--array=0-2" in (stand_in / "jobs" / "78" / "script").read_text()


@pytest.mark.slow
def test_a_cancelled_job_is_an_error_and_continues_later(
    job: Recipe,
    recipe: Recipe,
    stand_in: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (stand_in / "no-accounts").touch()  # squeue knows it too, for some minutes
    wait = slurm._wait

    def cancel(notes: Path, jobs: SlurmJobs, poll: Any) -> None:
        subprocess.run(["scancel", *jobs.jobs], check=True)
        wait(notes, jobs, poll)

    monkeypatch.setattr(slurm, "_wait", cancel)
    with pytest.raises(T5smithError, match=r"2 of 2 tasks did not finish \(2 cancelled\); task 0: "):
        prepare(job)
    monkeypatch.setattr(slurm, "_wait", wait)
    assert store_files(prepare(job)) == local_store(recipe)


def test_compute_nodes_that_do_not_see_the_folder_are_reported(job: Recipe, stand_in: Path) -> None:
    """Slurm cannot write the log file, and ends the task at once."""
    happens(stand_in, _0=["BLIND"], _1=["BLIND"])
    with pytest.raises(T5smithError) as caught:
        prepare(job)
    message = "77_0.out was not written, so its machine may not see this folder. Put run_dir on a file"
    assert message in str(caught.value)


@pytest.mark.slow
def test_a_command_that_is_stopped_waits_for_its_job_when_started_again(
    job: Recipe,
    recipe: Recipe,
    stand_in: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also while squeue does not answer: no second job does the same work."""
    (stand_in / "held").touch()
    happens(stand_in, _0=["HELD"], _1=["HELD"])

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(slurm, "_wait", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(job)
    found = prepare_status(job)
    assert (found.state, found.command, found.jobs, found.seconds_left) == ("running", "", ("77",), None)
    assert found.tasks == {"done": 0, "running": 0, "failed": 0, "stopped": 0, "waiting": 2}
    assert [*found.lines()][2] == "          tasks on Slurm: 2 waiting; job 77"
    (stand_in / "down").touch()
    asked = stand_in / "asked"
    run = module.run_tasks

    def with_repair(recipe: Recipe, notes: Path, tasks: int, workers: int, poll: Any) -> None:
        def repair() -> None:
            poll()
            if asked.exists() and len(asked.read_text()) > 3 and (stand_in / "down").exists():
                (stand_in / "down").unlink()
            elif not (stand_in / "down").exists() and "JobHeldUser" in capfd.readouterr().err:
                (stand_in / "held").unlink()

        run(recipe, notes, tasks, workers, repair)

    monkeypatch.setattr(module, "run_tasks", with_repair)
    assert store_files(prepare(job)) == local_store(recipe)
    assert submitted(stand_in) == 1


@pytest.mark.slow
def test_a_user_error_of_a_task_names_the_task_and_its_machine(
    job: Recipe, stand_in: Path, tmp_path: Path
) -> None:
    with (tmp_path / "text.jsonl").open("a") as file:
        file.write('{"text": 7}\n')
    happens(stand_in, _0=["HELD"])
    (stand_in / "held").touch()
    message = r"text\.jsonl:1001: .* is a number.* \(task 1 on .*\).*its other tasks go on; `scancel 77`"
    with pytest.raises(T5smithError, match=message):
        prepare(job.replace(**{"corpus.strict": True}))


def test_what_sbatch_says_is_reported(job: Recipe, stand_in: Path) -> None:
    (stand_in / "reject").write_text("invalid partition specified: normal")
    message = r"prepare\.slurm: sbatch rejected the job \(error: invalid partition specified: normal error: "
    with pytest.raises(T5smithError, match=message):
        prepare(job)


@pytest.fixture
def one_task_per_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (slurm, slurm_queue):
        monkeypatch.setattr(one, "ARRAY_LIMIT", 1)


@pytest.mark.usefixtures("one_task_per_job")
@pytest.mark.slow
def test_more_tasks_than_an_array_may_have_are_several_jobs(
    job: Recipe, recipe: Recipe, stand_in: Path
) -> None:
    assert store_files(prepare(job)) == local_store(recipe)
    assert submitted(stand_in) == 2


@pytest.mark.usefixtures("one_task_per_job")
def test_no_job_stays_behind_if_the_next_one_is_rejected(
    job: Recipe, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = slurm._sbatch

    def once(*args: Any) -> str:
        if (stand_in / "jobs").exists():
            (stand_in / "reject").write_text("QOSMaxSubmitJobPerUserLimit")
        return submit(*args)

    monkeypatch.setattr(slurm, "_sbatch", once)
    with pytest.raises(T5smithError, match="QOSMaxSubmitJobPerUserLimit"):
        prepare(job)
    assert (stand_in / "jobs" / "77" / "cancelled").exists()


@pytest.mark.parametrize("command", ["sbatch", "squeue"])
def test_a_missing_command_is_reported(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, stand_in: Path, command: str
) -> None:
    (stand_in / command).unlink()
    monkeypatch.setenv("PATH", str(stand_in))
    with pytest.raises(
        T5smithError, match=rf"prepare\.executor: {command} was not found\. Run this on a machine"
    ):
        prepare(recipe.replace(**SETTINGS))


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("Submitted batch job 77\n", "77"),
        ("Submitted batch job 77 on cluster c1\n", "77"),
        ("77;c1\n", "77"),
        ("Welcome to the cluster 9!\nSubmitted batch job 77\n", "77"),
        ("no\n", None),
    ],
)
def test_the_number_of_a_job_is_found(said: str, number: str | None) -> None:
    assert slurm_queue.job_number(said) == number


def test_the_lines_of_squeue_and_sacct_are_read() -> None:
    jobs = SlurmJobs(2000, tuple(range(500, 2000)), ("77", "78"), "logs")
    said = (
        "77_0|COMPLETED|0:0|n1\n77_3|RUNNING|None|n[1-2]\n77_[4-6,9%2]|PENDING|Priority|\n"
        "78_2|CANCELLED by 1000|0:15|n3\n78_999|RUNNING||\n79_1|RUNNING||\n77|PENDING||\n"
    )
    assert dict(slurm_queue._states(jobs, said)) == {
        500: SlurmState("COMPLETED", "0:0", "n1"),
        503: SlurmState("RUNNING", "None", "n[1-2]"),
        **dict.fromkeys((504, 505, 506, 509), SlurmState("PENDING", "Priority", "")),
        1503: SlurmState("CANCELLED", "0:15", "n3"),
    }
    assert jobs.element(1503) == ("78", 2)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (SlurmState("FAILED", "0:9", "n1"), "killed by SIGKILL on n1"),
        (SlurmState("FAILED", "0:53", ""), "killed by signal 53"),
        (SlurmState("FAILED", "1:0", "n1"), "failed with exit code 1 on n1"),
    ],
)
def test_the_end_of_a_task_is_told(state: SlurmState, said: str) -> None:
    assert state.ended() == said


def test_the_line_of_a_log_that_tells_of_an_error_is_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert slurm_queue.last_error(log) is None
    log.write_text("0: + srun -l\n0: OSError: [Errno 5] Input/output error\n0: bye\n\n")
    assert slurm_queue.last_error(log) == "OSError: [Errno 5] Input/output error"
    log.write_text("srun: starting\n  7: begun\n")
    assert slurm_queue.last_error(log) == "begun"


def test_the_slurm_script_has_the_recipes_settings(recipe: Recipe, tmp_path: Path) -> None:
    asked = recipe.replace(
        **{
            "name": "norsk",
            "prepare.executor": "slurm",
            "prepare.tasks": 40,
            "prepare.workers": 16,
            "prepare.memory_gb": 3,
            "prepare.slurm": ("partition=normal", "time=02:00:00", "account=nn1234k", "exclusive"),
        }
    )
    executor = slurm.slurm_executor(asked, tmp_path, 40, tmp_path)
    script = executor.get_launch_file_contents(
        executor.get_sbatch_args(40), f"srun -l -n 1 launch_pickled_pipeline {tmp_path}/executor.pik"
    )
    lines = [line.strip() for line in script.splitlines()]
    for line in (
        "#!/bin/bash",
        "#SBATCH --partition=normal",
        "#SBATCH --time=02:00:00",
        "#SBATCH --account=nn1234k",
        "#SBATCH --exclusive",
        "#SBATCH --job-name=t5smith-norsk",
        "#SBATCH --array=0-39%16",
        "#SBATCH --mem-per-cpu=3G",
        "#SBATCH --cpus-per-task=1",
        f"export PATH={Path(sys.executable).parent}:$PATH",
        f"srun -l -n 1 launch_pickled_pipeline {tmp_path}/executor.pik",
    ):
        assert line in lines
    assert not any("qos" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("time=1:00",), "prepare.slurm: partition is missing"),
        (("partition=a", "--array=0-3"), "array cannot be set"),
        (("partition=a", "time="), "'time=' cannot be used"),
    ],
)
def test_slurm_options_are_checked(
    recipe: Recipe, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(T5smithError, match=message):
        slurm.slurm_executor(recipe.replace(**{"prepare.slurm": options}), tmp_path, 2, tmp_path)
