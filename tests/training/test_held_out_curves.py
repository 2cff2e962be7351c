"""The held-out curve: when it is measured, what it costs, and what is said about it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from t5smith.base.artifact import read_manifest
from t5smith.base.signals import Stopped
from t5smith.model.flops import forward_flops, step_flops
from t5smith.store.token_store import Split
from t5smith.training.curves.advice import Point, print_outlook, verdict
from t5smith.training.curves.held_out import EvaluationPlan, HeldOut, sampled_counts
from t5smith.training.curves.repetition import corpus_use, use_facts
from t5smith.training.metrics import TrainingLog, read_rows
from t5smith.training.resume import checkpoints
from t5smith.training.setup import Run
from t5smith.training.train import train
from tiny import tiny_recipe


def setup_of(folder, **changes):
    return Run(tiny_recipe(folder, **{"train.evaluate_every": "auto", **changes})).setup


def with_windows(setup, windows):
    """The setup as if this many windows were held out."""
    tokens = np.zeros(windows * setup.objective.window, np.uint16)
    valid = Split("valid", tokens, np.array([len(tokens)]), 0)
    return dataclasses.replace(setup, store=dataclasses.replace(setup.store, valid=valid))


@pytest.mark.parametrize("steps", [20, 77, 600, 5_000, 65_536, 1_000_000])
@pytest.mark.parametrize("batch_size", [4, 128])
def test_automatic_evaluations_stay_within_their_share_of_the_operations(prepared, steps, batch_size):
    setup = setup_of(prepared, **{"train.steps": steps, "train.batch_size": batch_size})
    plan = EvaluationPlan.of(with_windows(setup, 10_000))
    assert plan == EvaluationPlan.of(with_windows(setup, 10_000))
    if not plan.every:
        assert steps * batch_size < 2_000
        return
    evaluations = -(-steps // plan.every)
    assert 1 <= evaluations <= 20
    assert 16 <= plan.windows <= setup.recipe.evaluate.windows
    cost = evaluations * plan.windows * forward_flops(setup.config, 1, 32, 8)
    assert cost <= 0.02 * steps * step_flops(setup.config, batch_size, 32, 8)
    if steps * batch_size >= 5_000:
        assert evaluations >= 8


def test_a_longer_run_is_evaluated_on_the_windows_of_before(prepared):
    setup = with_windows(setup_of(prepared, **{"train.steps": 5_000}), 10_000)
    assert EvaluationPlan.of(setup, 32).windows == 32
    assert EvaluationPlan.of(setup).windows > 32
    assert EvaluationPlan.of(with_windows(setup, 7)).windows == 7


def test_a_number_is_what_was_asked_for_and_zero_is_never(prepared):
    five = EvaluationPlan.of(setup_of(prepared, **{"train.evaluate_every": 5}))
    assert five == EvaluationPlan(5, 2_048)
    never = HeldOut(setup_of(prepared, **{"train.evaluate_every": 0}))
    assert not any(never.due(step, 6) for step in range(1, 7))
    assert setup_of(prepared).recipe.train.evaluate_every == "auto"


def parameters(recipe):
    state = checkpoints.restore(train(recipe), Run(recipe).setup.abstract_state())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.parameters)]


def test_a_run_has_a_held_out_curve_by_default_and_the_same_parameters(run_folder, capfd):
    recipe = tiny_recipe(run_folder, **{"train.steps": 20, "train.batch_size": 64})
    without = parameters(recipe)
    (run_folder / "train").rename(run_folder / "without")
    capfd.readouterr()
    recipe = recipe.replace(**{"train.evaluate_every": "auto"})
    assert all(map(np.array_equal, parameters(recipe), without))
    rows = read_rows(run_folder / "train" / "heldout.jsonl")
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    steps = [row["nll"] for row in read_rows(run_folder / "train" / "metrics.jsonl")]
    for row in rows:
        assert row["windows"] == rows[0]["windows"] >= 16
        assert row["training_nll"] == pytest.approx(np.mean(steps[max(0, row["step"] - 20) : row["step"]]))
    err = capfd.readouterr().err
    assert "evaluated every 5 steps" in err
    # The last loss is shown beside that of all held-out targets, with its step.
    assert f"loss {steps[-1]:.3f}  held-out {rows[-1]['all']['nll']:.3f} @ 20" in err


def test_a_resumed_run_shows_the_last_held_out_loss_with_its_step(run_folder, tmp_path):
    row = {"step": 3, "text": {"nll": 5.0}, "all": {"nll": 4.25}}
    (tmp_path / "heldout.jsonl").write_text(json.dumps(row) + "\n")
    with TrainingLog(tiny_recipe(run_folder), tmp_path, step=4, batch=4) as log:
        assert log.bar.notes["held-out"] == "4.250 @ 3"
        log.rolled_back(2, 2, 4)
        assert log.bar.notes["held-out"] == ""


@pytest.mark.slow
def test_a_signal_ends_an_evaluation_which_is_made_after_the_restart(run_folder, tmp_path, monkeypatch):
    recipe = tiny_recipe(run_folder, **{"train.evaluate_every": 3})
    other = recipe.replace(run_dir=shutil.copytree(run_folder, tmp_path / "other"))
    train(other)
    score, asked = HeldOut.score, []

    def signalled(self, parameters, stopped):
        asked.append(len(asked))
        os.kill(os.getpid(), signal.SIGTERM)
        found = score(self, parameters, stopped)
        assert found is None
        return found

    monkeypatch.setattr(HeldOut, "score", signalled)
    with pytest.raises(Stopped, match="after step 3; its checkpoint is saved"):
        train(recipe)
    monkeypatch.setattr(HeldOut, "score", score)
    assert asked == [0]
    assert read_rows(run_folder / "train" / "heldout.jsonl") == []
    train(recipe)
    rows, expected = (read_rows(one.folder / "train" / "heldout.jsonl") for one in (recipe, other))
    assert rows == expected
    assert [row["step"] for row in rows] == [3, 6]


def points(held_out, training):
    return [
        Point(100 * (n + 1), one, one + 1, other)
        for n, (one, other) in enumerate(zip(held_out, training, strict=True))
    ]


@pytest.mark.parametrize(
    ("held_out", "training", "trend", "overfitting"),
    [
        ([5, 4, 3.5, 3.2], [5, 4, 3, 2], "falling", False),
        ([5, 3, 3.5, 4], [5, 4, 3, 2], "rising", True),
        ([5, 3, 3.5, 4], [5, 4, 5, 6], "rising", False),  # it diverges
        ([5, 3, 3.5, 4], [None] * 4, "rising", False),  # written by an earlier version
        ([5, 3, 3.001, 3.002], [5, 4, 3, 2], "level", False),
        ([5, 4, 3, 3.3], [5, 4, 3, 2], "level", False),  # one evaluation may be chance
    ],
)
def test_the_verdict_follows_from_both_curves(held_out, training, trend, overfitting):
    found = verdict(points(held_out, training))
    assert found is not None
    assert (found.trend, found.overfitting) == (trend, overfitting)
    assert found.best.step == 100 * (1 + int(np.argmin(held_out)))


def test_too_few_points_say_nothing():
    assert verdict(points([5, 4], [5, 4])) is None


@pytest.mark.parametrize("keep_best", [False, True])
def test_overfitting_is_reported_with_the_best_step(run_folder, monkeypatch, capfd, keep_best):
    losses = iter([4.0, 3.0, 3.5, 4.0])

    def evaluated(self, step, *rest):
        nll = next(losses)
        row = {"step": step, "text": {"nll": nll}, "all": {"nll": nll}, "training_nll": 6 - step / 10}
        self.held_out.write(row)

    monkeypatch.setattr(TrainingLog, "evaluated", evaluated)
    changes = {"train.steps": 4, "train.evaluate_every": 1, "train.keep_best": keep_best}
    folder = train(tiny_recipe(run_folder, **changes))
    err = " ".join(capfd.readouterr().err.split())
    assert (
        "overfitting: held-out loss rose from 3.000 at step 2 to 4.000 at step 4, while training loss fell "
        "from 5.800 to 5.600" in err
    )
    kept = "the checkpoint of step 2 is kept" if keep_best else "--train.keep-best keeps"
    assert kept in err
    curve = read_manifest(folder, "checkpoint").facts["held_out_curve"]
    assert (curve["trend"], curve["overfitting"], curve["best_step"]) == ("rising", True, 2)


def test_epochs_are_how_often_each_window_is_read(prepared):
    setup = setup_of(prepared, **{"train.steps": 100})
    order = setup.batches().order
    # Every epoch begins with another shift of the windows: count the windows of the first.
    first = order.starts(np.arange(order.windows_per_epoch()))
    assert len(np.unique(first)) == order.windows_per_epoch()
    (use,) = corpus_use(setup)
    assert (use.name, use.share, use.epochs) == ("train", 1, pytest.approx(400 / len(first)))
    assert use_facts([use]) == {"epochs": use.epochs}


@pytest.mark.parametrize(
    ("changes", "many", "rate"),
    [
        ({}, False, "muon_adafactor at 0.04, the default rate for so many tokens"),
        ({"train.batch_size": 512}, True, "muon_adafactor at 0.04, the default"),
        ({"train.steps": 100_000}, True, "muon_adafactor at 0.017, the default"),
        ({"train.optimizer.learning_rate": 0.015}, False, "muon_adafactor at 0.015 "),
    ],
)
def test_many_epochs_and_the_rate_are_printed_before_training(prepared, capfd, changes, many, rate):
    setup = setup_of(prepared, **changes)
    print_outlook(setup, EvaluationPlan(0, 0))
    err = " ".join(capfd.readouterr().err.split())
    assert ("above about 20 times" in err) == many
    assert ("warning: the text is read" in err) == many
    assert rate in f"{err} "
    assert "epochs; evaluated only after training" in err
    print_outlook(setup, EvaluationPlan(2, 64))
    assert "evaluated every 2 steps" in capfd.readouterr().err


def test_the_counts_of_a_large_split_are_a_sample(prepared, monkeypatch):
    from t5smith.training.curves import held_out

    split, ids = setup_of(prepared).store.train, 400
    assert sampled_counts(split, ids).tolist() == split.counts(ids).tolist()
    monkeypatch.setattr(held_out, "COUNTED_AT_ONCE", 64)
    monkeypatch.setattr(held_out, "COUNTED_TOKENS", len(split.tokens) // 4)
    sample = sampled_counts(split, ids).sum()
    assert len(split.tokens) / 5 < sample < len(split.tokens) / 2
