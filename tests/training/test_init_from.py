"""Continuing from a model: its own loss first, then steps, bit for bit after a stop."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from t5smith.base.errors import T5smithError
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.source import Source, sizes_of
from t5smith.interop.weights import read_t5x
from t5smith.pipeline import run
from t5smith.training.resume import checkpoints
from t5smith.training.setup import Run
from t5smith.training.train import train
from t5smith.vocabulary.carry_over import carried_rows
from tiny import tiny_recipe

DATA = Path(__file__).parents[1] / "data" / "t5x_tiny"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of a model trained for some steps, and its run folder."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    facts = run(tiny_recipe(folder, **{"train.steps": 12, "train.evaluate_every": 6}))
    return Path(facts["model"]), folder


def continued(exported, folder, **changes):
    model, before = exported
    for part in ("vocab", "store"):
        shutil.copytree(before / part, folder / part)
    settings = {"train.init_from": str(model), "train.evaluate_every": 3, "train.checkpoint_every": 3}
    return tiny_recipe(folder, **settings | changes)


def held_out(recipe):
    lines = (recipe.folder / "train" / "heldout.jsonl").read_text().splitlines()
    return [(row["step"], row["all"]["nll"]) for row in map(json.loads, lines)]


def arrays(recipe):
    setup = Run(recipe).setup
    state = checkpoints.restore(train(recipe), setup.abstract_state())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def test_the_curve_begins_with_the_models_own_loss_and_falls(exported, tmp_path):
    recipe = continued(
        exported, tmp_path / "run", **{"train.optimizer.learning_rate": 0.003, "train.steps": 24}
    )
    setup = Run(recipe).setup
    ours = setup.first_state().parameters
    jax.tree.map(np.testing.assert_array_equal, ours, load_model(exported[0]).parameters)
    train(recipe)
    first, *_, last = held_out(recipe)
    before = held_out(tiny_recipe(exported[1]))[-1]
    assert first[0] == 0
    assert first[1] == pytest.approx(before[1], abs=1e-5)
    assert last[1] < first[1]


@pytest.mark.slow
def test_stopped_and_resumed_it_is_the_same(exported, tmp_path):
    whole = arrays(continued(exported, tmp_path / "whole", **{"train.steps": 9}))
    recipe = continued(exported, tmp_path / "halves", **{"train.steps": 9})
    train(recipe.replace(**{"train.steps": 6}))
    for one, other in zip(whole, arrays(recipe), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [step for step, _ in held_out(recipe)] == [0, 3, 6, 9]


@pytest.mark.slow
def test_another_source_is_another_training(exported, tmp_path):
    recipe = continued(exported, tmp_path / "run")
    train(recipe)
    with pytest.raises(T5smithError, match="restart"):
        train(recipe.replace(**{"train.init_from": "", "train.steps": 9}))
    copy = shutil.copytree(exported[0], tmp_path / "copy")
    train(recipe.replace(**{"train.init_from": str(copy), "train.steps": 9}))  # the same under another name
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"dropout_rate": 0.5}))
    with pytest.raises(T5smithError, match="restart"):
        train(recipe.replace(**{"train.init_from": str(copy), "train.steps": 12}))
    shutil.rmtree(copy)
    train(recipe.replace(**{"train.init_from": str(copy), "train.steps": 12}))  # it is not needed any more


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.d_ff": 64, "model.num_layers": 1},
            r"d_ff 32 → 64, num_layers 2 → 1. In \[model\] set d_ff = 32",
        ),
        ({"model.feed_forward": "relu"}, r'feed_forward "gated-gelu" → "relu"'),
        ({"model.relative_attention_bias": "per-layer"}, 'relative_attention_bias "shared" → "per-layer"'),
        ({"model.tie_word_embeddings": True}, "tie_word_embeddings false → true"),
        ({"train.init_from": "nowhere/here/it/is"}, "neither a path nor a name on the Hugging Face Hub"),
        ({"train.init_from": str(DATA.parent)}, "there is no model; expected a Hugging Face folder"),
    ],
)
def test_what_does_not_fit_is_an_error_of_one_line(exported, tmp_path, changes, message):
    with pytest.raises(T5smithError, match=message) as caught:
        train(continued(exported, tmp_path / "run", **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "train" / "checkpoints").exists()


def test_a_run_says_so_before_it_reads_its_text(exported, tmp_path):
    recipe = tiny_recipe(tmp_path / "run", **{"train.init_from": str(exported[0]), "model.d_ff": 64})
    with pytest.raises(T5smithError, match="d_ff 32 → 64"):
        run(recipe)
    assert not recipe.folder.exists() or not any(recipe.folder.glob("*/"))


def test_the_tokenizer_comes_with_the_model(exported, tmp_path):
    recipe = tiny_recipe(tmp_path, **{"vocab.size": 32_000, "train.init_from": str(exported[0])})
    assert recipe.vocab.tokenizer == str(exported[0])
    assert recipe.replace(**{"vocab.tokenizer": "bytes"}).vocab.tokenizer == "bytes"


def test_a_model_without_a_tokenizer_needs_one_to_be_named(tmp_path):
    source = {"vocab.size": 32_000, "train.init_from": str(DATA / "checkpoint_0")}
    with pytest.raises(T5smithError, match=r"train.init_from: no tokenizer is imported with .*Set vocab.tok"):
        run(tiny_recipe(tmp_path / "run", **source))


def test_another_vocabulary_takes_over_rows(exported, tmp_path, capsys):
    recipe = tiny_recipe(tmp_path / "run", **{"vocab.size": 330, "train.init_from": str(exported[0])})
    run(recipe.replace(**{"train.steps": 3, "train.evaluate_every": 3}))
    shown = capsys.readouterr().err
    setup, old = Run(recipe).setup, load_model(exported[0])
    new = setup.vocabulary
    rows = carried_rows(old.vocabulary, new)
    assert f"of 430 pieces {rows.carried} are carried over from {exported[0]}, " in shown
    assert rows.carried > 250
    assert rows.composed > 0
    state, table = setup.first_state().parameters, np.asarray(old.parameters.embedding)
    head = np.asarray(old.parameters.head)
    names = {piece: number for number, piece in enumerate(old.vocabulary.all_pieces)}
    for number, piece in enumerate(new.all_pieces):
        if piece in names:
            np.testing.assert_array_equal(state.embedding[number], table[names[piece]])
            np.testing.assert_array_equal(state.head[:, number], head[:, names[piece]])
        elif spelled := [one for one in old.vocabulary.spell(piece) if one != old.vocabulary.unk_id]:
            mean = table[spelled].mean(0)
            np.testing.assert_allclose(state.embedding[number], mean, rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, state.encoder, old.parameters.encoder)


def test_a_checkpoint_of_t5x():
    source = Source.find(str(DATA / "checkpoint_0"))
    hugging_face = Source.find(str(DATA))
    like = hugging_face.config(sizes_of(source.tensors, _any_config()))
    config = source.config(like)
    assert replace(config, real_vocab_size=1) == replace(like, real_vocab_size=1)
    assert read_t5x(DATA / "checkpoint_0").keys() >= {"shared.weight", "lm_head.weight"}


def _any_config():
    from t5smith.model.config import ModelConfig

    return ModelConfig(32_128, 32_100, 8, 3, 16, 2, 2, 4)
