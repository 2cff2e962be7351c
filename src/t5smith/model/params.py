"""Parameters: plain trees of arrays, with layers stacked on a leading axis; and their initial values.

The initial standard deviations are those of T5X for T5 1.1. They give every product unit variance, so
attention needs no 1/sqrt(K), and the logits of a fresh untied model have variance 1: its loss is about
ln V + 1/2 nats per token.

Shapes: V vocabulary rows, D d_model, H heads, K d_kv, HK the heads side by side, F d_ff, L layers of a stack,
M decoder layers, N position buckets.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from t5smith.model import draws
from t5smith.model.config import ModelConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Attention:
    """The projections of multi-head attention, stacked over layers."""

    q: Float[Array, "*L D HK"]
    k: Float[Array, "*L D HK"]
    v: Float[Array, "*L D HK"]
    o: Float[Array, "*L HK D"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FeedForward:
    """The feed-forward layers: T5 1.1 has a gate `wi_0` and a value `wi_1`, T5 1.0 has only `wi_0`."""

    wi_0: Float[Array, "*L D F"]
    wi_1: Float[Array, "*L D F"] | None
    wo: Float[Array, "*L F D"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EncoderLayer:
    """Self-attention and feed-forward, each after a norm; the position bias if each layer has its own."""

    self_attention_norm: Float[Array, "*L D"]
    self_attention: Attention
    feed_forward_norm: Float[Array, "*L D"]
    feed_forward: FeedForward
    relative_attention_bias: Float[Array, "*L N H"] | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecoderLayer:
    """Self-attention, cross-attention to the encoder, and feed-forward, each after a norm.

    The position bias, if each layer has its own, is that of self-attention.
    """

    self_attention_norm: Float[Array, "*L D"]
    self_attention: Attention
    cross_attention_norm: Float[Array, "*L D"]
    cross_attention: Attention
    feed_forward_norm: Float[Array, "*L D"]
    feed_forward: FeedForward
    relative_attention_bias: Float[Array, "*L N H"] | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Encoder:
    """The encoder. All layers share one position bias, or each has its own (UMT5) and this one is None."""

    layers: EncoderLayer
    relative_attention_bias: Float[Array, "N H"] | None
    final_norm: Float[Array, " D"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decoder:
    """The decoder. Its position bias is as the encoder's, for self-attention; cross-attention has none."""

    layers: DecoderLayer
    relative_attention_bias: Float[Array, "N H"] | None
    final_norm: Float[Array, " D"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Parameters:
    """All parameters of a model. `head` is None if it is tied to the embedding."""

    embedding: Float[Array, "V D"]
    encoder: Encoder
    decoder: Decoder
    head: Float[Array, "D V"] | None


def init(config: ModelConfig, key: PRNGKeyArray, *, spread: bool = False) -> Parameters:
    """Draw the parameters of a fresh model, float32: each array with a key of its own; see :func:`_drawn`."""
    keys, numbers = draws.split(key, 32), itertools.count()
    D, HK, F = config.d_model, config.num_heads * config.d_kv, config.d_ff

    def normal(shape: tuple[int, ...], std: float) -> Any:
        return _Normal(next(numbers), shape, std)

    def attention(L: int) -> Attention:
        return Attention(
            q=normal((L, D, HK), (D * config.d_kv) ** -0.5),
            k=normal((L, D, HK), D**-0.5),
            v=normal((L, D, HK), D**-0.5),
            o=normal((L, HK, D), HK**-0.5),
        )

    def feed_forward(L: int) -> FeedForward:
        return FeedForward(
            wi_0=normal((L, D, F), D**-0.5),
            wi_1=normal((L, D, F), D**-0.5) if config.gated else None,
            wo=normal((L, F, D), F**-0.5),
        )

    def position_bias(*L: int) -> Float[Array, "*L N H"]:
        # Uniform with a standard deviation of sqrt(2 / (N + H)): flax's variance_scaling, as in T5X.
        N, H, own = config.relative_attention_num_buckets, config.num_heads, next(numbers)
        limit = (2 / (N + H)) ** 0.5 * 3**0.5
        at = jnp.arange(math.prod((*L, N, H)), dtype=jnp.uint32)
        return draws.uniform(draws.threefry(keys[0][own], keys[1][own], at), -limit, limit).reshape(*L, N, H)

    ones, L, M = jnp.ones, config.num_layers, config.num_decoder_layers
    tree = Parameters(
        embedding=normal((config.vocab_size, D), 1.0),
        encoder=Encoder(
            layers=EncoderLayer(
                self_attention_norm=ones((L, D)),
                self_attention=attention(L),
                feed_forward_norm=ones((L, D)),
                feed_forward=feed_forward(L),
                relative_attention_bias=position_bias(L) if config.bias_per_layer else None,
            ),
            relative_attention_bias=None if config.bias_per_layer else position_bias(),
            final_norm=ones(D),
        ),
        decoder=Decoder(
            layers=DecoderLayer(
                self_attention_norm=ones((M, D)),
                self_attention=attention(M),
                cross_attention_norm=ones((M, D)),
                cross_attention=attention(M),
                feed_forward_norm=ones((M, D)),
                feed_forward=feed_forward(M),
                relative_attention_bias=position_bias(M) if config.bias_per_layer else None,
            ),
            relative_attention_bias=None if config.bias_per_layer else position_bias(),
            final_norm=ones(D),
        ),
        head=None if config.tie_word_embeddings else normal((D, config.vocab_size), D**-0.5),
    )
    return _drawn(tree, keys, spread)


@dataclass(frozen=True)
class _Normal:
    """An array of normal numbers that is still to be drawn: the number of its key, its shape and its std."""

    number: int
    shape: tuple[int, ...]
    std: float


def _drawn(tree: Parameters, keys: draws.Keys, spread: bool) -> Parameters:
    """The tree with its normal numbers.

    With `spread` each device can make its own part of them, in a program that takes longer to compile.
    """
    leaves, structure = jax.tree.flatten(tree)
    wanted = [leaf for leaf in leaves if isinstance(leaf, _Normal)]
    places = np.array([leaf.number for leaf in wanted])
    own = keys[0][places], keys[1][places]
    draw = draws.spread_normals if spread else draws.normals
    made = iter(draw(own, [leaf.shape for leaf in wanted], [leaf.std for leaf in wanted]))
    return structure.unflatten([next(made) if isinstance(leaf, _Normal) else leaf for leaf in leaves])


def parameter_count(parameters: Parameters) -> int:
    """The number of parameters; works on a tree of shapes too."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


def is_stacked(parameters: Parameters) -> Parameters:
    """A tree of booleans: whether a leaf is stacked over layers on its first axis."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(getattr(key, "name", None) == "layers" for key in path), parameters
    )
