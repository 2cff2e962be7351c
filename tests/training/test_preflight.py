"""What training needs is known before any text is read."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from t5smith.base.errors import T5smithError
from t5smith.parallel import hardware
from t5smith.pipeline import run
from t5smith.training import compile as compiling
from t5smith.training.setup import Run
from t5smith.training.timing import preflight
from t5smith.training.timing.preflight import check_machine, stand_in_vocabulary
from t5smith.vocabulary.vocabulary import Vocabulary
from tiny import tiny_recipe

OBJECTIVES = {
    "span corruption": {},
    "mixture": {
        "objective": {
            "name": "mixture",
            "denoisers": ["0.15 3 1", "0.5 8 1", "0.5 prefix 1"],
            "window_length": 32,
        }
    },
    "packed": {"objective.window_length": 16, "objective.input_length": 64},
}


@pytest.mark.parametrize("changes", OBJECTIVES.values(), ids=OBJECTIVES)
def test_the_shapes_of_a_batch_are_known_without_a_store(prepared, changes):
    setup = Run(tiny_recipe(prepared, **changes)).setup
    batch = setup.batches()[0]
    assert {name: (ids.shape, ids.dtype) for name, ids in batch.items()} == {
        name: (shape.shape, np.dtype(shape.dtype)) for name, shape in setup.abstract_batch().items()
    }


@pytest.mark.parametrize(
    "changes", [{}, {"vocab.byte_fallback": True}, {"vocab.control_symbols": ["[R]"]}, {"vocab.size": 1000}]
)
def test_the_stand_in_has_the_requested_size(changes):
    recipe = tiny_recipe("unused", **changes)
    found = stand_in_vocabulary(recipe)
    assert found.size == recipe.vocab.size + 100 + len(recipe.vocab.control_symbols)


def test_the_stand_in_is_as_large_as_the_trained_one(prepared):
    assert stand_in_vocabulary(tiny_recipe(prepared)).size == Vocabulary.load(prepared / "vocab").size


def test_an_imported_tokenizer_stands_for_itself():
    assert stand_in_vocabulary(tiny_recipe("unused", **{"vocab.tokenizer": "bytes"})).is_byte_level


def test_a_step_that_does_not_fit_is_found_before_the_vocabulary_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "memory_limit", lambda: 1_000)
    monkeypatch.setattr(compiling, "smallest_accumulation", lambda *_: (2, 900))
    recipe = tiny_recipe(tmp_path / "run")
    with pytest.raises(T5smithError, match=r"train\.batch_size: a step of 4 examples takes .*gradient_acc"):
        run(recipe)
    assert not [path for path in (tmp_path / "run").iterdir() if path.name != ".lock"]
    # It fits by the way it is chosen, once there is a store to try it on.
    check_machine(recipe.replace(**{"train.batch_size": "auto"}))


@pytest.mark.parametrize("length", ["tokens", "epochs", "hours"])
def test_a_length_in_other_units_needs_no_store(tmp_path, length):
    check_machine(tiny_recipe(tmp_path, **{f"train.{length}": 1}))


def test_a_disk_without_room_for_two_checkpoints_is_found_before(tmp_path, monkeypatch, capsys):
    free = SimpleNamespace(free=1_000)
    monkeypatch.setattr(preflight, "shutil", SimpleNamespace(disk_usage=lambda _: free))
    recipe = tiny_recipe(tmp_path / "not" / "there")
    with pytest.raises(T5smithError, match=r"1,000B are free on the disk, but 2 checkpoints .*--run-dir"):
        check_machine(recipe)
    free.free = 900_000
    check_machine(recipe)
    assert "900kB are free in" not in capsys.readouterr().err
    check_machine(recipe.replace(**{"train.keep_checkpoints": 500}))
    assert "lower train.keep_checkpoints" in capsys.readouterr().err


def test_checks_leave_a_new_folder_empty(tmp_path):
    recipe = tiny_recipe(tmp_path / "run", **{"train.loggers": ("tensorboard",)})
    for change in (
        {
            "train.schedule.name": "wsd",
            "train.schedule.warmup_steps": None,
            "train.steps": 1,
            "corpus.train": ("no",),
        },
        {"corpus.train": (str(tmp_path / "empty.txt"),)},
        {"corpus.format": "jsonl"},
    ):
        (tmp_path / "empty.txt").write_text("")
        with pytest.raises(T5smithError):
            run(recipe.replace(**change))
        assert [path.name for path in recipe.folder.iterdir()] == [".lock"], change
        shutil.rmtree(recipe.folder)
