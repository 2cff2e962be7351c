"""Processes that die, clusters, kill -9 at any moment: the store is the same, or the reason is said."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import dump
from t5smith.store import executors
from t5smith.store import prepare as module
from t5smith.store.prepare import prepare
from t5smith.store.workspace import Workspace
from t5smith.vocabulary.train import vocab

KILLS = 30
PROGRAM = """
import sys
from t5smith.store import plan
from t5smith.store import prepare
plan.MIN_BLOCK_BYTES = plan.MAX_BLOCK_BYTES = 20_000
prepare.IN_PROCESS_BYTES = 0
from t5smith.cli.main import main
sys.exit(main(["prepare", sys.argv[1]]))
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe on 400 kB of JSON lines, with its vocabulary; processes are started however little that is."""
    monkeypatch.setattr(module, "IN_PROCESS_BYTES", 0)
    draw = random.Random(0)
    words = ["".join(letters) for letters in itertools.product("bdfgk", "aeiou", "lmnr", "aeiou")]
    text = ""
    with (tmp_path / "text.jsonl").open("w") as file:
        for number in range(1_000):
            # Every tenth text is there twice.
            text = text if number % 10 == 9 else " ".join(draw.choices(words, k=draw.randint(45, 65)))
            file.write(json.dumps({"text": text}) + "\n")
    made = Recipe.model_validate(
        {
            "run_dir": tmp_path / "run",
            "corpus": {"train": (str(tmp_path / "text.jsonl"),), "held_out_fraction": 0.1},
            "vocab": {"size": 300},
            "prepare": {"tasks": 2},
        }
    )
    vocab(made)
    return made


def store_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def sibling(recipe: Recipe, name: str) -> Recipe:
    """The same in another folder, with the same vocabulary."""
    other = recipe.replace(run_dir=recipe.folder.with_name(name))
    other.folder.mkdir()
    (other.folder / "vocab").symlink_to(recipe.folder / "vocab")
    return other


def test_processes_make_what_one_makes(recipe: Recipe) -> None:
    made = store_files(prepare(recipe))
    assert made == store_files(prepare(sibling(recipe, "one").replace(**{"prepare.tasks": 1})))
    assert not Workspace.of(recipe.folder / "store").notes.exists()


def test_what_a_task_refuses_is_said_in_one_line(recipe: Recipe, tmp_path: Path) -> None:
    with (tmp_path / "text.jsonl").open("a") as file:
        file.write('{"text": 7}\n')
    with pytest.raises(T5smithError, match=r"text\.jsonl:1001: the field 'text' is int, not text"):
        prepare(recipe.replace(**{"corpus.strict": True}))


def test_a_task_that_is_killed_is_noticed_and_what_it_did_is_kept(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    start = executors.Local._start

    def start_and_kill(self: executors.Local, rank: int) -> subprocess.Popen[bytes]:
        process = start(self, rank)
        if rank == 1:
            process.send_signal(signal.SIGKILL)
            killed.append(process.pid)
        return process

    monkeypatch.setattr(executors.Local, "_start", start_and_kill)
    with pytest.raises(T5smithError, match="a task was ended by signal 9, as when memory runs out"):
        prepare(recipe)
    assert killed
    monkeypatch.undo()
    assert store_files(prepare(recipe)) == store_files(prepare(sibling(recipe, "again")))


def test_notes_that_were_half_removed_are_no_beginning(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = store_files(prepare(recipe))
    shutil.rmtree(recipe.folder / "store")
    removed = module.shutil.rmtree

    def ended(path: Path, **_: object) -> None:
        if path.name == "store.notes" and (path / "job.json").exists():
            (path / "plan.json").unlink()
            raise KeyboardInterrupt
        removed(path, ignore_errors=True)

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", ended)
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe)
    shutil.rmtree(recipe.folder / "store")
    assert store_files(prepare(recipe)) == found


def test_a_task_with_a_bug_shows_it(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = module._plan

    def without_a_plan(*args: object) -> object:
        plan = begin(*args)  # type: ignore[arg-type]
        (args[2].notes / "plan.json").write_text("{}")  # type: ignore[attr-defined]
        return plan

    monkeypatch.setattr(module, "_plan", without_a_plan)
    with pytest.raises(RuntimeError, match="KeyError: 'units'"):
        prepare(recipe)


def test_completed_tasks_are_not_done_again(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = module.finish
    monkeypatch.setattr(module, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(recipe)
    monkeypatch.setattr(module, "finish", finish)
    monkeypatch.setattr(executors.Local, "_start", lambda *_: pytest.fail("a task was started again"))
    assert store_files(prepare(recipe))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(), ("length", "exact_duplicates", "near_duplicates")])
def test_thirty_kills_leave_the_store_as_it_would_have_been(
    recipe: Recipe, tmp_path: Path, steps: tuple[str, ...]
) -> None:
    recipe = recipe.replace(**{"cleaning.steps": steps, "cleaning.length.min_characters": 240})
    reference = sibling(recipe, "reference")
    for made in (recipe, reference):
        (tmp_path / f"{made.folder.name}.toml").write_text(dump(made))
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "reference.toml")], check=True)
    draw = random.Random(1)
    progress: list[int] = []
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "run.toml")], start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0.0, 2.5))
        # Half of the time the tasks are left to find out by themselves.
        if draw.random() < 0.5:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        progress.append(len(list((recipe.folder / "store.notes").glob("**/shards/*.json"))))
        if (recipe.folder / "store").exists():
            shutil.rmtree(recipe.folder / "store")
    assert max(progress) > 0
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "run.toml")], check=True)
    assert store_files(recipe.folder / "store") == store_files(reference.folder / "store")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_makes_the_same_store(recipe: Recipe) -> None:
    ours = store_files(prepare(sibling(recipe, "local")))
    on_ray = recipe.replace(
        **{"prepare.executor": "ray", "prepare.tasks": 3, "prepare.workers": 2, "prepare.memory_gb": 1}
    )
    assert store_files(prepare(on_ray)) == ours


def test_the_slurm_script_is_as_asked(recipe: Recipe, tmp_path: Path) -> None:
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
    executor = executors.slurm_executor(asked, tmp_path, 40)
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
        (("time=1:00",), "prepare.slurm: no partition is given"),
        (("partition=a", "time="), "'time=' cannot be used"),
    ],
)
def test_slurm_options_are_checked(
    recipe: Recipe, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(T5smithError, match=message):
        executors.slurm_executor(recipe.replace(**{"prepare.slurm": options}), tmp_path, 2)


SBATCH = """#!{python}
import os, subprocess, sys
script = open(sys.argv[-1]).read()
if "merge_stats" in script:
    print("Submitted batch job 78")
    sys.exit()
open(os.environ["FAKE"] + "/script", "w").write(script)
last = int(script.split("--array=0-")[1].split("\\n")[0].split("%")[0])
command = next(line for line in script.splitlines() if "launch_pickled_pipeline" in line).split()
for task in range(last + 1):
    environment = dict(os.environ, SLURM_ARRAY_TASK_ID=str(task), SLURM_NODELIST="n1")
    subprocess.Popen(
        [sys.executable, "-m", "datatrove.tools.launch_pickled_pipeline", command[-1]],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
print("Submitted batch job 77")
"""


def test_a_slurm_job_is_submitted_waited_for_and_makes_the_same_store(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the cluster's commands: sbatch starts what the script would, squeue knows no job."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (
        ("sbatch", SBATCH.replace("{python}", sys.executable)),
        ("squeue", "#!/bin/sh\nls -d $FAKE/running 2>/dev/null\n"),
        ("scontrol", "#!/bin/sh\necho n1\n"),
    ):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tools / "running").write_text("")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tools))
    monkeypatch.setattr(executors, "SLURM_SECONDS", 0.1)
    ours = store_files(prepare(sibling(recipe, "local")))
    changes = {"prepare.executor": "slurm", "prepare.slurm": ("partition=normal", "time=1:00")}
    assert store_files(prepare(recipe.replace(**changes))) == ours
    assert "#SBATCH --partition=normal" in (tools / "script").read_text()


def test_without_slurm_it_is_said(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    changes = {"prepare.executor": "slurm", "prepare.slurm": ("partition=normal", "time=1:00")}
    with pytest.raises(T5smithError, match="there is no sbatch here"):
        prepare(recipe.replace(**changes))
