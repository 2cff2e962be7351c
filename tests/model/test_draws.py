"""Fresh parameters: the bits that jax.random draws array by array, from one small program."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5smith.model import draws
from t5smith.model.config import ModelConfig
from t5smith.model.params import init

CONFIG = ModelConfig(
    d_model=16,
    d_kv=8,
    d_ff=24,
    num_layers=2,
    num_decoder_layers=3,
    num_heads=2,
    vocab_size=40,
    real_vocab_size=33,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=16,
    tie_word_embeddings=False,
)


@pytest.mark.parametrize("block", [7, 64, 1 << 16])
def test_the_bits_are_those_of_jax_random(monkeypatch, block):
    monkeypatch.setattr(draws, "BLOCK", block)
    shapes, stds = [(3, 5), (64,), (129,), ()], [1.0, 0.125, 0.3, 2.0]
    key = jax.random.key(7)

    def ours(key):
        keys = draws.split(key, 5)
        pairs = draws.threefry(keys[0][4], keys[1][4], jnp.arange(33, dtype=jnp.uint32))
        used = np.arange(4)
        return draws.normals((keys[0][used], keys[1][used]), shapes, stds), draws.uniform(pairs, -0.3, 0.3)

    def theirs(key):
        keys = jax.random.split(key, 5)
        normals = [
            std * jax.random.normal(keys[number], shape, jnp.float32)
            for number, (shape, std) in enumerate(zip(shapes, stds, strict=True))
        ]
        return normals, jax.random.uniform(keys[4], (33,), jnp.float32, -0.3, 0.3)

    (normals, uniform), (expected, expected_uniform) = jax.jit(ours)(key), jax.jit(theirs)(key)
    np.testing.assert_array_equal(uniform, expected_uniform)
    for one, other in zip(normals, expected, strict=True):
        # Where LLVM optimises nothing, as in these tests, a logarithm may be rounded differently.
        np.testing.assert_array_max_ulp(np.asarray(one), np.asarray(other), 4)


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}])
def test_each_array_has_the_key_it_always_had(changes):
    config = dataclasses.replace(CONFIG, **changes)
    made = jax.jit(init, static_argnums=0)(config, jax.random.key(3))
    keys = jax.random.split(jax.random.key(3), 32)

    @jax.jit
    def expected():
        def normal(number, shape, std):
            return std * jax.random.normal(keys[number], shape, jnp.float32)

        return {
            "embedding": normal(0, (40, 16), 1.0),
            "q": normal(1, (2, 16, 16), (16 * 8) ** -0.5),
            "wo": normal(7, (2, 24, 16), 24**-0.5),
            "bias": jax.random.uniform(keys[8], (8, 2), jnp.float32, -(0.6**0.5), 0.6**0.5),
            "cross v": normal(15, (3, 16, 16), 16**-0.5),
            **({} if config.tie_word_embeddings else {"head": normal(21, (16, 40), 16**-0.5)}),
        }

    decoder = made.decoder.layers
    found = {
        "embedding": made.embedding,
        "q": made.encoder.layers.self_attention.q,
        "wo": made.encoder.layers.feed_forward.wo,
        "bias": made.encoder.relative_attention_bias,
        "cross v": decoder.cross_attention.v,
        "head": made.head,
    }
    for name, array in expected().items():
        np.testing.assert_array_max_ulp(np.asarray(found[name]), np.asarray(array), 4)
