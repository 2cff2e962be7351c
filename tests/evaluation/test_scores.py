"""Held-out scores: what is counted, and the unigram baseline."""

from __future__ import annotations

import json
import math
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from programs import CPU, batch_loss
from t5smith.base.errors import T5smithError
from t5smith.evaluation.scores import Tally, evaluate, scores
from t5smith.objective.batches import evaluation_batches
from t5smith.parallel import hardware
from t5smith.training.eval_step import create_scorer, token_classes, total, unigram_nll
from t5smith.training.resume import checkpoints as checkpoint
from t5smith.training.setup import Run
from t5smith.training.train import train
from tiny import tiny_recipe


@pytest.fixture(scope="module")
def scored(finished):
    setup = Run(finished).setup
    state = checkpoint.restore(
        checkpoint.checkpoint_folder(setup.checkpoints, finished.train.steps), setup.abstract_state()
    )
    batches = evaluation_batches(setup.store.valid, setup.objective, batch_size=8, masks_per_window=2)
    scorer = create_scorer(setup.config, token_classes(setup.vocabulary), CPU)
    return setup, state.parameters, batches, total(scorer(state.parameters, batches))


def test_the_token_classes_add_up_to_the_training_loss(scored):
    setup, parameters, batches, score = scored
    sums = [
        batch_loss(parameters, setup.config, jnp.asarray(b["input_ids"]), jnp.asarray(b["targets"]))
        for b in batches
    ]
    assert score.total.nll == pytest.approx(sum(float(s.nll) for s in sums), rel=1e-5)
    assert score.total.correct == sum(float(s.correct) for s in sums)
    assert score.total.tokens == sum(float(s.tokens) for s in sums)


def test_each_class_counts_its_own_tokens(scored):
    setup, _, batches, score = scored
    targets = np.concatenate([b["targets"].ravel() for b in batches])
    rows = sum(len(b["targets"]) for b in batches)
    assert score.sentinels.tokens == rows * setup.objective.denoisers[0].lengths.spans
    assert score.text.tokens == setup.vocabulary.is_text[targets].sum()
    # Besides the one that ends each row, `</s>` stands between documents.
    assert score.eos.tokens >= rows


def test_the_evaluation_is_written_once(finished):
    folder = evaluate(finished)
    written = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    before = (folder / "evaluation.json").stat().st_mtime_ns
    evaluate(finished)
    assert (folder / "evaluation.json").stat().st_mtime_ns == before
    assert written["margin"] == pytest.approx(written["unigram_nll"] - written["text"]["nll"])
    assert len(written["examples"]) == 2
    for example in written["examples"]:
        assert len(example["fills"]) == len(example["truth"]) == 2
        assert len(example["kept"]) == 3


def test_bits_per_byte_follow_from_the_sums(scored):
    setup, parameters, batches, score = scored
    tally = Tally(1, setup.vocabulary.size)
    scorer = create_scorer(setup.config, token_classes(setup.vocabulary), CPU)
    for batch, rows in zip(batches, scorer(parameters, batches), strict=True):
        tally.add(batch, rows)
    facts = scores(setup.store, setup.vocabulary, tally)
    targets = np.concatenate([b["targets"].ravel() for b in batches])
    text = "".join(
        piece
        for piece, i in zip(setup.vocabulary.pieces(targets), targets, strict=True)
        if setup.vocabulary.is_text[i] and i != setup.vocabulary.unk_id
    )
    size = len(text.replace("▁", " ").encode())
    assert facts["masked_bytes"] == size
    assert facts["bits_per_byte"] == pytest.approx(score.total.nll / math.log(2) / size)


def test_the_unigram_baseline_computed_by_hand():
    # Ids 0 and 1 are control ids; 2, 3 and 4 are text.
    counts, is_text = np.array([50, 9, 6, 3, 0]), np.array([False, False, True, True, True])
    occurrences = np.array([1, 1, 2, 1, 1])
    total = 9.3
    expected = -np.mean([math.log(x / total) for x in (6.1, 6.1, 0.1, 3.1)])
    assert unigram_nll(counts, is_text, occurrences) == pytest.approx(expected)
    assert unigram_nll(counts, is_text, np.array([1, 1, 0, 0, 0])) is None


def test_a_model_that_is_not_trained_is_rejected(run_folder):
    with pytest.raises(T5smithError, match="t5smith train"):
        evaluate(tiny_recipe(run_folder))


@pytest.mark.slow
def test_a_mixture_is_scored_by_denoiser(prepared, tmp_path):
    recipe = tiny_recipe(
        shutil.copytree(prepared, tmp_path / "run"),
        **{
            "objective": {
                "name": "mixture",
                "window_length": 32,
                "denoisers": ["0.15 3 2", "0.5 prefix 1 <extra_id_99>"],
            },
            "train.steps": 2,
            "train.schedule.warmup_steps": 0,
        },
    )
    train(recipe)
    figures = json.loads((evaluate(recipe) / "evaluation.json").read_text(encoding="utf-8"))
    spans, prefix = figures["denoisers"].values()
    assert list(figures["denoisers"]) == ["15% in spans of 3", "<extra_id_99> 50% at the end"]
    assert spans["windows"] + prefix["windows"] == figures["windows"]
    assert abs(spans["windows"] - 2 * prefix["windows"]) <= 3
    assert spans["all"]["tokens"] == spans["windows"] * (5 + 2 + 1)
    for part in ("text", "all"):
        tokens = [one[part]["tokens"] for one in (spans, prefix)]
        nll = [one[part]["nll"] for one in (spans, prefix)]
        assert sum(tokens) == figures[part]["tokens"]
        assert np.dot(tokens, nll) == pytest.approx(figures[part]["nll"] * sum(tokens), rel=1e-6)


def test_an_evaluation_that_does_not_fit_into_memory_is_refused(finished, monkeypatch):
    monkeypatch.setattr(hardware, "memory_limit", lambda: 1_000)
    recipe = finished.replace(**{"evaluate.masks_per_window": 3})
    with pytest.raises(T5smithError) as caught:
        evaluate(recipe)
    assert str(caught.value).startswith("evaluate.batch_size: evaluating ")
    assert "but 1,000B are " in str(caught.value)
