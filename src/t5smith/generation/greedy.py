"""Greedy decoding.

Shapes: B batch, S input positions, T new tokens.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from t5smith.generation.cache import Cache, create_cache, decode_one
from t5smith.model.attention.masks import mask_bias
from t5smith.model.compute import FLOAT32, Compute
from t5smith.model.config import ModelConfig
from t5smith.model.params import Parameters
from t5smith.model.t5 import PAD_ID, encode


@partial(jax.jit, static_argnames=("config", "length", "eos_id", "compute"))
def greedy(
    p: Parameters,
    config: ModelConfig,
    input_ids: Int[Array, "B S"],
    *,
    length: int,
    eos_id: int,
    compute: Compute = FLOAT32,
) -> Int[Array, "B T"]:
    """Take the most probable next token, `length` times; after `</s>` a row is padded."""
    encoded = encode(p, config, input_ids, compute)
    cache = create_cache(p, config, encoded, length, compute)
    cross_bias = mask_bias(input_ids != PAD_ID)[:, None, None, :]

    def next_token(
        carry: tuple[Array, Array, Cache], position: Int[Array, ""]
    ) -> tuple[tuple[Array, Array, Cache], Array]:
        token, ended, cache = carry
        scores, cache = decode_one(p, config, cache, cross_bias, token, position, compute)
        token = jnp.where(ended, PAD_ID, jnp.argmax(scores, axis=-1).astype(jnp.int32))
        return (token, ended | (token == eos_id), cache), token

    start = jnp.full(input_ids.shape[0], PAD_ID, jnp.int32)
    _, tokens = jax.lax.scan(next_token, (start, start != PAD_ID, cache), jnp.arange(length))
    return tokens.T
