"""The loss in chunks, with its own backward pass, equals the plain loss and its gradient."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from programs import init
from t5smith.model import loss as loss_module
from t5smith.model.compute import FLOAT32
from t5smith.model.config import ModelConfig
from t5smith.model.loss import batch_loss, target_losses, token_losses
from t5smith.model.t5 import forward, mask_padded_rows, shift_right

CONFIG = ModelConfig(128, 100, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2)
TIED = replace(CONFIG, tie_word_embeddings=True)
CHUNKS = {1: 1 << 30, 2: 4 * 128 * 3 * 4, 5: 4 * 128 * 3, 7: 1}
"""Numbers of chunks of 3 rows of 7 targets, and the bytes that give this number."""


@pytest.fixture(params=CHUNKS)
def chunks(request, monkeypatch):
    monkeypatch.setitem(loss_module.CHUNK_BYTES, FLOAT32.backend, CHUNKS[request.param])
    return request.param


def batch():
    inputs = jax.random.randint(jax.random.key(1), (3, 9), 2, 100).at[1, 6:].set(0)
    return inputs, jax.random.randint(jax.random.key(2), (3, 7), 2, 100).at[2, 3:].set(0)


def plain(p, config, z_loss=0.0, smoothing=0.0):
    """All logits at once and gradients by JAX; smoothing as cross-entropy with the mixed distribution."""
    inputs, targets = batch()
    scores = mask_padded_rows(forward(p, config, inputs, shift_right(targets)), config)
    real = config.real_vocab_size
    mixed = (1 - smoothing) * jax.nn.one_hot(targets, real) + smoothing / real
    log_p = jax.nn.log_softmax(scores, axis=-1)[..., :real]
    value = -(mixed * log_p).sum(-1) + z_loss * jnp.square(jax.nn.logsumexp(scores, axis=-1))
    return (value * (targets != 0)).sum()


@cache
def plain_value_and_gradient(config, z_loss, smoothing):
    def twice(p):
        return 2 * plain(p, config, z_loss, smoothing)

    with jax.numpy_dtype_promotion("standard"):
        return jax.jit(jax.value_and_grad(twice))(init(config, jax.random.key(0)))


def combinations():
    """All numbers of chunks with every part of the loss, a tied head with two; the rest is slow."""
    for chunks, tied, (z_loss, smoothing) in product(
        CHUNKS, (False, True), [(0.0, 0.0), (0.01, 0.0), (0.01, 0.1)]
    ):
        fast = smoothing and (chunks == 2 or not tied)
        yield pytest.param(chunks, tied, z_loss, smoothing, marks=[] if fast else [pytest.mark.slow])


@pytest.mark.parametrize(("chunks", "tied", "z_loss", "smoothing"), list(combinations()), indirect=["chunks"])
def test_value_and_gradient_are_those_of_the_plain_loss(chunks, tied, z_loss, smoothing):
    config = TIED if tied else CONFIG
    p = init(config, jax.random.key(0))

    def ours(p):
        inputs, targets = batch()
        # Twice, so that a factor from outside must reach the gradients.
        return 2 * batch_loss(p, config, inputs, targets, z_loss=z_loss, label_smoothing=smoothing).objective

    value, gradient = jax.jit(jax.value_and_grad(ours))(p)
    expected, reference = plain_value_and_gradient(config, z_loss, smoothing)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    for got, wanted in zip(jax.tree.leaves(gradient), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)
    assert float(jax.jit(ours)(p)) == pytest.approx(float(value), rel=1e-6)


def test_sums_do_not_depend_on_the_chunks(chunks):
    p = init(CONFIG, jax.random.key(0))
    inputs, targets = batch()

    @jax.jit
    def figures(p):
        scores = mask_padded_rows(forward(p, CONFIG, inputs, shift_right(targets)), CONFIG)
        sums = batch_loss(p, CONFIG, inputs, targets, z_loss=0.5)
        return target_losses(p, CONFIG, inputs, targets), token_losses(scores, targets), sums

    ours, reference, sums = figures(p)
    for got, wanted in zip(ours, reference, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert float(sums.tokens) == 3 * 7 - 4
    assert float(sums.objective) == pytest.approx(float(sums.nll + 0.5 * sums.z), rel=1e-6)


def test_rows_above_the_real_vocabulary_get_no_gradient():
    p = init(CONFIG, jax.random.key(0))
    inputs, targets = batch()
    gradient = jax.jit(
        jax.grad(lambda p: batch_loss(p, CONFIG, inputs, targets, z_loss=0.1, label_smoothing=0.2).objective)
    )(p)
    assert float(jnp.abs(gradient.head[:, 100:]).max()) == 0.0
    assert float(jnp.abs(gradient.head[:, :100]).max()) > 0.0


def test_no_program_holds_all_logits_in_float32(monkeypatch):
    monkeypatch.setitem(loss_module.CHUNK_BYTES, FLOAT32.backend, 4 * 128 * 3 * 2)
    p = init(CONFIG, jax.random.key(0))
    inputs, targets = batch()
    program = jax.jit(jax.grad(lambda p: batch_loss(p, CONFIG, inputs, targets).objective)).lower(p).as_text()
    assert "6x128xf32" in program
    assert "21x128xf32" not in program
    assert "3x7x128xf32" not in program
