import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5smith import inspect_counts, inspect_rows
from t5smith.base.errors import T5smithError
from t5smith.inspection.batch import training_batch
from t5smith.inspection.query import Query, load_model, recipe_of
from t5smith.inspection.results import inspected_rows, inspected_text
from t5smith.inspection.text import inspect_text, text_arrays
from t5smith.inspection.token_losses import create_loss_function
from t5smith.model.loss import batch_loss
from t5smith.model.t5 import Segments, forward, mask_padded_rows, shift_right
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.recipe import Recipe
from t5smith.training.eval_step import Score
from t5smith.training.setup import Run

MIXTURE = ("0.3 2 2 <extra_id_99>", "0.5 4 1", "0.25 prefix 1 <extra_id_98>")


@pytest.fixture(scope="module")
def exported(run):
    """The run's exported model."""
    return load_model(run.folder)


def total(rows):
    losses = [loss for row in rows for trace in row.windows for loss in trace.losses]
    return sum(loss.nll for loss in losses), len(losses), sum(loss.rank == 1 for loss in losses), losses


def packed(recipe):
    """The run with an objective that packs windows into rows."""
    settings = {"name": "mixture", "denoisers": MIXTURE, "window_length": 16, "input_length": 40}
    return recipe.replace(objective=settings)


@pytest.mark.parametrize("pack", [False, True])
def test_the_losses_shown_sum_to_the_models_loss(run, exported, pack):
    model, _ = exported
    recipe = packed(run) if pack else run
    setup = Run(recipe).setup
    batch = setup.batches()[2]
    segments = None
    if pack:
        segments = Segments(jnp.asarray(batch["input_segments"]), jnp.asarray(batch["target_segments"]))
    expected = batch_loss(
        model.parameters,
        model.config,
        jnp.asarray(batch["input_ids"]),
        jnp.asarray(batch["targets"]),
        segments=segments,
    )
    view = inspected_rows(Query(recipe, True, exported), 2, 99, held_out=False)
    assert len(view.rows) == setup.recipe.train.batch_size
    assert any(len(row.windows) > 1 for row in view.rows) == pack
    nll, tokens, right, losses = total(view.rows)
    assert tokens == int(expected.tokens)
    assert nll / tokens == pytest.approx(float(expected.nll / expected.tokens), rel=1e-6)
    assert right == int(expected.correct)
    assert sum(loss.log_z**2 for loss in losses) == pytest.approx(float(expected.z), rel=1e-5)


def test_each_probability_is_the_softmax_of_the_logits(run, exported):
    model, _ = exported
    setup = Run(run).setup
    batch = setup.batches()[0]
    decoder_inputs = shift_right(jnp.asarray(batch["targets"]))
    logits = mask_padded_rows(
        forward(model.parameters, model.config, jnp.asarray(batch["input_ids"]), decoder_inputs), model.config
    )
    probabilities = np.asarray(jax.nn.softmax(logits, axis=-1), np.float64)
    (row,) = inspect_rows(run.folder, 0, 1, model=run.folder)
    (trace,) = row.windows
    assert len(trace.losses) == len(trace.targets)
    for position, (loss, target) in enumerate(zip(trace.losses, trace.targets, strict=True)):
        distribution = probabilities[0, position]
        assert distribution.sum() == pytest.approx(1, abs=1e-5)
        assert loss.probability == pytest.approx(distribution[target.id], rel=1e-5)
        assert loss.probability == pytest.approx(np.exp(-loss.nll))
        others = np.delete(distribution, target.id)
        # The jitted logits may differ from these in their last bits.
        at_least, at_most = (int((others > distribution[target.id] * by).sum()) for by in (1.00001, 0.99999))
        assert 1 + at_least <= loss.rank <= 1 + at_most
        assert loss.other_probability == pytest.approx(others.max(), rel=1e-5)
        assert loss.other.id != target.id
        assert distribution[loss.other.id] == pytest.approx(others.max(), rel=1e-5)
        assert (loss.rank == 1) == (loss.probability >= loss.other_probability)
        assert loss.other.id < model.config.real_vocab_size


@pytest.mark.parametrize("at_once", [1, 3])
def test_losses_do_not_depend_on_the_size_of_the_parts(run, exported, monkeypatch, at_once):
    model, _ = exported
    recipe = packed(run)
    batch = training_batch(Run(recipe).setup.batches(), 0)
    whole = create_loss_function(model)(batch)
    monkeypatch.setattr(
        "t5smith.inspection.token_losses._MAX_LOGITS",
        at_once * batch.arrays["targets"].shape[1] * model.config.vocab_size,
    )
    parts = create_loss_function(model)(batch)
    assert len(whole.nll) == int((batch.arrays["targets"] != 0).sum())
    np.testing.assert_allclose(parts.nll, whole.nll, atol=1e-5)
    np.testing.assert_allclose(parts.rank, whole.rank, atol=1)


def test_all_held_out_windows_sum_to_the_evaluation(run):
    stats = inspect_counts(run.folder, held_out=True, model=run.folder)
    expected = json.loads((run.folder / "evaluation" / "evaluation.json").read_text())
    sums = [Score(*row) for row in stats.denoisers[0].scores.tolist()]
    for name, score in zip(("text", "sentinels", "eos"), sums, strict=True):
        found = score.per_token()
        assert found["tokens"] == expected[name]["tokens"]
        assert found["nll"] == pytest.approx(expected[name]["nll"], rel=1e-6)
        assert found["accuracy"] == pytest.approx(expected[name]["accuracy"])
    every = sums[0] + sums[1] + sums[2]
    assert every.per_token()["nll"] == pytest.approx(expected["all"]["nll"], rel=1e-6)
    assert stats.windows == expected["windows"]


def test_held_out_tokens_have_the_classes_of_the_evaluation(run):
    rows = inspect_rows(run.folder, 0, 8, held_out=True, model=run.folder / "model")
    for row in rows:
        for trace in row.windows:
            for loss, target in zip(trace.losses, trace.targets, strict=True):
                expected = {"</s>": "eos"}.get(target.piece, "text")
                if target.piece.startswith("<extra_id_"):
                    expected = "sentinel"
                assert loss.kind == expected


def test_a_run_without_an_export_is_loaded_from_its_newest_checkpoint(run, exported, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("model"))
    model, name = load_model(folder)
    assert name == f"{folder}, step 6"
    for ours, theirs in zip(
        jax.tree.leaves(model.parameters), jax.tree.leaves(exported[0].parameters), strict=True
    ):
        # An export gives the spare columns of the head a value of their own.
        ids = model.config.real_vocab_size if ours.shape[-1] == model.config.vocab_size else None
        np.testing.assert_array_equal(ours[..., :ids], theirs[..., :ids])
    shutil.rmtree(folder / "train")
    with pytest.raises(T5smithError, match="no checkpoint of this recipe"):
        load_model(folder)


def test_a_folder_without_model_or_run_is_rejected(tmp_path):
    with pytest.raises(T5smithError, match="there is no model here"):
        load_model(tmp_path)
    with pytest.raises(T5smithError, match=r"there is no recipe\.toml"):
        recipe_of(tmp_path)
    with pytest.raises(T5smithError, match="there is no such folder"):
        recipe_of(tmp_path / "none")


def test_a_model_with_a_different_vocabulary_is_rejected(run, exported, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    tree = json.loads((run.folder / "vocab" / "tokenizer.json").read_text())
    tree["model"]["vocab"][20][0] = "ikke"
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps(tree))
    query = Query(Recipe(), model=exported, tokenizer=tmp_path / "tokenizer")
    with pytest.raises(T5smithError, match="different vocabulary"):
        inspected_text(query, "Alle mennesker er født frie", ())


def test_a_text_has_losses_under_every_denoiser(run, exported):
    model, _ = exported
    settings = ObjectiveSettings(name="mixture", denoisers=MIXTURE)
    text = "Alle mennesker er født frie og med samme menneskeverd"
    batch, _ = text_arrays(text, settings, model.vocabulary)
    traces = inspect_text(text, settings, model.vocabulary, loss=create_loss_function(model))
    expected = batch_loss(
        model.parameters,
        model.config,
        jnp.asarray(batch.arrays["input_ids"]),
        jnp.asarray(batch.arrays["targets"]),
    )
    assert len(traces) == 3
    losses = [loss for trace in traces for loss in trace.losses]
    assert len(losses) == int(expected.tokens)
    assert sum(loss.nll for loss in losses) == pytest.approx(float(expected.nll), rel=1e-6)


def test_batches_of_a_run_are_counted_with_their_loss(run, exported):
    stats = inspect_counts(run.folder, batch=1, batches=2, model=run.folder)
    rows = [row for b in (1, 2) for row in inspect_rows(run.folder, b, 4, model=run.folder)]
    nll, tokens, _, _ = total(rows)
    (counts,) = stats.denoisers
    assert counts.scores.sum(axis=0)[[0, 2]] == pytest.approx([nll, tokens], rel=1e-6)
    setup = Run(run).setup
    assert stats.windows == sum(len(training_batch(setup.batches(), b).row) for b in (1, 2))
