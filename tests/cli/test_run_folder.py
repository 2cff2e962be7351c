"""A run folder is accepted wherever a recipe is, also after it was moved."""

import json
import shutil
from pathlib import Path

import pytest

from t5smith.cli.main import main
from t5smith.recipe.toml import load_recipe


@pytest.fixture
def moved(finished, tmp_path, monkeypatch) -> Path:
    """A copy of a finished run, seen from another folder."""
    shutil.copytree(finished.folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    return Path("copy")


def test_each_stage_finds_its_work_done(moved, finished, capsys):
    for verb, said in (
        ("vocab", "vocab     unchanged"),
        ("prepare", "prepare   unchanged"),
        ("train", "train     already done"),
        ("evaluate", "evaluate  already done"),
        ("export", "export    already done"),
    ):
        assert main([verb, "copy"]) == 0
        assert said in capsys.readouterr().err
    assert load_recipe("copy") == finished.replace(run_dir=moved)


def test_flags_change_the_recipe_of_a_folder_and_stay(moved, capsys):
    assert main(["train", "copy", "--train.steps", "7"]) == 0
    assert "resuming from step 6" in capsys.readouterr().err
    assert load_recipe("copy").train.steps == 7
    assert main(["evaluate", "copy", "--json"]) == 0
    assert main(["export", "copy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["step"] == 7


def test_the_folder_is_the_recipe_of_other_commands(moved, capsys):
    assert main(["inspect", "en hund og en katt", "--recipe", "copy", "--json"]) == 0
    assert main(["vocab", "copy", "--compare", "copy", "--json"]) == 0
    assert main(["train", "copy", "--help"]) == 0
    assert "default: 6" in capsys.readouterr().out


def test_a_refused_command_changes_no_recipe(moved, capsys):
    before = (moved / "recipe.toml").read_bytes()
    for argv in (
        ["train", "copy", "--train.steps", "0"],
        ["vocab", "copy", "--corpus.train", "none.txt"],
        ["prepare", "copy", "--corpus.train", "none.txt"],
    ):
        assert main(argv) == 2
    assert (moved / "recipe.toml").read_bytes() == before
