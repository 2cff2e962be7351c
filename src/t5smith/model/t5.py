"""The T5 1.1 network, top down: logits, decoder output, encoder, decoder, and their parts.

Shapes: B batch, S input and T target positions, D d_model, V vocabulary rows, N tokens. Inside the stacks,
batch and positions are flattened to N = B S or B T.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5smith.model.attention.items import Items
from t5smith.model.attention.masks import SegmentIds, causal, mask_bias
from t5smith.model.attention.multi_head import attention
from t5smith.model.attention.position_bias import position_bias, shared_or_own
from t5smith.model.compute import FLOAT32, Compute
from t5smith.model.config import ModelConfig
from t5smith.model.dropout import Dropout, at, drop
from t5smith.model.layers import dense, feed_forward, norm
from t5smith.model.params import DecoderLayer, EncoderLayer, Parameters

PAD_ID = 0

Remat = Literal["none", "dots", "full"]
POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Segments:
    """The window of each position where rows hold several windows: its number from 1, 0 for padding.

    Attributes:
      inputs, targets: of encoder and decoder positions. A window has the same number in both.
      items: where the windows are by the plan of the rows. Attention then computes nothing outside them.
    """

    inputs: Int[Array, "B S"]
    targets: Int[Array, "B T"]
    items: Items | None = None


def forward(
    p: Parameters,
    config: ModelConfig,
    input_ids: Int[Array, "B S"],
    decoder_input_ids: Int[Array, "B T"],
    compute: Compute = FLOAT32,
    segments: Segments | None = None,
) -> Float[Array, "B T V"]:
    """Logits at every target position, float32, without dropout.

    Args:
      p: the model's parameters.
      config: its sizes.
      input_ids: token ids; 0 is padding.
      decoder_input_ids: the targets shifted right, see :func:`shift_right`.
      compute: precision and backend.
      segments: needed if rows hold several windows.
    """
    decoded = decoder_output(p, config, input_ids, decoder_input_ids, compute, segments)
    return logits(p, config, decoded, compute)


def decoder_output(
    p: Parameters,
    config: ModelConfig,
    input_ids: Int[Array, "B S"],
    decoder_input_ids: Int[Array, "B T"],
    compute: Compute = FLOAT32,
    segments: Segments | None = None,
    *,
    dropout: Dropout | None = None,
    remat: Remat = "none",
) -> Float[Array, "B T D"]:
    """Encoder and decoder: all of the network but the head."""
    encoder, decoder = at(dropout, 0), at(dropout, 1)
    encoded = encode(p, config, input_ids, compute, segments, dropout=encoder, remat=remat)
    return decode(
        p, config, encoded, input_ids, decoder_input_ids, compute, segments, dropout=decoder, remat=remat
    )


def encode(
    p: Parameters,
    config: ModelConfig,
    input_ids: Int[Array, "B S"],
    compute: Compute = FLOAT32,
    segments: Segments | None = None,
    *,
    dropout: Dropout | None = None,
    remat: Remat = "none",
) -> Float[Array, "B S D"]:
    """The encoder's output."""
    B, S = input_ids.shape
    max_distance = config.relative_attention_max_distance
    longest, _ = _longest(segments, S, 0)

    def bias(table: Array) -> Array:
        return position_bias(table, longest, longest, bidirectional=True, max_distance=max_distance)

    bias_of = shared_or_own(p.encoder.relative_attention_bias, bias)
    segment_ids = _not_padding(input_ids) if segments is None else _within(segments, 0, 0, compute)

    def run_layer(x: Array, scanned: tuple[EncoderLayer, Dropout | None]) -> tuple[Array, None]:
        layer, dropout = scanned
        h = norm(x, layer.self_attention_norm, config.layer_norm_epsilon)
        bias = bias_of(layer.relative_attention_bias)
        h = attention(h, h, layer.self_attention, bias, segment_ids, compute, at(dropout, 0))
        x += drop(h, dropout, 1)
        h = norm(x, layer.feed_forward_norm, config.layer_norm_epsilon)
        h = feed_forward(h, layer.feed_forward, compute, at(dropout, 2))
        return compute.by_rows(x + drop(h, dropout, 3)), None

    x = compute.by_rows(drop(compute.gathered(p.embedding, 0)[input_ids.reshape(-1)], dropout, 0))
    x = run_layers(run_layer, x, p.encoder.layers, config.num_layers, at(dropout, 1), remat, compute)
    x = norm(x, p.encoder.final_norm, config.layer_norm_epsilon)
    return drop(x, dropout, 2).reshape(B, S, -1)


def decode(
    p: Parameters,
    config: ModelConfig,
    encoded: Float[Array, "B S D"],
    input_ids: Int[Array, "B S"],
    decoder_input_ids: Int[Array, "B T"],
    compute: Compute = FLOAT32,
    segments: Segments | None = None,
    *,
    dropout: Dropout | None = None,
    remat: Remat = "none",
) -> Float[Array, "B T D"]:
    """The decoder's output at all target positions at once; a position sees itself and those before it."""
    (B, T), S = decoder_input_ids.shape, input_ids.shape[1]
    max_distance = config.relative_attention_max_distance
    # The bias of a row, or of the longest item.
    keys, queries = _longest(segments, S, T)

    def bias(table: Array) -> Array:
        made = position_bias(table, queries, queries, bidirectional=False, max_distance=max_distance)
        return made + mask_bias(jnp.asarray(causal(queries)))

    bias_of = shared_or_own(p.decoder.relative_attention_bias, bias)
    cross_bias = jnp.zeros((config.num_heads, queries, keys), jnp.float32)
    if segments is None:
        # Positions after padding see the padding, as in T5: no loss is computed there.
        self_ids = SegmentIds(jnp.ones((B, 1), jnp.int32), jnp.ones((B, T), jnp.int32))
        cross_ids = _not_padding(input_ids)
    else:
        self_ids, cross_ids = _within(segments, 1, 1, compute), _within(segments, 1, 0, compute)
    memory = encoded.reshape(-1, encoded.shape[-1])

    def run_layer(x: Array, scanned: tuple[DecoderLayer, Dropout | None]) -> tuple[Array, None]:
        layer, dropout = scanned
        h = norm(x, layer.self_attention_norm, config.layer_norm_epsilon)
        bias = bias_of(layer.relative_attention_bias)
        h = attention(h, h, layer.self_attention, bias, self_ids, compute, at(dropout, 0))
        x += drop(h, dropout, 1)
        h = norm(x, layer.cross_attention_norm, config.layer_norm_epsilon)
        h = attention(h, memory, layer.cross_attention, cross_bias, cross_ids, compute, at(dropout, 2))
        x += drop(h, dropout, 3)
        h = norm(x, layer.feed_forward_norm, config.layer_norm_epsilon)
        h = feed_forward(h, layer.feed_forward, compute, at(dropout, 4))
        return compute.by_rows(x + drop(h, dropout, 5)), None

    x = compute.by_rows(drop(compute.gathered(p.embedding, 0)[decoder_input_ids.reshape(-1)], dropout, 3))
    x = run_layers(run_layer, x, p.decoder.layers, config.num_decoder_layers, at(dropout, 4), remat, compute)
    x = norm(x, p.decoder.final_norm, config.layer_norm_epsilon)
    return drop(x, dropout, 5).reshape(B, T, -1)


def _longest(segments: Segments | None, S: int, T: int) -> tuple[int, int]:
    """Input and target positions that attention has at once: those of the longest item, or of a row."""
    if segments is None or segments.items is None:
        return S, T
    return segments.items.layout.longest(0), segments.items.layout.longest(1)


def _within(segments: Segments, query_side: int, key_side: int, compute: Compute) -> SegmentIds:
    """Attention within the windows of packed rows; a side is 0 for inputs, 1 for targets."""
    sides, items = (segments.inputs, segments.targets), segments.items
    if items is None:
        places = None
    elif compute.mesh is None:
        places = items.places(query_side, key_side)
    else:
        places = items.places_by_shard(query_side, key_side, compute.row_shards)
    return SegmentIds(sides[query_side], sides[key_side], places)


def _not_padding(input_ids: Int[Array, "B S"]) -> SegmentIds:
    """All queries see the inputs that are not padding."""
    keys = (input_ids != PAD_ID).astype(jnp.int32)
    return SegmentIds(jnp.ones((keys.shape[0], 1), jnp.int32), keys)


def run_layers(
    run_layer: Callable[[Array, Any], tuple[Array, None]],
    x: Float[Array, "N D"],
    layers: Any,
    num_layers: int,
    dropout: Dropout | None,
    remat: Remat,
    compute: Compute,
) -> Float[Array, "N D"]:
    """All layers of a stack, on the activations x. `run_layer` gets each layer with its dropout, or None.

    With remat `dots` the backward pass recomputes everything but the products with weights; with `full` it
    recomputes everything from the input of each layer.
    """
    if remat != "none":
        run_layer = jax.checkpoint(run_layer, prevent_cse=False, policy=POLICIES[remat])
    per_layer = None if dropout is None else Dropout(jax.random.split(dropout.key, num_layers), dropout.rate)
    # A loop is slower on CPU. But if remat layers are unrolled, XLA merges the recomputation with the forward
    # pass, and so keeps the results after all.
    unroll = compute.is_cpu and remat == "none"
    return jax.lax.scan(run_layer, x, (layers, per_layer), unroll=unroll)[0]


def logits(
    p: Parameters, config: ModelConfig, decoded: Float[Array, "*B D"], compute: Compute = FLOAT32
) -> Float[Array, "*B V"]:
    """Logits of the next token, float32. Rows above the real vocabulary are not masked."""
    x, w = head_operands(p, config, decoded)
    return dense(x.reshape(-1, config.d_model), w, compute).reshape(*decoded.shape[:-1], -1)


def head_operands(
    p: Parameters, config: ModelConfig, decoded: Float[Array, "*B D"]
) -> tuple[Float[Array, "*B D"], Float[Array, "D V"]]:
    """The two arrays whose product is the logits."""
    if p.head is None:
        # T5 1.0: the embedding has unit variance, so its product with the output would have variance D.
        return decoded * config.d_model**-0.5, p.embedding.T
    return decoded, p.head


def mask_padded_rows(scores: Float[Array, "*B V"], config: ModelConfig) -> Float[Array, "*B V"]:
    """Exclude the rows above the real vocabulary from the loss and from sampling."""
    if config.real_vocab_size == config.vocab_size:
        return scores
    real = jnp.arange(config.vocab_size) < config.real_vocab_size
    real = real.reshape(*(1,) * (scores.ndim - 1), -1)
    return jnp.where(real, scores, jnp.finfo(scores.dtype).min)


def shift_right(targets: Int[Array, "B T"], segments: Segments | None = None) -> Int[Array, "B T"]:
    """Decoder inputs: the targets shifted right by one, after `decoder_start_token_id`, which is the pad id.

    If a row holds several windows, each begins with it.
    """
    shifted = jnp.pad(targets, ((0, 0), (1, 0)), constant_values=PAD_ID)[:, :-1]
    if segments is None:
        return shifted
    before = jnp.pad(segments.targets, ((0, 0), (1, 0)))[:, :-1]
    return jnp.where(segments.targets == before, shifted, PAD_ID)
