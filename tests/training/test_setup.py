"""The stages of a run share what they open."""

from __future__ import annotations

import shutil

import pytest

from t5smith.base import artifact
from t5smith.base.errors import T5smithError
from t5smith.evaluation.scores import evaluate
from t5smith.exporting.export import export
from t5smith.training.resume.saved_parameters import SavedParameters
from t5smith.training.setup import Run, TokenStore, Vocabulary
from t5smith.training.train import train


@pytest.fixture
def copy(finished, tmp_path):
    """The recipe of a copy of a finished run."""
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    return finished.replace(run_dir=folder)


def counted(monkeypatch, owner, name):
    """Count the calls of a function; a list with one entry for each."""
    calls = []
    original = getattr(owner, name)

    def wrapper(*arguments, **named):
        calls.append(arguments)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, wrapper)
    return calls


def test_artifacts_are_opened_once_for_all_stages(copy, monkeypatch):
    shutil.rmtree(copy.folder / "evaluation")
    shutil.rmtree(copy.folder / "model")
    loads = counted(monkeypatch, Vocabulary, "load")
    stores = counted(monkeypatch, TokenStore, "open")
    restored = counted(monkeypatch, SavedParameters, "tree")
    run = Run(copy)
    for stage in (train, evaluate, export):
        stage(run)
    assert [len(calls) for calls in (loads, stores, restored)] == [1, 1, 1]


def test_the_hashes_of_a_store_are_checked_once(copy, monkeypatch):
    hashed = counted(monkeypatch, artifact, "file_hash")

    def of_the_store():
        return [path for path, *_ in hashed if "store" in path.relative_to(copy.folder).parts]

    run = Run(copy)
    train(run)
    first = len(of_the_store())
    assert first > 0
    run.verify_data()
    evaluate(run)
    assert len(of_the_store()) == first
    Run(copy, store_verified=True).verify_data()
    assert len(of_the_store()) == first


def test_a_damaged_store_is_found_before_training(copy):
    victim = next((copy.folder / "store" / "train").iterdir())
    data = bytearray(victim.read_bytes())
    data[0] ^= 1
    victim.write_bytes(data)
    with pytest.raises(T5smithError, match="changed since it was written"):
        train(copy)


def test_a_training_that_has_not_reached_the_last_step_is_named(copy):
    with pytest.raises(T5smithError, match=r"training ends at step 6; expected step 9\. Run `t5smith train`"):
        _ = Run(copy.replace(**{"train.steps": 9})).trained
    with pytest.raises(T5smithError, match="has no checkpoint of this recipe"):
        _ = Run(copy.replace(seed=5)).trained
