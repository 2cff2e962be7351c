"""Decoding with cached keys and values: a new token is computed at one position, not at all of them.

Shapes: B batch, S input positions, T new tokens, V vocabulary, H heads, K d_kv, D d_model, L decoder layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5smith.model.attention.masks import mask_bias
from t5smith.model.attention.multi_head import split_heads
from t5smith.model.attention.position_bias import position_bias, shared_or_own
from t5smith.model.attention.xla import attend
from t5smith.model.compute import Compute
from t5smith.model.config import ModelConfig
from t5smith.model.layers import dense, feed_forward, norm
from t5smith.model.params import DecoderLayer, Parameters
from t5smith.model.t5 import logits, mask_padded_rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of the decoder's self-attention so far and of its cross-attention, for all layers."""

    keys: Float[Array, "*L B T H K"]
    values: Float[Array, "*L B T H K"]
    cross_keys: Float[Array, "*L B S H K"]
    cross_values: Float[Array, "*L B S H K"]


def create_cache(
    p: Parameters, config: ModelConfig, encoded: Float[Array, "B S D"], length: int, compute: Compute
) -> Cache:
    """An empty cache for `length` tokens, with the keys and values of the encoder's output."""
    B, _, D = encoded.shape
    H, K, L = config.num_heads, config.d_kv, config.num_decoder_layers
    cross = p.decoder.layers.cross_attention

    def project(w: Float[Array, "D HK"]) -> Float[Array, "B S H K"]:
        return split_heads(dense(encoded.reshape(-1, D), w, compute), B, H)

    empty = jnp.zeros((L, B, length, H, K))
    return Cache(empty, empty, jax.lax.map(project, cross.k), jax.lax.map(project, cross.v))


def decode_one(
    p: Parameters,
    config: ModelConfig,
    cache: Cache,
    cross_bias: Float[Array, "B 1 1 S"],
    token: Int[Array, " B"],
    position: Int[Array, ""],
    compute: Compute,
) -> tuple[Float[Array, "B V"], Cache]:
    """The logits of the token after `token`, which is at `position`, and the updated cache."""
    B, T, H = token.shape[0], cache.keys.shape[2], config.num_heads
    max_distance = config.relative_attention_max_distance

    def bias(table: Array) -> Array:
        rows = position_bias(table, T, T, bidirectional=False, max_distance=max_distance)
        row = jax.lax.dynamic_slice_in_dim(rows[None], position, 1, axis=2)
        return row + mask_bias(jnp.arange(T) <= position)[None, None, None, :]

    bias_of = shared_or_own(p.decoder.relative_attention_bias, bias)

    def block(x: Array, layer_and_cache: tuple[DecoderLayer, Cache]) -> tuple[Array, tuple[Array, Array]]:
        layer, own = layer_and_cache
        h = norm(x, layer.self_attention_norm, config.layer_norm_epsilon)
        q, k, v = (
            split_heads(dense(h, w, compute), B, H)
            for w in (layer.self_attention.q, layer.self_attention.k, layer.self_attention.v)
        )
        keys = jax.lax.dynamic_update_slice_in_dim(own.keys, k, position, axis=1)
        values = jax.lax.dynamic_update_slice_in_dim(own.values, v, position, axis=1)
        bias = bias_of(layer.relative_attention_bias)
        x += dense(attend(q, keys, values, bias, compute), layer.self_attention.o, compute)

        h = norm(x, layer.cross_attention_norm, config.layer_norm_epsilon)
        q = split_heads(dense(h, layer.cross_attention.q, compute), B, H)
        mixed = attend(q, own.cross_keys, own.cross_values, cross_bias, compute)
        x += dense(mixed, layer.cross_attention.o, compute)

        h = norm(x, layer.feed_forward_norm, config.layer_norm_epsilon)
        return x + feed_forward(h, layer.feed_forward, compute), (keys, values)

    x, (keys, values) = jax.lax.scan(block, p.embedding[token], (p.decoder.layers, cache))
    x = norm(x, p.decoder.final_norm, config.layer_norm_epsilon)
    scores = mask_padded_rows(logits(p, config, x, compute), config)
    return scores, Cache(keys, values, cache.cross_keys, cache.cross_values)
