"""The verb: examples, training, test and export; ended anywhere it continues bit for bit."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from finetuning.pairs import pairs, tuned, write_jsonl
from t5smith.base.errors import T5smithError, TrainingAtStake
from t5smith.cli.main import main
from t5smith.finetuning.finetune import best_step, finetune
from t5smith.finetuning.run import FinetuneRun
from t5smith.generation.fill import generate
from t5smith.interop.huggingface_load import load_model
from t5smith.recipe.toml import dump, load_recipe
from t5smith.training.loop import Loop
from t5smith.training.metrics import read_rows
from t5smith.training.resume import checkpoints


@pytest.fixture
def recipe(finished, tmp_path):
    """Fine-tunes the finished run in a folder of its own."""
    file = write_jsonl(tmp_path / "pairs.jsonl", pairs(60))
    return tuned(tmp_path / "run", file, **{"finetune.model": str(finished.folder)})


def arrays_of(recipe, step):
    run = FinetuneRun(recipe)
    folder = checkpoints.checkpoint_folder(run.setup.checkpoints, step)
    return [
        np.asarray(leaf) for leaf in jax.tree.leaves(checkpoints.restore(folder, run.setup.abstract_state()))
    ]


def rows_of(recipe):
    """What was logged, without what differs between two runs: times."""
    train = recipe.folder / "finetune" / "train"
    steps = [
        {**row, "seconds": 0, "tokens_per_second": 0, "mfu": 0} for row in read_rows(train / "metrics.jsonl")
    ]
    steps = [
        {name: row[name] for name in ("step", "loss", "gradient_norm", "learning_rate")} for row in steps
    ]
    return steps, read_rows(train / "heldout.jsonl")


class Killed(BaseException):
    """An end that nothing in the program expects."""


def killed_at(monkeypatch, *, record=None, save=None):
    """End the loop after it recorded a step, or in the middle of saving a checkpoint."""
    with monkeypatch.context() as patched:
        original = Loop.record

        def recording(loop, metrics):
            updated = original(loop, metrics)
            if loop.done == record:
                raise Killed
            return updated

        def saving(loop, state):
            raise Killed

        patched.setattr(Loop, "record", recording)
        if save:
            patched.setattr(Loop, "save", saving)
        yield


def test_a_model_is_fine_tuned_tested_and_exported_and_kills_change_nothing(
    recipe, tmp_path, monkeypatch, capsys
):
    whole = recipe.replace(run_dir=tmp_path / "whole")
    found = finetune(whole)
    for step, save in ((1, False), (3, False), (2, True)):
        for _ in killed_at(monkeypatch, record=None if save else step, save=save):
            with pytest.raises(Killed):
                finetune(recipe)
    again = finetune(recipe)
    assert rows_of(recipe) == rows_of(whole)
    for ours, theirs in zip(arrays_of(recipe, 6), arrays_of(whole, 6), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again["scores"] == found["scores"]
    assert again["step"] == found["step"]
    _check_files(whole, found)
    # What is finished is not done again.
    capsys.readouterr()
    assert finetune(whole)["scores"] == found["scores"]
    err = capsys.readouterr().err
    for line in ("train     already done", "finetune  already scored", "finetune  already exported"):
        assert line in err
    # Other settings do not replace the trained steps.
    with pytest.raises(TrainingAtStake, match="dropout_rate"):
        finetune(whole.replace(**{"finetune.train.dropout_rate": 0.3}))


def _check_files(recipe, found):
    """The model in the exported folder is that of the best step, and the files say what was measured."""
    model, run = load_model(found["model"]), FinetuneRun(recipe)
    held = run.examples.held("test")
    written = read_rows(Path(found["predictions"]))
    assert [one["place"] for one in written] == [one.place for one in held]
    texts = generate(model, [one.input for one in held], max_new_tokens=16, constrain=False)
    assert [one["text"] for one in written] == [one.text for one in texts]
    rows = rows_of(recipe)[1]
    assert [row["step"] for row in rows] == [0, 3, 6]
    best = min(rows[1:], key=lambda row: (-row["score"], row["text"]["nll"]))
    assert found["step"] == best_step(run) == best["step"]
    card = (recipe.folder / "finetune" / "model" / "README.md").read_text(encoding="utf-8")
    assert "| snu | exact_match |" in card
    assert "`snu: {nb}`" in card
    assert load_recipe(recipe.folder) == recipe


@pytest.mark.slow
def test_the_command_prints_scores_and_writes_a_report(recipe, tmp_path, capsys):
    file = tmp_path / "recipe.toml"
    file.write_text(dump(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe
    assert main(["finetune", str(file), "--finetune.tasks.snu.scores", "bleu", "exact_match"]) == 0
    out = capsys.readouterr().out
    assert "snu  bleu" in out
    assert "copying the input" in out
    page = (recipe.folder / "finetune" / "report.html").read_text(encoding="utf-8")
    for text in ("95 % interval", "Worst errors: snu", "pairs.jsonl:", "<svg"):
        assert text in page
    assert main(["finetune", str(file), "--finetune.tasks.snu.scores", "bleu", "exact_match", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert tree["scores"]["snu"].keys() == {"bleu", "exact_match"}


@pytest.mark.slow
def test_training_ends_when_scores_become_no_better(recipe, capsys):
    recipe = recipe.replace(
        **{
            "finetune.early_stopping": 2,
            "finetune.train.steps": 40,
            "finetune.train.evaluate_every": 1,
            "finetune.train.optimizer.learning_rate": 1e-9,
        }
    )
    found = finetune(recipe)
    # The scores never change, so the first evaluation is the best one.
    assert [row["step"] for row in rows_of(recipe)[1]] == [0, 1, 2, 3]
    assert found["step"] == 1
    assert found["train"]["step"] == 3
    capsys.readouterr()
    assert finetune(recipe)["step"] == 1
    assert "already done: the scores became no better" in capsys.readouterr().err


@pytest.mark.slow
def test_denoising_is_mixed_in(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    file = write_jsonl(tmp_path / "pairs.jsonl", pairs(60))
    recipe = tuned(folder, file, **{"finetune.denoising": 0.5})
    found = finetune(recipe)
    assert found["train"]["corpora"]["denoising"]["share"] == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(TrainingAtStake, match="denoising"):
        finetune(recipe.replace(**{"finetune.denoising": 0.25}))


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"finetune.model": "none/such"}, "finetune.model", "none/such"),
        ({"finetune.model": ""}, "finetune.model", "no exported model to fine-tune"),
        ({"finetune.tasks": {}}, "finetune.tasks", "no task"),
        ({"finetune.tasks.snu.train": ("none.tsv",)}, "finetune.tasks.snu.train", "no file or folder"),
    ],
)
def test_mistakes_name_the_setting(recipe, changes, where, what):
    with pytest.raises(T5smithError, match=what) as caught:
        finetune(recipe.replace(**changes))
    assert caught.value.where == where
