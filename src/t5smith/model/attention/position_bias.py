"""T5's relative position bias (Raffel et al. 2020, section 2.1).

Shapes: Q query and S key positions, H heads, N position buckets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import numpy as np
from jaxtyping import Array, Float, Int


def relative_position_bucket(
    relative_position: Int[np.ndarray, "*shape"], *, bidirectional: bool, num_buckets: int, max_distance: int
) -> Int[np.ndarray, "*shape"]:
    """The bucket of each relative position (key minus query, in tokens), as in Mesh TensorFlow's T5.

    Half of the buckets are for single distances, the other half grow logarithmically up to `max_distance`;
    all larger distances share the last. Bidirectional: half of all buckets are for each side. Otherwise keys
    after the query share bucket 0 with the query's own position.

    The logarithm is computed as in T5X, in float32 plus its epsilon: at exact powers the bucket depends on
    the last bit.
    """
    offset = np.zeros_like(relative_position)
    distance = -relative_position
    if bidirectional:
        num_buckets //= 2
        offset = np.where(distance < 0, num_buckets, 0)
        distance = np.abs(distance)
    else:
        distance = np.maximum(distance, 0)
    exact = num_buckets // 2
    ratio = distance.astype(np.float32) / np.float32(exact) + np.finfo(np.float32).eps
    scale = np.float32((num_buckets - exact) / math.log(max_distance / exact))
    far = exact + (np.log(ratio) * scale).astype(np.int32)
    return offset + np.where(distance < exact, distance, np.minimum(far, num_buckets - 1))


def position_bias(
    table: Float[Array, "N H"],
    queries: int,
    keys: int,
    *,
    bidirectional: bool,
    max_distance: int,
) -> Float[Array, "H Q S"]:
    """The bias added to the attention scores of all layers that share the table."""
    distance = np.arange(keys)[None, :] - np.arange(queries)[:, None]
    bucket = relative_position_bucket(
        distance, bidirectional=bidirectional, num_buckets=table.shape[0], max_distance=max_distance
    )
    return table[bucket].transpose(2, 0, 1)


def shared_or_own(
    shared: Float[Array, "N H"] | None, bias: Callable[[Array], Array]
) -> Callable[[Float[Array, "N H"] | None], Array]:
    """The bias of each layer, given its own table or None: a shared one is computed once, for all layers."""
    if shared is None:
        return lambda own: bias(cast(Array, own))
    once = bias(shared)
    return lambda _: once
