"""T5 1.0's layers, a ReLU feed-forward and a tied head, from a recipe through training to transformers."""

from __future__ import annotations

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from programs import batch_loss
from t5smith.evaluation.scores import evaluate
from t5smith.exporting.export import export
from t5smith.training.train import train
from tiny import tiny_recipe


@pytest.mark.slow
def test_a_trained_t5_1_0_has_the_same_held_out_nll_in_transformers(prepared, tmp_path):
    """The exported model, run by transformers on one batch of held-out text, gives the loss of our own."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    from t5smith.interop.huggingface_load import load_model
    from t5smith.objective.batches import evaluation_batches
    from t5smith.training.setup import Run

    settings = {"model.feed_forward": "relu", "model.tie_word_embeddings": True}
    recipe = tiny_recipe(shutil.copytree(prepared, tmp_path / "run"), **settings)
    train(recipe)
    evaluate(recipe)
    folder = export(recipe)
    assert "A T5 1.0 encoder-decoder" in (folder / "README.md").read_text(encoding="utf-8")
    model = load_model(folder)
    assert (model.config.gated, model.config.tie_word_embeddings) == (False, True)
    run = Run(recipe)
    batch = evaluation_batches(run.store.valid, run.setup.objective, batch_size=8, masks_per_window=1)[0]
    inputs, answers = (jnp.asarray(batch[name]) for name in ("input_ids", "targets"))
    ours = batch_loss(model.parameters, model.config, inputs, answers)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    targets = torch.tensor(np.asarray(batch["targets"]), dtype=torch.int64)
    with torch.no_grad():
        logits = theirs(
            input_ids=torch.tensor(np.asarray(batch["input_ids"]), dtype=torch.int64),
            attention_mask=torch.tensor(np.asarray(batch["input_ids"]) != 0),
            labels=targets,
        ).logits[..., : model.vocabulary.size]
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0)
    assert float(ours.nll / ours.tokens) == pytest.approx(float(nll), abs=1e-4)
