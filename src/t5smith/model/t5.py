"""The T5 1.1 network: encode, decode, logits.

Shapes: B batch, S input and T target positions, D d_model, V vocabulary rows. Inside the stacks tokens
are flattened to (B S, D).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5smith.model.attention.masks import SegmentIds, causal, mask_bias
from t5smith.model.attention.multi_head import attention
from t5smith.model.attention.position_bias import position_bias
from t5smith.model.config import ModelConfig
from t5smith.model.dropout import Dropout, at, drop
from t5smith.model.layers import dense, feed_forward, norm
from t5smith.model.params import DecoderLayer, EncoderLayer, Parameters

FLOAT32 = jnp.dtype(jnp.float32)
PAD_ID = 0

Remat = Literal["none", "dots", "full"]
_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Segments:
    """Rows that hold several windows: the number of each position's window, from 1; 0 is padding.

    Attributes:
      inputs, targets: of the encoder's and the decoder's positions; windows have the same number in both.
    """

    inputs: Int[Array, "B S"]
    targets: Int[Array, "B T"]


def encode(
    p: Parameters,
    config: ModelConfig,
    input_ids: Int[Array, "B S"],
    dtype: jnp.dtype = FLOAT32,
    segments: Segments | None = None,
    *,
    dropout: Dropout | None = None,
    remat: Remat = "none",
) -> Float[Array, "B S D"]:
    """What the decoder attends to."""
    B, S = input_ids.shape
    bias = position_bias(
        p.encoder.relative_attention_bias,
        S,
        S,
        bidirectional=True,
        max_distance=config.relative_attention_max_distance,
    )
    groups = _groups(input_ids, None if segments is None else (segments.inputs, segments.inputs))

    def block(x: Array, given: tuple[EncoderLayer, Dropout | None]) -> tuple[Array, None]:
        layer, own = given
        h = norm(x, layer.self_attention_norm, config.layer_norm_epsilon)
        h = attention(h, h, layer.self_attention, bias, groups, dtype, at(own, 0))
        x += drop(h, own, 1)
        h = norm(x, layer.feed_forward_norm, config.layer_norm_epsilon)
        return x + drop(feed_forward(h, layer.feed_forward, dtype, at(own, 2)), own, 3), None

    x = drop(p.embedding[input_ids.reshape(-1)], dropout, 0)
    x = _run_layers(block, x, p.encoder.layers, config.num_layers, at(dropout, 1), remat)
    x = norm(x, p.encoder.final_norm, config.layer_norm_epsilon)
    return drop(x, dropout, 2).reshape(B, S, -1)


def decode(
    p: Parameters,
    config: ModelConfig,
    encoded: Float[Array, "B S D"],
    input_ids: Int[Array, "B S"],
    decoder_input_ids: Int[Array, "B T"],
    dtype: jnp.dtype = FLOAT32,
    segments: Segments | None = None,
    *,
    dropout: Dropout | None = None,
    remat: Remat = "none",
) -> Float[Array, "B T D"]:
    """The decoder's output for every target position at once, each seeing only what is before it."""
    (B, T), S = decoder_input_ids.shape, input_ids.shape[1]
    bias = position_bias(
        p.decoder.relative_attention_bias,
        T,
        T,
        bidirectional=False,
        max_distance=config.relative_attention_max_distance,
    )
    bias += mask_bias(jnp.asarray(causal(T)))
    # What comes after padding sees it, as in T5: the loss has no target there.
    own_groups = _groups(None, None if segments is None else (segments.targets, segments.targets), (B, T))
    cross_groups = _groups(input_ids, None if segments is None else (segments.targets, segments.inputs))
    cross_bias = jnp.zeros((config.num_heads, T, S), jnp.float32)
    memory = encoded.reshape(-1, encoded.shape[-1])

    def block(x: Array, given: tuple[DecoderLayer, Dropout | None]) -> tuple[Array, None]:
        layer, own = given
        h = norm(x, layer.self_attention_norm, config.layer_norm_epsilon)
        h = attention(h, h, layer.self_attention, bias, own_groups, dtype, at(own, 0))
        x += drop(h, own, 1)
        h = norm(x, layer.cross_attention_norm, config.layer_norm_epsilon)
        h = attention(h, memory, layer.cross_attention, cross_bias, cross_groups, dtype, at(own, 2))
        x += drop(h, own, 3)
        h = norm(x, layer.feed_forward_norm, config.layer_norm_epsilon)
        return x + drop(feed_forward(h, layer.feed_forward, dtype, at(own, 4)), own, 5), None

    x = drop(p.embedding[decoder_input_ids.reshape(-1)], dropout, 3)
    x = _run_layers(block, x, p.decoder.layers, config.num_decoder_layers, at(dropout, 4), remat)
    x = norm(x, p.decoder.final_norm, config.layer_norm_epsilon)
    return drop(x, dropout, 5).reshape(B, T, -1)


def _groups(
    input_ids: Int[Array, "B S"] | None,
    segments: tuple[Int[Array, "B Q"], Int[Array, "B S"]] | None,
    shape: tuple[int, int] = (0, 0),
) -> SegmentIds:
    """Who sees whom: the windows of a row are kept apart by their numbers, padded inputs are seen by none.

    Within a row of several windows positions follow each other, so that distances within one are what they
    would be if it stood alone.
    """
    if segments is not None:
        return SegmentIds(*segments)
    keys = jnp.ones(shape, jnp.int32) if input_ids is None else (input_ids != PAD_ID).astype(jnp.int32)
    return SegmentIds(jnp.ones((keys.shape[0], 1), jnp.int32), keys)


def _run_layers(
    block: Callable[[Array, Any], tuple[Array, None]],
    x: Array,
    layers: Any,
    height: int,
    dropout: Dropout | None,
    remat: Remat,
) -> Array:
    """`x` after all layers of a stack.

    With remat `dots` the backward pass computes anew what is cheap, and keeps the results of products of
    weights; with `full` it keeps only what goes into each layer.
    """
    if remat != "none":
        block = jax.checkpoint(block, prevent_cse=False, policy=_POLICIES[remat])
    own = None if dropout is None else Dropout(jax.random.split(dropout.key, height), dropout.rate)
    # Written out one by one, XLA would see that layers are computed twice, and keep their results after all.
    return jax.lax.scan(block, x, (layers, own), unroll=unroll() and remat == "none")[0]


def logits(
    p: Parameters, config: ModelConfig, decoded: Float[Array, "*B D"], dtype: jnp.dtype = FLOAT32
) -> Float[Array, "*B V"]:
    """Scores of the next token, float32. Rows that only round the vocabulary up are left as they come."""
    x, w = head_operands(p, config, decoded)
    return dense(x.reshape(-1, config.d_model), w, dtype).reshape(*decoded.shape[:-1], -1)


def head_operands(
    p: Parameters, config: ModelConfig, decoded: Float[Array, "*B D"]
) -> tuple[Float[Array, "*B D"], Float[Array, "D V"]]:
    """What is multiplied with what to give the logits."""
    if p.head is None:
        # T5 1.0: the embedding has unit variance, so a product with it has variance D.
        return decoded * config.d_model**-0.5, p.embedding.T
    return decoded, p.head


def mask_padded_rows(scores: Float[Array, "*B V"], config: ModelConfig) -> Float[Array, "*B V"]:
    """Take the rows above the real vocabulary out of the loss and of sampling."""
    if config.real_vocab_size == config.vocab_size:
        return scores
    real = jnp.arange(config.vocab_size) < config.real_vocab_size
    real = real.reshape(*(1,) * (scores.ndim - 1), -1)
    return jnp.where(real, scores, jnp.finfo(scores.dtype).min)


def shift_right(targets: Int[Array, "B T"], segments: Segments | None = None) -> Int[Array, "B T"]:
    """Decoder inputs: the targets one later, beginning with `decoder_start_token_id`, the pad id.

    Where a row holds several windows each begins with it.
    """
    shifted = jnp.pad(targets, ((0, 0), (1, 0)), constant_values=PAD_ID)[:, :-1]
    if segments is None:
        return shifted
    before = jnp.pad(segments.targets, ((0, 0), (1, 0)))[:, :-1]
    return jnp.where(segments.targets == before, shifted, PAD_ID)


def forward(
    p: Parameters,
    config: ModelConfig,
    input_ids: Int[Array, "B S"],
    decoder_input_ids: Int[Array, "B T"],
    dtype: jnp.dtype = FLOAT32,
    segments: Segments | None = None,
) -> Float[Array, "B T V"]:
    """Logits of every target position."""
    return logits(p, config, decoder_output(p, config, input_ids, decoder_input_ids, dtype, segments), dtype)


def decoder_output(
    p: Parameters,
    config: ModelConfig,
    input_ids: Int[Array, "B S"],
    decoder_input_ids: Int[Array, "B T"],
    dtype: jnp.dtype = FLOAT32,
    segments: Segments | None = None,
    *,
    dropout: Dropout | None = None,
    remat: Remat = "none",
) -> Float[Array, "B T D"]:
    """What the head makes logits of."""
    encoded = encode(p, config, input_ids, dtype, segments, dropout=at(dropout, 0), remat=remat)
    return decode(
        p,
        config,
        encoded,
        input_ids,
        decoder_input_ids,
        dtype,
        segments,
        dropout=at(dropout, 1),
        remat=remat,
    )


def unroll() -> bool:
    """Whether scanned layers are written out one by one: on CPU a loop is slower."""
    return jax.default_backend() == "cpu"
