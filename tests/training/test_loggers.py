"""TensorBoard gets the run's figures; services that are not installed are named."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from t5smith.base.errors import T5smithError
from t5smith.objective.batches import evaluation_batches
from t5smith.training import loggers
from t5smith.training.metrics import read_rows
from t5smith.training.setup import Run
from t5smith.training.train import train
from tiny import tiny_recipe

# protobuf's own modules warn on import.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def scalars(folder):
    """The points of each tag of each run, by "run/tag"."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for run in (folder / "train" / "tensorboard").iterdir():
        read = EventAccumulator(str(run))
        read.Reload()
        for tag in read.Tags()["scalars"]:
            found[f"{run.name}/{tag}"] = [(e.step, e.value) for e in read.Scalars(tag)]
    return found


def test_tensorboard_shows_what_the_metrics_file_holds(run_folder):
    train(tiny_recipe(run_folder, **{"train.evaluate_every": 3, "train.log_every": 2}))
    logged = scalars(run_folder)
    rows = {row["step"]: row for row in read_rows(run_folder / "train" / "metrics.jsonl")}
    for name in ("nll", "gradient_norm", "update_rms", "weight_rms", "mfu", "memory_bytes"):
        assert logged[f"train/{name}"] == [(s, pytest.approx(rows[s][name], rel=1e-6)) for s in (2, 4, 6)]
    held_out = {row["step"]: row for row in read_rows(run_folder / "train" / "heldout.jsonl")}
    # The same tag of two runs is one chart: loss beside loss, text tokens beside their baseline.
    for tag, part in (("nll", "all"), ("text_nll", "text")):
        assert logged[f"held-out/{tag}"] == [(s, pytest.approx(held_out[s][part]["nll"])) for s in (3, 6)]
    setup = Run(tiny_recipe(run_folder)).setup
    text = np.concatenate([b["targets"].ravel() for b in held_out_batches(setup)])
    counts, is_text = setup.store.train.counts(setup.vocabulary.size), setup.vocabulary.is_text
    share = (counts + 0.1) / (counts + 0.1)[is_text].sum()
    baseline = -np.log(share[text[is_text[text]]]).mean()
    assert logged["unigram/text_nll"] == [(s, pytest.approx(baseline, rel=1e-5)) for s in (3, 6)]
    assert [held_out[s]["unigram_nll"] for s in (3, 6)] == [pytest.approx(baseline, rel=1e-5)] * 2


@pytest.mark.slow
def test_a_resumed_run_replaces_the_steps_it_repeats(run_folder, monkeypatch):
    from t5smith.training import loop

    taken = []
    monkeypatch.setattr(loop.Loop, "save", lambda self, state: taken.append(self.done))
    train(tiny_recipe(run_folder, **{"train.steps": 5}))
    monkeypatch.undo()
    train(tiny_recipe(run_folder, **{"train.steps": 3}))
    train(tiny_recipe(run_folder))
    assert [step for step, _ in scalars(run_folder)["train/nll"]][-3:] == [4, 5, 6]
    assert taken == [2, 4, 5]


def held_out_batches(setup):
    return evaluation_batches(setup.store.valid, setup.objective, batch_size=8, masks_per_window=1)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_that_is_not_installed_is_named(run_folder, name):
    if importlib.util.find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(T5smithError, match=f"{name} is not installed.*pip install {name}"):
        train(tiny_recipe(run_folder, **{"train.loggers": (name,)}))


def test_without_loggers_nothing_is_written(run_folder):
    train(tiny_recipe(run_folder, **{"train.loggers": ()}))
    assert not (run_folder / "train" / "tensorboard").exists()


def test_a_logger_that_fails_is_dropped_and_training_continues(run_folder, monkeypatch, capfd):
    logged = []

    def log(self, step, values):
        logged.append(step)
        if step == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(loggers.TensorBoard, "log", log)
    train(tiny_recipe(run_folder, **{"train.log_every": 2}))
    assert logged == [2, 4]
    assert [row["step"] for row in read_rows(run_folder / "train" / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert "tensorboard fails ([Errno 28] No space left on device)" in capfd.readouterr().err


def test_a_logger_that_fails_at_the_end_is_reported(run_folder, monkeypatch, capfd):
    def close(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loggers.TensorBoard, "close", close)
    train(tiny_recipe(run_folder))
    assert "tensorboard fails at the end" in capfd.readouterr().err
