"""The whole job: what is finished is not redone, what is touched is, and what the person gets to see."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import stopped
from t5smith.base.errors import T5smithError, TrainingAtStake
from t5smith.cli.main import main
from t5smith.pipeline import run
from t5smith.recipe.toml import dump, load_recipe
from t5smith.reports.terminal import show
from t5smith.store.statistics import read_figures
from tiny import tiny_recipe

STAGES = {"vocab": "vocab", "store": "store", "evaluation": "evaluation", "model": "model"}


def made(folder):
    """When each artifact was made."""
    times = {name: (folder / name / "manifest.json").stat().st_mtime_ns for name in STAGES}
    steps = sorted((folder / "train" / "checkpoints").glob("step-*"))
    return times | {"train": (steps[-1] / "manifest.json").stat().st_mtime_ns}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    recipe = tiny_recipe(tmp_path_factory.mktemp("whole") / "run")
    return recipe, run(recipe)


def test_the_summary_has_what_the_person_asked_for(done):
    recipe, summary = done
    assert summary["vocab"]["requested"] == summary["vocab"]["pieces"] == 300
    assert abs(summary["train"]["first_loss"] - summary["train"]["ln_vocab"]) < 1
    assert summary["evaluation"]["unigram_nll"] > 0
    assert len(summary["evaluation"]["examples"]) == recipe.evaluate.examples
    assert (recipe.folder / "report.html").is_file()
    assert (recipe.folder / "recipe.toml").read_text(encoding="utf-8").endswith(f"\n{dump(recipe)}")
    assert load_recipe(recipe.folder) == recipe


@pytest.mark.parametrize("width", [80, 140])
def test_the_summary_fits_on_the_screen(done, width):
    console = Console(width=width, record=True, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        show(done[1], console)
        text = console.export_text()
    assert all(len(line) <= width for line in text.splitlines())
    for word in ("vocabulary", "first loss", "ln V", "held-out NLL", "unigram baseline", "report"):
        assert word in text


def test_the_summary_on_a_pipe_has_whole_lines_without_spaces_at_their_ends(done, capsys):
    show(done[1])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [line.rstrip() for line in lines]
    bullets = [line for line in lines if line.startswith("  · ")]
    assert len(bullets) == len(done[1]["evaluation"]["examples"])
    assert lines.index(bullets[-1]) == len(lines) - 2


def test_examples_go_on_below_their_first_words_on_a_terminal(done):
    example = {"kept": ["a", "b " * 50 + "c", "d"], "fills": ["e", "f"], "truth": ["g", "h"]}
    summary = done[1] | {"evaluation": done[1]["evaluation"] | {"examples": [example]}}
    file = io.StringIO()
    show(summary, Console(file=file, width=60, force_terminal=True, color_system=None))
    shown = file.getvalue().splitlines()
    shown = shown[next(n for n, line in enumerate(shown) if line.startswith("  · ")) : -1]
    assert [line[:4] for line in shown] == ["  · ", *["    "] * (len(shown) - 1)]
    assert shown[1][4:5].strip()


@pytest.mark.parametrize(("margin", "said"), [(-0.1, True), (0.0, True), (0.1, False)])
def test_a_model_no_better_than_frequencies_is_told_of(done, capsys, margin, said):
    show(done[1] | {"evaluation": done[1]["evaluation"] | {"margin": margin}})
    assert ("no better than the unigram baseline" in capsys.readouterr().out) == said


def test_the_report_is_one_page_of_this_run(done):
    page = (done[0].folder / "report.html").read_text(encoding="utf-8")
    nll = done[1]["evaluation"]["text"]["nll"]
    assert f"{nll:.2f}" in page
    assert done[1]["evaluation"]["examples"][0]["truth"][0] in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    figures = read_figures(done[0].folder / "store")
    assert html.escape(figures["windows"][0]["texts"][0]) in page
    assert f"{figures['pieces']['unused']:,} of {figures['pieces']['pieces']:,} pieces" in page


@pytest.mark.slow
def test_settings_redo_exactly_the_stages_they_touch(done, tmp_path):
    """One after the other on one folder, each change on top of the last."""
    recipe = tiny_recipe(shutil.copytree(done[0].folder, tmp_path / "run"))
    before = made(recipe.folder)
    changes = [
        ({}, set()),
        ({"train.log_every": 5, "train.keep_checkpoints": 1}, set()),
        ({"language": "no"}, {"model"}),
        ({"export.shard_bytes": 1_000_000}, {"model"}),
        ({"evaluate.masks_per_window": 1}, {"evaluation", "model"}),
        ({"train.steps": 8}, {"train", "evaluation", "model"}),
        ({"train.batch_size": 5}, {"train", "evaluation", "model"}),
        ({"prepare.document_separator": "none"}, {"store", "train", "evaluation", "model"}),
        ({"vocab.size": 280}, {"vocab", "store", "train", "evaluation", "model"}),
    ]
    for number, (change, touched) in enumerate(changes):
        recipe = recipe.replace(**change)
        # The last three would set trained steps aside.
        if number >= len(changes) - 3:
            with pytest.raises(TrainingAtStake, match=re.escape(next(iter(change)))):
                run(recipe)
            assert made(recipe.folder) == before
            assert load_recipe(recipe.folder) != recipe
        run(recipe, restart=number >= len(changes) - 3)
        after = made(recipe.folder)
        assert {name for name in after if after[name] != before[name]} == touched, change
        before = after


FOLDERS = {
    "vocab": "vocab",
    "prepare": "store",
    "train": "train",
    "evaluate": "evaluation",
    "export": "model",
}
"""The folder of each stage, in their order."""
STOPS = [
    *(pytest.param(stage, signal.SIGKILL) for stage in FOLDERS),
    *(pytest.param(stage, signal.SIGINT, marks=pytest.mark.slow) for stage in FOLDERS),
]


@pytest.fixture(scope="module")
def stopped_runs(done, tmp_path_factory, request):
    """For each stage and signal: a run whose earlier stages are done, its exit status when it was stopped."""
    folder, jobs = tmp_path_factory.mktemp("stopped"), []
    tests = (getattr(test, "callspec", None) for test in request.session.items if test.path == request.path)
    stops = [(test.params["stage"], test.params["kill"]) for test in tests if test and "kill" in test.params]
    for number, (stage, signal_) in enumerate(stops):
        run_dir = folder / str(number) / "run"
        for earlier in list(FOLDERS.values())[: list(FOLDERS).index(stage)]:
            shutil.copytree(done[0].folder / earlier, run_dir / earlier)
        recipe = folder / f"{number}.toml"
        recipe.write_text(dump(tiny_recipe(run_dir)))
        # The process stops itself when the stage has begun to write, so no clock is needed.
        jobs.append([str(recipe), stage, int(signal_), str(folder / f"{number}.txt")])
    process = subprocess.run(
        [sys.executable, stopped.__file__, json.dumps(jobs)], capture_output=True, text=True, check=True
    )
    codes = json.loads(process.stdout)
    return {
        stop: (tiny_recipe(folder / str(number) / "run"), codes[number], Path(jobs[number][3]).read_text())
        for number, stop in enumerate(stops)
    }


@pytest.mark.parametrize(("stage", "kill"), STOPS)
def test_stopped_in_any_stage_the_same_command_goes_on(stage, kill, done, stopped_runs):
    recipe, code, errors = stopped_runs[stage, kill]
    assert code == (-9 if kill is signal.SIGKILL else 130), errors
    assert "Traceback" not in errors
    if stage != "train":  # whose checkpoints are in it
        assert not (recipe.folder / FOLDERS[stage]).exists()
    summary = run(recipe)
    assert summary["train"]["first_loss"] == done[1]["train"]["first_loss"]
    assert summary["train"]["last_loss"] == done[1]["train"]["last_loss"]
    assert summary["evaluation"]["text"] == done[1]["evaluation"]["text"]


def test_json_is_the_last_line_of_stdout(tmp_path, capfd):
    settings = tmp_path / "recipe.toml"
    settings.write_text(dump(tiny_recipe(tmp_path / "run", **{"train.steps": 3})))
    assert main(["run", str(settings), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out.splitlines()[-1])["train"]["step"] == 3
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"corpus.train": ("nowhere.txt",)}, "nowhere.txt"),
        ({"corpus.train": ()}, "corpus.train"),
        ({"objective.input_length": 2048}, "114 masked spans"),
    ],
)
def test_what_would_stop_a_later_stage_is_found_before_the_first(tmp_path, change, named):
    folder = tmp_path / "run"
    with pytest.raises(T5smithError, match=named):
        run(tiny_recipe(folder, **change))
    assert not (folder / "vocab").exists()


def test_a_run_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(T5smithError, match="a file is where a folder is needed"):
        run(tiny_recipe(tmp_path / "taken"))
    with pytest.raises(T5smithError, match="a file is where a folder is needed"):
        run(tiny_recipe(tmp_path / "taken" / "below"))
    for impossible in ("/proc/nowhere", tmp_path / "a\0b"):
        with pytest.raises(T5smithError, match=r"this folder cannot be made.*another --run-dir"):
            run(tiny_recipe(impossible))
    with pytest.raises(T5smithError, match="the name is too long"):
        run(tiny_recipe(tmp_path / ("a" * 300)))


def test_the_summary_lists_what_is_archived(done, capsys):
    kept = [{"folder": "runs/x/previous/train-1", "bytes": 2_500_000, "steps": 6}]
    show(done[1])
    assert "archived" not in capsys.readouterr().out
    show(done[1] | {"archives": kept})
    assert "1 folder in runs/x/previous, 2.5MB; delete what you do not need" in capsys.readouterr().out
