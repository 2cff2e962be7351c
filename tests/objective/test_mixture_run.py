"""A whole run of UL2 over two corpora: it trains, resumes, is measured by denoiser, and exports."""

from __future__ import annotations

import json

import pytest

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError, TrainingAtStake
from t5smith.pipeline import run
from t5smith.training.train import train
from tiny import tiny_recipe


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return tiny_recipe(tmp_path_factory.mktemp("mixture") / "run").replace(
        **{
            "corpus.train": [
                "nob=bundled:norwegian/udhr-nob.txt.xz",
                "nno=bundled:norwegian/udhr-nno.txt.xz",
            ],
            "corpus.temperature": 3.0,
            "vocab.control_symbols": ["[R]", "[S]", "[X]"],
            "objective": {"name": "ul2", "window_length": 32},
            "train.steps": 4,
        }
    )


def test_a_run_of_a_mixture_goes_all_the_way_and_resumes(mixture, capsys):
    facts = run(mixture)
    assert "windows of 32 tokens" in capsys.readouterr().err
    assert len(facts["evaluation"]["denoisers"]) == 7
    assert facts["vocab"]["control_symbols"] == 3
    card = (mixture.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "UL2 (0.15 3 1 [R]" in card
    assert 'tokenizer("[R] Your text' in card
    settings = json.loads((mixture.folder / "train" / "settings.json").read_text())
    assert settings["corpora"].keys() == {"nob", "nno"}
    assert settings["rows"]

    longer = train(mixture.replace(**{"train.steps": 6}))
    assert read_manifest(longer, "checkpoint").facts["step"] == 6
    assert "resuming from step 4" in capsys.readouterr().err


def test_other_weights_are_another_training(mixture):
    with pytest.raises(TrainingAtStake, match=r"corpus\.weights or corpus\.temperature"):
        train(mixture.replace(**{"corpus.temperature": 1.0, "corpus.weights": ["nob=1", "nno=3"]}))


def test_a_store_of_other_corpora_than_the_recipe_names_is_one_line(mixture):
    renamed = [pattern.replace("nno=", "nynorsk=") for pattern in mixture.corpus.train]
    other = mixture.replace(
        **{"corpus.train": renamed, "corpus.temperature": 1.0, "corpus.weights": ["nob=1", "nynorsk=3"]}
    )
    with pytest.raises(T5smithError, match=r"has the corpora nob, nno.*nob, nynorsk.*t5smith prepare"):
        train(other)
