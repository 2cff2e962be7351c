"""The backend for CPU: one row at a time, with a backward pass of its own.

A row's scores are written and read in the cache, and every product has the larger matrix where XLA's
kernels want it: untransposed. The transposes are of the small matrices and laid out before the product.

Shapes: B rows, Q query and S key positions, H heads, K d_kv.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from t5smith.model.attention.masks import SegmentIds, mask_bias
from t5smith.model.layers import with_row_major_layout


@partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def attend_by_row(
    q: Array, k: Array, v: Array, bias: Array, groups: SegmentIds, keys: Any, dtype: jnp.dtype, rate: float
) -> Array:
    """Weighted mean of the values, (B, Q, HK); see :func:`t5smith.model.attention.multi_head.attend_rows`."""
    return _rows_forward(q, k, v, bias, groups, keys, dtype, rate)[0]


def _rows_forward(
    q: Array, k: Array, v: Array, bias: Array, groups: SegmentIds, keys: Any, dtype: jnp.dtype, rate: float
) -> tuple[Array, tuple[Any, ...]]:
    H = bias.shape[0]

    def row(given: Any) -> tuple[Array, Array]:
        q, k, v, groups, key = given
        scores = _scores(q, k, bias, groups, dtype)
        highest = scores.max(axis=-1, keepdims=True)
        unscaled = jnp.exp(scores - highest)
        total = unscaled.sum(axis=-1, keepdims=True)
        kept = unscaled if key is None else unscaled * _kept(key, unscaled, rate)
        mixed = _product(kept.astype(dtype), _heads(v, H, dtype)) / total
        # In bfloat16 the weights are kept for the backward pass; in float32 they are made again from their
        # normaliser, which saves the memory.
        normaliser = (highest + jnp.log(total))[..., 0]
        return _joined(mixed), (unscaled / total).astype(dtype) if dtype != jnp.float32 else normaliser

    mixed, saved = jax.lax.map(row, (q, k, v, groups, keys))
    return mixed, (q, k, v, bias, groups, keys, mixed, saved)


def _rows_backward(
    dtype: jnp.dtype, rate: float, residuals: tuple[Any, ...], gradient: Array
) -> tuple[Any, ...]:
    q, k, v, bias, groups, keys, mixed, saved = residuals
    H = bias.shape[0]

    def row(bias_gradient: Array, given: Any) -> tuple[Array, tuple[Array, Array, Array]]:
        q, k, v, groups, key, mixed, saved, g = given
        if dtype != jnp.float32:
            weights = saved.astype(jnp.float32)
        else:
            weights = jnp.exp(_scores(q, k, bias, groups, dtype) - saved[..., None])
        # The mean of the gradient under the weights, for it is the same with the output for the values.
        mean = (g * mixed).reshape(g.shape[0], H, -1).sum(axis=-1).T[..., None]
        kept = weights
        d_weights = _product(_heads(g, H, dtype), _heads(v, H, dtype, transposed=True))
        if key is not None:
            scale = _kept(key, weights, rate)
            kept, d_weights = weights * scale, d_weights * scale
        dv = _product(_heads(g, H, dtype, transposed=True), kept.astype(dtype))
        d_scores = weights * (d_weights - mean)
        narrow = d_scores.astype(dtype)
        dq = _product(narrow, _heads(k, H, dtype))
        dk = _product(_heads(q, H, dtype, transposed=True), narrow)
        return bias_gradient + d_scores, (_joined(dq), _joined(dk, transposed=True), _joined(dv, True))

    bias_gradient, (dq, dk, dv) = jax.lax.scan(
        row, jnp.zeros_like(bias), (q, k, v, groups, keys, mixed, saved, gradient)
    )
    return dq, dk, dv, bias_gradient, None, None


attend_by_row.defvjp(_rows_forward, _rows_backward)


def _scores(q: Array, k: Array, bias: Array, groups: SegmentIds, dtype: jnp.dtype) -> Array:
    """One row's, (H, Q, S)."""
    H = bias.shape[0]
    seen = groups.queries[:, None] == groups.keys[None, :]
    return _product(_heads(q, H, dtype), _heads(k, H, dtype, transposed=True)) + (
        bias + mask_bias(seen)[None]
    )


def _kept(key: Array, weights: Array, rate: float) -> Array:
    """1 / (1 - rate) where a weight is kept and 0 where not; the same in both passes."""
    return jax.random.bernoulli(key, 1 - rate, weights.shape).astype(jnp.float32) / (1 - rate)


def _product(a: Array, b: Array) -> Array:
    """One product a head, summed in float32."""
    return jax.lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,))), preferred_element_type=jnp.float32)


def _heads(x: Array, heads: int, dtype: jnp.dtype, transposed: bool = False) -> Array:
    """(S, HK) as (H, S, K), or as (H, K, S); laid out so, for the product that comes next."""
    parted = x.astype(dtype).reshape(x.shape[0], heads, -1)
    return with_row_major_layout(parted.transpose((1, 2, 0) if transposed else (1, 0, 2)))


def _joined(x: Array, transposed: bool = False) -> Array:
    """(H, S, K), or (H, K, S), as (S, HK)."""
    together = x.transpose((2, 0, 1) if transposed else (1, 0, 2))
    return together.reshape(together.shape[0], -1)
