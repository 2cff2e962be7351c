"""The decoder one token at a time, with cached keys and values.

Shapes: B inputs, K sequences per input, S input positions, T new tokens, V vocabulary, H heads, C d_kv,
D d_model. The cache of self-attention has G groups of P sequences that may see each other's keys: the beams
of an input (G = B, P = K), or every sequence alone (G = B K, P = 1).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from t5smith.generation.state import Cache, DecoderWeights, Memory
from t5smith.model.attention.masks import mask_bias
from t5smith.model.attention.multi_head import split_heads
from t5smith.model.attention.position_bias import position_bias
from t5smith.model.attention.xla import attend
from t5smith.model.compute import Compute
from t5smith.model.config import ModelConfig
from t5smith.model.layers import dense, feed_forward, norm
from t5smith.model.params import DecoderLayer, Parameters
from t5smith.model.t5 import PAD_ID, encode, head_operands, mask_padded_rows


@partial(jax.jit, static_argnames=("config", "compute"))
def decoder_weights(p: Parameters, config: ModelConfig, compute: Compute) -> DecoderWeights:
    """The weights of the decoder for :func:`decode_step`."""

    def matrix(a: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return a.astype(compute.dtype) if a.ndim == 2 else a

    def layer(n: int) -> DecoderLayer:
        own = jax.tree.map(lambda a: a[n], p.decoder.layers)
        # The position bias is added, not multiplied.
        return replace(jax.tree.map(matrix, own), relative_attention_bias=own.relative_attention_bias)

    layers = tuple(layer(n) for n in range(config.num_decoder_layers))
    head = head_operands(p, config, jnp.zeros((1, config.d_model)))[1].astype(compute.dtype)
    return DecoderWeights(p.embedding, layers, p.decoder.relative_attention_bias, p.decoder.final_norm, head)


def read_inputs(
    p: Parameters,
    weights: DecoderWeights,
    config: ModelConfig,
    input_ids: Int[Array, "B S"],
    compute: Compute,
) -> Memory:
    """Run the encoder, and project its output for the cross-attention of every layer."""
    B = input_ids.shape[0]
    encoded = encode(p, config, input_ids, compute).reshape(-1, config.d_model)

    def project(w: Float[Array, "D HC"]) -> Float[Array, "B S H C"]:
        return split_heads(dense(encoded, w, compute), B, config.num_heads).astype(compute.dtype)

    cross = [layer.cross_attention for layer in weights.layers]
    return Memory(
        tuple(project(one.k) for one in cross),
        tuple(project(one.v) for one in cross),
        mask_bias(input_ids != PAD_ID)[:, None, None, :],
    )


def empty_cache(config: ModelConfig, groups: int, per_group: int, length: int, compute: Compute) -> Cache:
    """A cache for `length` tokens of each sequence."""

    def empty() -> tuple[Float[Array, "G T P H C"], ...]:
        shape = groups, length, per_group, config.num_heads, config.d_kv
        return tuple(jnp.zeros(shape, compute.dtype) for _ in range(config.num_decoder_layers))

    return Cache(empty(), empty())


def distance_bias(
    weights: DecoderWeights, config: ModelConfig, length: int
) -> tuple[Float[Array, "H T2"], ...]:
    """The position bias by distance: column `length - 1 - d` is that of a key `d` tokens before the query.

    One for all layers, or one for each (UMT5).
    """
    shared, max_distance = weights.relative_attention_bias, config.relative_attention_max_distance
    own = [layer.relative_attention_bias for layer in weights.layers]
    tables = [table for table in (own if shared is None else [shared]) if table is not None]
    rows = (
        position_bias(table, length, length, bidirectional=False, max_distance=max_distance)[:, -1]
        for table in tables
    )
    return tuple(jnp.pad(row, ((0, 0), (0, length - 1))) for row in rows)


def decode_step(
    weights: DecoderWeights,
    config: ModelConfig,
    memory: Memory,
    cache: Cache,
    bias: tuple[Float[Array, "H T2"], ...],
    seen: Bool[Array, "#G #P T P"],
    token: Int[Array, "B K"],
    position: Int[Array, ""],
    compute: Compute,
) -> tuple[Float[Array, "BK V"], Cache]:
    """The logits of the token after `token`, which is at `position`, and the updated cache.

    Args:
      weights: from :func:`decoder_weights`.
      config: sizes of the model.
      memory: from :func:`read_inputs`.
      cache: of the tokens before.
      bias: from :func:`distance_bias`.
      seen: which entries of its group's cache a sequence sees.
      token: the newest token of each sequence.
      position: its position.
      compute: precision and programs of the products.
    """
    (B, K), (G, T, P, H, _) = token.shape, cache.keys[0].shape

    def now(table: Float[Array, "H T2"]) -> Float[Array, "#G H #P TP"]:
        row = jax.lax.dynamic_slice_in_dim(table, T - 1 - position, T, axis=1)[None, :, None, :, None]
        return (row + mask_bias(seen)[:, None]).reshape(seen.shape[0], H, seen.shape[1], T * P)

    biases = [now(table) for table in bias]
    new: tuple[list[Array], list[Array]] = [], []

    def write(old: Float[Array, "G T P H C"], x: Float[Array, "BK HC"]) -> Float[Array, "G T P H C"]:
        x = x.astype(compute.dtype).reshape(G, 1, *old.shape[2:])
        return jax.lax.dynamic_update_slice_in_dim(old, x, position, axis=1)

    x = weights.embedding[token.reshape(-1)].astype(jnp.float32)
    for number, layer in enumerate(weights.layers):
        h = norm(x, layer.self_attention_norm, config.layer_norm_epsilon)
        own = layer.self_attention
        q = dense(h, own.q, compute).reshape(G, P, H, -1)
        keys = write(cache.keys[number], dense(h, own.k, compute))
        values = write(cache.values[number], dense(h, own.v, compute))
        flat: Any = keys.reshape(G, T * P, H, -1), values.reshape(G, T * P, H, -1)
        x += dense(attend(q, *flat, biases[number if len(biases) > 1 else 0], compute), own.o, compute)
        new[0].append(keys)
        new[1].append(values)

        h = norm(x, layer.cross_attention_norm, config.layer_norm_epsilon)
        q = dense(h, layer.cross_attention.q, compute).reshape(B, K, H, -1)
        mixed = attend(q, memory.keys[number], memory.values[number], memory.bias, compute)
        x += dense(mixed, layer.cross_attention.o, compute)

        h = norm(x, layer.feed_forward_norm, config.layer_norm_epsilon)
        x += feed_forward(h, layer.feed_forward, compute)
    scale = config.d_model**-0.5 if config.tie_word_embeddings else 1.0
    x = norm(x, weights.final_norm, config.layer_norm_epsilon) * scale
    logits = mask_padded_rows(dense(x, weights.head, compute), config)
    return logits, Cache(tuple(new[0]), tuple(new[1]))
