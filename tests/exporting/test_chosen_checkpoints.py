"""`export --step` and `--average`: any kept checkpoint, and the mean of several, read back independently."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.cli.main import main
from t5smith.evaluation.scores import evaluate
from t5smith.exporting.export import export
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_names import to_huggingface
from t5smith.training.resume import checkpoints
from t5smith.training.setup import Run
from t5smith.training.train import train
from tiny import tiny_recipe


@pytest.fixture(scope="module")
def stopped(prepared, finished, tmp_path_factory):
    """The recipe of a run with checkpoints of steps 4 and 6, of a recipe of 8 steps; it was not evaluated."""
    folder = shutil.copytree(finished.folder, tmp_path_factory.mktemp("stopped") / "run")
    shutil.rmtree(folder / "evaluation")
    shutil.rmtree(folder / "model")
    return finished.replace(run_dir=folder, **{"train.steps": 8})


def whole(recipe, step):
    """The parameters of a checkpoint, restored with all of its state."""
    setup = Run(recipe).setup
    folder = checkpoints.checkpoint_folder(setup.checkpoints, step)
    state = checkpoints.restore(folder, setup.abstract_state())
    return to_huggingface(state.eval_params, setup.config)


def check(folder, expected, ids):
    found = load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        rows = ids if name == "lm_head.weight" else len(tensor)  # spare rows of the head are others
        np.testing.assert_array_equal(tensor[:rows], expected[name][:rows], name)


def test_a_step_of_an_unfinished_training_is_exported_and_scored(stopped):
    folder = export(stopped, step=4)
    assert folder == stopped.folder / "model-step-4"
    check(folder, whole(stopped, 4), load_model(folder).config.real_vocab_size)
    assert read_manifest(folder, "model").facts["step"] == 4
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| Length | 4 of 8 steps of 4 examples" in card
    assert "after step 4." in card
    assert "not measured" not in card
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert export(stopped, step=4) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before


def test_the_scores_of_a_step_are_those_that_evaluate_gives_it(stopped, finished, tmp_path):
    """The last step of a finished run, whose scores are there, and the same step without them."""
    copy = finished.replace(run_dir=shutil.copytree(finished.folder, tmp_path / "run"))
    with_scores = (export(copy, step=6) / "README.md").read_text(encoding="utf-8")
    assert with_scores == (finished.folder / "model" / "README.md").read_text(encoding="utf-8")
    shutil.rmtree(copy.folder / "evaluation")
    shutil.rmtree(copy.folder / "model-step-6")
    assert (export(copy, step=6) / "README.md").read_text(encoding="utf-8") == with_scores


@pytest.mark.parametrize(
    ("step", "name"),
    [(None, "model-average-2"), pytest.param(6, "model-average-2-step-6", marks=pytest.mark.slow)],
)
def test_an_average_is_the_mean_in_float64(stopped, step, name):
    folder = export(stopped, average=2, step=step)
    assert folder == stopped.folder / name
    four, six = whole(stopped, 4), whole(stopped, 6)
    mean = {key: ((four[key].astype(np.float64) + six[key]) / 2).astype(np.float32) for key in four}
    assert any((mean[key] != four[key]).any() for key in mean)
    check(folder, mean, load_model(folder).config.real_vocab_size)
    facts = read_manifest(folder, "model").facts
    assert (facts["step"], facts["averaged_steps"]) == (6, [4, 6])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| Weights | mean of those after steps 4 and 6 |" in card
    assert "after step 6 (the mean of the parameters after steps 4 and 6)" in card


@pytest.mark.slow
def test_the_moving_average_is_exported_if_there_is_one(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "run")
    recipe = tiny_recipe(folder, **{"train.average_decay": 0.5, "train.steps": 4})
    train(recipe)
    evaluate(recipe)
    state = checkpoints.restore(Run(recipe).trained[0], Run(recipe).setup.abstract_state())
    moving = to_huggingface(state.ema_params, Run(recipe).setup.config)
    last = to_huggingface(state.parameters, Run(recipe).setup.config)
    assert any((moving[name] != last[name]).any() for name in last)
    made = export(recipe)
    check(made, moving, load_model(made).config.real_vocab_size)
    model = Run(recipe).model
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), model.parameters, state.ema_params))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--step", "2"],
            "--step: there is no checkpoint of this recipe after step 2; expected a step whose",
        ),
        (["--step", "2"], "kept: 4, 6"),
        (["--average", "3"], "--average: 3 checkpoints cannot be averaged, 2 can"),
        (["--average", "2", "--step", "4"], "2 checkpoints cannot be averaged, 1 can"),
        (["--average", "0"], "--average"),
    ],
)
def test_what_is_not_there_is_an_error_that_lists_what_is(stopped, capsys, flags, message):
    assert main(["export", str(stopped.folder), "--train.steps", "8", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_checkpoint_is_not_exported(stopped, tmp_path, capsys):
    copy = stopped.replace(run_dir=shutil.copytree(stopped.folder, tmp_path / "run"))
    folder = checkpoints.checkpoint_folder(Run(copy).setup.checkpoints, 4)
    entries = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    file = folder / max(entries, key=lambda name: entries[name]["bytes"])
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for options in ({"step": 4}, {"average": 2}):
        with pytest.raises(T5smithError, match="changed since it was written"):
            export(copy, **options)
    file.write_bytes(data[:-1])  # seen without its hash
    with pytest.raises(T5smithError, match="after step 4; expected a step whose checkpoint is kept: 6"):
        export(copy, step=4)
    with pytest.raises(T5smithError, match="2 checkpoints cannot be averaged, 1 can"):
        export(copy, average=2)
    assert "step-00000004 is skipped" in capsys.readouterr().err
