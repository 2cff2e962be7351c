"""Trained steps at stake: on a terminal the user is asked, in a pipe the command ends."""

from __future__ import annotations

import io
import sys

import pytest

from t5smith.base.errors import TrainingAtStake
from t5smith.cli import verbs
from t5smith.cli.main import main
from t5smith.recipe.toml import dump
from tiny import tiny_recipe


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The keyword arguments of each call of a stage that finds trained steps at stake."""
    made = []

    def stage(recipe, **options):
        made.append(options)
        if not options.get("restart"):
            raise TrainingAtStake(recipe.folder, 1_234, ["train.batch_size 4 → 5"])
        return {}

    monkeypatch.setattr(
        verbs, "function", lambda module, name: stage if name == "run" else lambda found: None
    )
    (tmp_path / "recipe.toml").write_text(dump(tiny_recipe(tmp_path / "run")))
    return made


@pytest.mark.parametrize(
    ("answer", "code", "called"),
    [
        ("y\n", 0, [{}, {"restart": True}]),
        ("yes\n", 0, [{}, {"restart": True}]),
        ("n\n", 2, [{}]),
        ("\n", 2, [{}]),
        ("", 2, [{}]),
    ],
)
def test_a_terminal_asks(calls, answer, code, called, monkeypatch, tmp_path):
    errors = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", errors)
    assert main(["run", str(tmp_path / "recipe.toml")]) == code
    assert calls == called
    assert (
        "Move the 1,234 trained steps to previous/ and train from the first step? [y/N]" in errors.getvalue()
    )


def test_a_pipe_does_not_ask(calls, capsys, tmp_path):
    assert main(["run", str(tmp_path / "recipe.toml")]) == 2
    assert calls == [{}]
    assert "1,234 steps are trained with other settings: train.batch_size 4 → 5" in capsys.readouterr().err


def test_ways_that_exclude_each_other_are_an_error(calls, capsys, tmp_path):
    assert main(["run", str(tmp_path / "recipe.toml"), "--restart", "--extend"]) == 2
    assert "--restart and --extend: cannot be used together. Choose one" in capsys.readouterr().err
    assert calls == []
