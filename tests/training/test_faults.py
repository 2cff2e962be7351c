"""A bad gradient is skipped, counted and reported; many in a row roll training back."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.training import compile as start
from t5smith.training import train as stage
from t5smith.training.metrics import read_rows
from t5smith.training.resume import checkpoints as checkpoint
from t5smith.training.setup import Run
from t5smith.training.state import SkippedBatches
from t5smith.training.train import train
from tiny import tiny_recipe


def plant_bad_batches(monkeypatch, bad):
    """Make the gradients of these batches NaN; the list of batches trained on."""
    compiled = stage.compiled_step
    seen = []

    def compiled_step(setup, _begun=None):
        step = compiled(setup)
        known = {key(setup.batches()[b]): b for b in range(60)}

        def run(state, batch):
            b = known[key(batch)]
            seen.append(b)
            state, metrics = step.run(poisoned(state) if b in bad else state, batch)
            return (cured(state) if b in bad else state), metrics

        return start.CompiledStep(run, step.memory, step.batch_size)

    monkeypatch.setattr(stage, "compiled_step", compiled_step)
    return seen


def key(batch):
    return np.asarray(batch["input_ids"]).tobytes()


kept = {}


def poisoned(state):
    """A state whose first parameter is infinite, so that no gradient is finite; the true one is kept."""
    kept["scale"] = np.array(state.parameters.encoder.final_norm)
    return with_scale(state, np.full_like(kept["scale"], np.inf))


def cured(state):
    return with_scale(state, kept["scale"])


def with_scale(state, scale):
    leaves, tree = jax.tree.flatten(state)
    at = next(i for i, leaf in enumerate(leaves) if leaf is state.parameters.encoder.final_norm)
    leaves[at] = jax.device_put(scale)
    return jax.tree.unflatten(tree, leaves)


def final(recipe):
    setup = Run(recipe).setup
    state = checkpoint.restore(train(recipe), setup.abstract_state())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def facts(recipe, step):
    folder = checkpoint.checkpoint_folder(recipe.folder / "train" / "checkpoints", step)
    return read_manifest(folder, "checkpoint").facts


def events(recipe):
    return [json.loads(line) for line in (recipe.folder / "train" / "events.jsonl").read_text().splitlines()]


def test_a_bad_batch_is_skipped_counted_and_reported(run_folder, monkeypatch, capfd):
    seen = plant_bad_batches(monkeypatch, {3})
    recipe = tiny_recipe(run_folder)
    arrays = final(recipe)
    assert all(np.isfinite(array).all() for array in arrays)
    # Six updates, of seven batches.
    assert seen == [0, 1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in read_rows(recipe.folder / "train" / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert facts(recipe, 6)["skipped_batches"] == [[3, 3]]
    assert [(event["event"], event["step"], event["batch"]) for event in events(recipe)] == [
        ("skipped", 3, 3)
    ]
    output = capfd.readouterr().err
    assert "batch 3 skipped after step 3: loss nan" in " ".join(output.split())


def test_a_skipped_batch_leaves_no_trace(run_folder, monkeypatch, tmp_path):
    """The parameters are those of training on the other batches alone."""
    recipe = tiny_recipe(run_folder)
    with monkeypatch.context() as patched:
        plant_bad_batches(patched, {3})
        arrays = final(recipe)
    setup = Run(recipe).setup
    state, batches = setup.fresh_program()(), setup.batches()
    step = start.compiled_step(setup)
    for b in (0, 1, 2, 4, 5, 6):
        state, _ = step.run(state, batches[b])
    for ours, alone in zip(arrays, jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(ours, np.asarray(alone))


@pytest.mark.slow
def test_a_resumed_run_takes_the_same_batches(run_folder, monkeypatch, tmp_path):
    recipe = tiny_recipe(run_folder)
    seen = plant_bad_batches(monkeypatch, {1, 3})
    train(recipe.replace(**{"train.steps": 4}))
    assert facts(recipe, 4)["skipped_batches"] == [[1, 1], [3, 3]]
    del seen[:]
    train(recipe)
    assert seen == [6, 7]
    assert facts(recipe, 6)["skipped_batches"] == [[1, 1], [3, 3]]
    assert [event["batch"] for event in events(recipe)] == [1, 3]


def test_many_in_a_row_roll_back_and_skip_the_batches_since(run_folder, monkeypatch, capfd):
    seen = plant_bad_batches(monkeypatch, {3, 4, 5})
    recipe = tiny_recipe(run_folder, **{"train.rollback_after": 3, "train.steps": 4})
    assert np.isfinite(final(recipe)[1]).all()
    # The checkpoint is after two updates; the third is skipped, and all that followed it.
    assert seen[:6] == [0, 1, 2, 3, 4, 5]
    assert seen[-2:] == [6, 7]
    assert facts(recipe, 4)["skipped_batches"] == [[2, 5]]
    assert [row["step"] for row in read_rows(recipe.folder / "train" / "metrics.jsonl")] == [1, 2, 3, 4]
    assert events(recipe)[-1] == {"event": "rolled back", "step": 2, "batch": 5, "from_batch": 2}
    assert "rolling back to step 2; batches 2 to 5 are skipped" in " ".join(capfd.readouterr().err.split())


def test_rolling_back_before_the_first_checkpoint_restarts(run_folder, monkeypatch):
    seen = plant_bad_batches(monkeypatch, {0, 1})
    recipe = tiny_recipe(run_folder, **{"train.rollback_after": 2, "train.steps": 3})
    train(recipe)
    assert seen[-3:] == [2, 3, 4]
    assert facts(recipe, 3)["skipped_batches"] == [[0, 1]]


def test_after_too_many_rollbacks_it_gives_up_with_one_line(run_folder, monkeypatch):
    plant_bad_batches(monkeypatch, set(range(60)))
    recipe = tiny_recipe(run_folder, **{"train.rollback_after": 2})
    with pytest.raises(T5smithError, match="gradients stay unusable after step 0"):
        train(recipe)


@pytest.mark.slow
def test_a_learning_rate_far_too_high_ends_the_same_way(run_folder):
    changes = {"train.optimizer.name": "adamw", "train.optimizer.learning_rate": 1e30}
    with pytest.raises(T5smithError, match=r"gradients stay unusable.*lower learning rate"):
        train(tiny_recipe(run_folder, **changes))


def test_batches_skipped_twice_are_counted_once():
    skipped = SkippedBatches()
    for batch in (3, 4, 7):
        skipped.add(batch)
    assert skipped.to_json() == [[3, 4], [7, 7]]
    assert len(skipped) == 3
    skipped.add(5, 9)
    assert skipped.to_json() == [[3, 9]]
    assert SkippedBatches(skipped.to_json()).to_json() == skipped.to_json()
    assert len(SkippedBatches()) == 0
