"""T5s of all shapes, written by transformers: read here with the same logits, and exported bit for bit."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from programs import forward
from t5smith.base.errors import T5smithError
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_save import write_model

CONFIGURATIONS = 60 if os.environ.get("EXAMPLES") == "all" else 6


@pytest.fixture(scope="module")
def vocabulary(finished):
    return load_model(finished.folder / "model").vocabulary


def any_config(draw: random.Random, ids: int) -> tuple[type, T5Config]:
    """A model of random family and sizes."""
    is_mt5 = draw.random() < 0.4
    sizes = {
        "vocab_size": ids + draw.choice([0, 1, 28, 127]),
        "d_model": draw.choice([16, 24, 40]),
        "d_kv": draw.choice([4, 8, 12]),
        "d_ff": draw.choice([20, 32]),
        "num_layers": draw.choice([1, 2, 3]),
        "num_decoder_layers": draw.choice([1, 2, 3]),
        "num_heads": draw.choice([1, 2, 3]),
        "relative_attention_num_buckets": draw.choice([8, 32]),
        "relative_attention_max_distance": draw.choice([20, 128]),
        "feed_forward_proj": "gated-gelu" if is_mt5 or draw.random() < 0.5 else "relu",
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
    }
    if is_mt5:
        return MT5ForConditionalGeneration, MT5Config(**sizes)
    return T5ForConditionalGeneration, T5Config(**sizes, tie_word_embeddings=draw.random() < 0.5)


def written(folder, draw, vocabulary):
    """A folder as a user finds it: random weights, saved by transformers 5."""
    kind, config = any_config(draw, vocabulary.size)
    torch.manual_seed(draw.randrange(1 << 30))
    model = kind(config)
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.3)
    if not getattr(config, "scale_decoder_outputs", False):
        # transformers 5 ties what is built from a config, whatever it says.
        model.lm_head.weight = torch.nn.Parameter(torch.randn(config.vocab_size, config.d_model))
        config.tie_word_embeddings = False
    model.save_pretrained(folder)
    vocabulary.save(folder, model_max_length=64)


def logits_of(model, inputs, targets):
    with torch.no_grad():
        mask = torch.tensor(inputs != 0)
        return model(
            input_ids=torch.tensor(inputs), attention_mask=mask, decoder_input_ids=torch.tensor(targets)
        ).logits.numpy()


@pytest.mark.parametrize("seed", range(CONFIGURATIONS))
def test_a_model_of_transformers_has_the_same_logits_here_and_in_our_export(tmp_path, vocabulary, seed):
    draw = random.Random(seed)
    written(tmp_path / "theirs", draw, vocabulary)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "theirs").eval()
    ours = load_model(tmp_path / "theirs")
    rng = np.random.default_rng(seed)
    inputs = rng.integers(3, vocabulary.size, (3, 40))
    inputs[1, 25:] = inputs[2, 1:] = 0
    targets = rng.integers(3, vocabulary.size, (3, 12))
    found = forward(ours.parameters, ours.config, jnp.asarray(inputs), jnp.asarray(targets))
    expected = logits_of(theirs, inputs, targets)
    tolerance = {"atol": 1e-4 * np.abs(expected).max(), "rtol": 0}
    ids = vocabulary.size
    np.testing.assert_allclose(found[..., :ids], expected[..., :ids], **tolerance)
    write_model_to(tmp_path / "again", ours)
    again = load_model(tmp_path / "again")
    assert again.config == ours.config
    # Rows of the head above the vocabulary get the mean of the others.
    again, ours = (without_spare_rows(one.parameters, ids) for one in (again, ours))
    jax.tree.map(np.testing.assert_array_equal, again, ours)
    exported = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "again").eval()
    logits = logits_of(exported, inputs, targets)
    np.testing.assert_allclose(logits[..., :ids], expected[..., :ids], **tolerance)


def without_spare_rows(parameters, ids):
    if parameters.head is None:
        return replace(parameters, embedding=parameters.embedding[:ids])
    return replace(parameters, head=parameters.head[:, :ids])


def write_model_to(folder, model):
    folder.mkdir()
    write_model(folder, model, model_max_length=64)


def test_a_head_that_the_configuration_has_no_use_for_is_refused(tmp_path, vocabulary):
    write_model_to(tmp_path / "a", load_model_untied(tmp_path, vocabulary))
    config = tmp_path / "a" / "config.json"
    config.write_text(
        config.read_text().replace('"tie_word_embeddings": false', '"tie_word_embeddings": true')
    )
    with pytest.raises(T5smithError, match=r"have another one\. Set tie_word_embeddings to false"):
        load_model(tmp_path / "a")


def load_model_untied(tmp_path, vocabulary):
    for seed in range(100):
        folder = tmp_path / str(seed)
        written(folder, random.Random(seed), vocabulary)
        model = load_model(folder)
        if not model.config.tie_word_embeddings:
            return model
    raise AssertionError("none of them is untied")
