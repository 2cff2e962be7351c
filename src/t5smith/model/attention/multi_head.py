"""Multi-head attention (Vaswani et al. 2017), with a backend for CPU and one for other devices.

Shapes: B batch, Q query and S key positions, H heads, K d_kv, D d_model; LQ and LS are Q and S, or for packed
rows the positions of the longest item.
"""

from __future__ import annotations

from typing import cast

import jax
from jaxtyping import Array, Float

from t5smith.model.attention.cpu import attend_by_row
from t5smith.model.attention.cpu_items import attend_by_item
from t5smith.model.attention.masks import SegmentIds, mask_bias
from t5smith.model.attention.xla import attend, attend_items
from t5smith.model.compute import Compute
from t5smith.model.dropout import Dropout
from t5smith.model.layers import dense
from t5smith.model.params import Attention


def attention(
    x: Float[Array, "BQ D"],
    memory: Float[Array, "BS D"],
    p: Attention,
    bias: Float[Array, "H LQ LS"],
    segment_ids: SegmentIds,
    compute: Compute,
    dropout: Dropout | None = None,
) -> Float[Array, "BQ D"]:
    """Multi-head attention from `x` to `memory`; for self-attention pass `x` twice."""
    B = segment_ids.keys.shape[0]
    q = dense(x, p.q, compute).reshape(B, x.shape[0] // B, -1)
    k = dense(memory, p.k, compute).reshape(B, memory.shape[0] // B, -1)
    v = dense(memory, p.v, compute).reshape(B, memory.shape[0] // B, -1)
    mixed = dot_product_attention(q, k, v, bias, segment_ids, compute, dropout)
    return dense(mixed.reshape(x.shape[0], -1), p.o, compute)


def dot_product_attention(
    q: Float[Array, "B Q HK"],
    k: Float[Array, "B S HK"],
    v: Float[Array, "B S HK"],
    bias: Float[Array, "H LQ LS"],
    segment_ids: SegmentIds,
    compute: Compute,
    dropout: Dropout | None = None,
) -> Float[Array, "B Q HK"]:
    """Weighted mean of the values. There is no 1/sqrt(K): as in T5, it is in the initial values of q."""
    places = segment_ids.places
    if places is not None and not compute.is_cpu:
        return attend_items(q, k, v, bias, segment_ids, compute, dropout)
    if places is not None:
        key, rate = (None, 0.0) if dropout is None else (dropout.key, dropout.rate)
        return attend_by_item(q, k, v, bias, segment_ids, key, compute.dtype, rate)
    if dropout is not None:
        dropout = Dropout(jax.random.split(dropout.key, q.shape[0]), dropout.rate)
    if compute.is_cpu:
        keys, rate = (None, 0.0) if dropout is None else (dropout.key, dropout.rate)
        return cast(Array, attend_by_row(q, k, v, bias, segment_ids, keys, compute.dtype, rate))
    heads = [x.reshape(*x.shape[:2], bias.shape[0], -1) for x in (q, k, v)]
    seen = segment_ids.queries[:, None, :, None] == segment_ids.keys[:, None, None, :]
    bias = bias[None] + mask_bias(seen)
    return attend(heads[0], heads[1], heads[2], bias, compute, dropout).reshape(q.shape)


def split_heads(x: Float[Array, "BS HK"], batch: int, heads: int) -> Float[Array, "B S H K"]:
    """Split tokens into batch and positions, and features into heads."""
    return x.reshape(batch, x.shape[0] // batch, heads, x.shape[1] // heads)
