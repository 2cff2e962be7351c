"""The backend for CPU: one row at a time, with its own backward pass.

The scores of one row stay in the cache. In every product the larger matrix is untransposed, as XLA's CPU
kernels are fastest so; the small matrices are transposed in memory before the product.

Shapes: B rows, Q query and S key positions, H heads, K d_kv; HK the heads side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from t5smith.model.attention.masks import SegmentIds, mask_bias
from t5smith.model.layers import with_row_major_layout


@partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def attend_by_row(
    q: Float[Array, "B Q HK"],
    k: Float[Array, "B S HK"],
    v: Float[Array, "B S HK"],
    bias: Float[Array, "H Q S"],
    segment_ids: SegmentIds,
    keys: Key[Array, " B"] | None,
    dtype: jnp.dtype,
    dropout_rate: float,
) -> Float[Array, "B Q HK"]:
    """Weighted mean of the values, see :func:`t5smith.model.attention.multi_head.dot_product_attention`.

    `keys` has one dropout key per row, or is None for no dropout.
    """
    return _rows_forward(q, k, v, bias, segment_ids, keys, dtype, dropout_rate)[0]


def _rows_forward(
    q: Float[Array, "B Q HK"],
    k: Float[Array, "B S HK"],
    v: Float[Array, "B S HK"],
    bias: Float[Array, "H Q S"],
    segment_ids: SegmentIds,
    keys: Key[Array, " B"] | None,
    dtype: jnp.dtype,
    dropout_rate: float,
) -> tuple[Float[Array, "B Q HK"], tuple[Any, ...]]:
    q, k, v = (as_bits(x.astype(dtype)) for x in (q, k, v))

    def row(scanned: Any) -> tuple[Array, Any]:
        *operands, segment_ids, key = scanned
        return attend_alone(operands, bias, segment_ids, key, dtype, dropout_rate)

    mixed, saved = jax.lax.map(row, (q, k, v, segment_ids, keys))
    return mixed, (q, k, v, as_bits(mixed.astype(dtype)), bias, segment_ids, keys, saved)


def _rows_backward(
    dtype: jnp.dtype, dropout_rate: float, residuals: tuple[Any, ...], gradient: Float[Array, "B Q HK"]
) -> tuple[Any, ...]:
    q, k, v, mixed, bias, segment_ids, keys, saved = residuals

    def row(d_bias: Array, scanned: Any) -> tuple[Array, tuple[Array, Array, Array]]:
        *operands, segment_ids, key, saved, g = scanned
        d_scores, gradients = gradients_alone(operands, bias, segment_ids, key, saved, g, dtype, dropout_rate)
        return d_bias + d_scores, gradients

    d_bias, (dq, dk, dv) = jax.lax.scan(
        row, jnp.zeros_like(bias), (q, k, v, mixed, segment_ids, keys, saved, gradient)
    )
    return dq, dk, dv, d_bias, None, None


attend_by_row.defvjp(_rows_forward, _rows_backward)


def attend_alone(
    operands: Sequence[Shaped[Array, "_ HK"]],
    bias: Float[Array, "H Q S"],
    segment_ids: SegmentIds,
    key: Key[Array, ""] | None,
    dtype: jnp.dtype,
    dropout_rate: float,
) -> tuple[Float[Array, "Q HK"], Any]:
    """The result of one row, and what its backward pass needs besides the operands: q, k, v as bits."""
    H = bias.shape[0]
    q, k, v = (_from_bits(x, dtype) for x in operands)
    scores = _scores(q, k, bias, segment_ids, dtype)
    highest = scores.max(axis=-1, keepdims=True)
    exp_scores = jnp.exp(scores - highest)
    total = exp_scores.sum(axis=-1, keepdims=True)
    kept = exp_scores if key is None else exp_scores * _dropout_mask(key, exp_scores, dropout_rate)
    mixed = _product(kept.astype(dtype), _split_heads(v, H, dtype)) / total
    # The backward pass needs the weights. In bfloat16 they are kept; in float32 they are recomputed from
    # their normaliser, which saves memory.
    if dtype == jnp.float32:
        return _merge_heads(mixed), (highest + jnp.log(total))[..., 0]
    return _merge_heads(mixed), (as_bits(exp_scores.astype(dtype)), total[..., 0])


def gradients_alone(
    operands: Sequence[Shaped[Array, "_ HK"]],
    bias: Float[Array, "H Q S"],
    segment_ids: SegmentIds,
    key: Key[Array, ""] | None,
    saved: Any,
    g: Float[Array, "Q HK"],
    dtype: jnp.dtype,
    dropout_rate: float,
) -> tuple[Float[Array, "H Q S"], tuple[Float[Array, "Q HK"], Float[Array, "S HK"], Float[Array, "S HK"]]]:
    """The gradients of one row to the scores, and to q, k and v; operands are these and the result."""
    H = bias.shape[0]
    q, k, v, mixed = (_from_bits(x, dtype) for x in operands)
    if dtype == jnp.float32:
        weights = kept_weights = jnp.exp(_scores(q, k, bias, segment_ids, dtype) - saved[..., None])
    else:
        # The weights times their total, which the gradient is divided by instead.
        kept_weights = _from_bits(saved[0], dtype)
        weights = kept_weights.astype(jnp.float32)
        g = (g.reshape(g.shape[0], H, -1) / saved[1].T[..., None]).reshape(g.shape)
    # Softmax needs the mean of d_weights under the weights. It equals the product of gradient and output.
    mean = (g * mixed.astype(jnp.float32)).reshape(g.shape[0], H, -1).sum(axis=-1).T[..., None]
    d_weights = _product(_split_heads(g, H, dtype), _split_heads(v, H, dtype, transposed=True))
    if key is not None:
        scale = _dropout_mask(key, weights, dropout_rate)
        kept_weights, d_weights = weights * scale, d_weights * scale
    dv = _product(_split_heads(g, H, dtype, transposed=True), kept_weights.astype(dtype))
    d_scores = weights * (d_weights - mean)
    d_scores_cast = d_scores.astype(dtype)
    dq = _product(d_scores_cast, _split_heads(k, H, dtype))
    dk = _product(_split_heads(q, H, dtype, transposed=True), d_scores_cast)
    return d_scores, (_merge_heads(dq), _merge_heads(dk, transposed=True), _merge_heads(dv, transposed=True))


def as_bits(x: Float[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """A bfloat16 array as integers: XLA on CPU would convert the array of all rows to float32 in a loop."""
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def _from_bits(x: Shaped[Array, "*shape"], dtype: jnp.dtype) -> Float[Array, "*shape"]:
    """The inverse of :func:`as_bits`."""
    return jax.lax.bitcast_convert_type(x, dtype) if x.dtype == jnp.uint16 else x


def _scores(
    q: Float[Array, "Q HK"],
    k: Float[Array, "S HK"],
    bias: Float[Array, "H Q S"],
    segment_ids: SegmentIds,
    dtype: jnp.dtype,
) -> Float[Array, "H Q S"]:
    """The attention logits of one row."""
    H = bias.shape[0]
    seen = segment_ids.queries[:, None] == segment_ids.keys[None, :]
    return _product(_split_heads(q, H, dtype), _split_heads(k, H, dtype, transposed=True)) + (
        bias + mask_bias(seen)[None]
    )


def _dropout_mask(key: Key[Array, ""], weights: Float[Array, "H Q S"], rate: float) -> Float[Array, "H Q S"]:
    """1 / (1 - rate) where a weight is kept, else 0; the same in both passes."""
    return jax.random.bernoulli(key, 1 - rate, weights.shape).astype(jnp.float32) / (1 - rate)


def _product(a: Float[Array, "H M I"], b: Float[Array, "H I N"]) -> Float[Array, "H M N"]:
    """One matrix product per head, summed in float32."""
    return jax.lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,))), preferred_element_type=jnp.float32)


def _split_heads(
    x: Float[Array, "S HK"], heads: int, dtype: jnp.dtype, transposed: bool = False
) -> Float[Array, "H _ _"]:
    """(S, HK) as (H, S, K), or transposed as (H, K, S), in this order in memory for the next product."""
    split = x.astype(dtype).reshape(x.shape[0], heads, -1)
    return with_row_major_layout(split.transpose((1, 2, 0) if transposed else (1, 0, 2)))


def _merge_heads(x: Float[Array, "H _ _"], transposed: bool = False) -> Float[Array, "S HK"]:
    """(H, S, K), or transposed (H, K, S), as (S, HK)."""
    merged = x.transpose((2, 0, 1) if transposed else (1, 0, 2))
    return merged.reshape(merged.shape[0], -1)
