"""Tiny runs as fixtures, made once a worker; a test that changes one works on a copy."""

from __future__ import annotations

import shutil

import pytest

from t5smith.evaluation.scores import evaluate
from t5smith.exporting.export import export
from t5smith.store.prepare import prepare
from t5smith.training.train import train
from t5smith.vocabulary.train import vocab
from tiny import tiny_recipe


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A run folder with a vocabulary and a store."""
    folder = tmp_path_factory.mktemp("prepared") / "run"
    recipe = tiny_recipe(folder)
    vocab(recipe)
    prepare(recipe)
    return folder


@pytest.fixture
def run_folder(prepared, tmp_path):
    """A copy of it to work in."""
    return shutil.copytree(prepared, tmp_path / "run")


@pytest.fixture(scope="session")
def finished(prepared, tmp_path_factory):
    """The recipe of a run that is trained, evaluated and exported. Not to be changed."""
    recipe = tiny_recipe(shutil.copytree(prepared, tmp_path_factory.mktemp("finished") / "run"))
    train(recipe)
    evaluate(recipe)
    export(recipe)
    return recipe
