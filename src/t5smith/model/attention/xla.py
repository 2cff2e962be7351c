"""The plain backend: all rows, or all items of a kind, at once, compiled by XLA.

Shapes: B rows, Q query and S key positions, H heads, K d_kv, HK the heads side by side; N items of one kind
at most, q and s their positions; LQ and LS those of the longest item.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from t5smith.model.attention.items import Places
from t5smith.model.attention.masks import SegmentIds, mask_bias
from t5smith.model.compute import Compute
from t5smith.model.dropout import Dropout


def attend(
    q: Float[Array, "B Q H K"],
    k: Float[Array, "B S H K"],
    v: Float[Array, "B S H K"],
    bias: Float[Array, "#B #H #Q S"],
    compute: Compute,
    dropout: Dropout | None = None,
) -> Float[Array, "BQ HK"]:
    """Weighted mean of the values, with masked positions in the bias. Decoding uses it on CPU too.

    Dropout has a key for each row, as on CPU, so that what is dropped depends on no device.
    """
    scores = contract("bqhk,bshk->bhqs", q, k, compute)
    weights = _dropped(jax.nn.softmax(scores + bias, axis=-1), dropout)
    mixed = contract("bhqs,bshk->bqhk", weights, v, compute)
    return mixed.reshape(q.shape[0] * q.shape[1], -1)


def _dropped(weights: Float[Array, "B H Q S"], dropout: Dropout | None) -> Float[Array, "B H Q S"]:
    return weights if dropout is None else jax.vmap(Dropout.__call__)(dropout, weights)


def contract(
    equation: str, a: Float[Array, "*a"], b: Float[Array, "*b"], compute: Compute
) -> Float[Array, "*c"]:
    """Einstein's sum of two arrays with operands in one precision and sums in float32, in both passes.

    By default JAX would compute the backward products with one operand in float32.

    Args:
      equation: as of `jnp.einsum`, where each letter is in two of the three arrays at least.
      a: one operand.
      b: the other.
      compute: precision of the operands.
    """
    return cast(Array, _contract(equation, a, b, compute))


@partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _contract(
    equation: str, a: Float[Array, "*a"], b: Float[Array, "*b"], compute: Compute
) -> Float[Array, "*c"]:
    return _contract_forward(equation, a, b, compute)[0]


def _contract_forward(
    equation: str, a: Float[Array, "*a"], b: Float[Array, "*b"], compute: Compute
) -> tuple[Float[Array, "*c"], tuple[Array, Array]]:
    a, b = a.astype(compute.dtype), b.astype(compute.dtype)
    made = jnp.einsum(equation, a, b, precision=compute.precision, preferred_element_type=jnp.float32)
    return made, (a, b)


def _contract_backward(
    equation: str, compute: Compute, operands: tuple[Array, Array], g: Float[Array, "*c"]
) -> tuple[Float[Array, "*a"], Float[Array, "*b"]]:
    (of_a, of_b), of_c = equation.split("->")[0].split(","), equation.split("->")[1]
    a, b = operands
    da, _ = _contract_forward(f"{of_c},{of_b}->{of_a}", g, b, compute)
    db, _ = _contract_forward(f"{of_c},{of_a}->{of_b}", g, a, compute)
    return da, db


_contract.defvjp(_contract_forward, _contract_backward)


def attend_items(
    q: Float[Array, "B Q HK"],
    k: Float[Array, "B S HK"],
    v: Float[Array, "B S HK"],
    bias: Float[Array, "H LQ LS"],
    segment_ids: SegmentIds,
    compute: Compute,
    dropout: Dropout | None = None,
) -> Float[Array, "B Q HK"]:
    """The same for the items of packed rows, kind by kind; 0 outside the items.

    Each item has a dropout key of its own. On a mesh, each part of the rows finds its items by itself: their
    places do not cross devices.
    """
    assert segment_ids.places is not None
    keys = [_item_keys(dropout, number, places) for number, places in enumerate(segment_ids.places)]
    rate = 0.0 if dropout is None else dropout.rate

    def part(q: Any, k: Any, v: Any, segment_ids: SegmentIds, keys: Any) -> Array:
        return _attend_items(q, k, v, bias, segment_ids, compute, keys, rate)

    if compute.mesh is None:
        return part(q, k, v, segment_ids, keys)
    shards = compute.row_shards

    def by_shard(x: Shaped[Array, "*rows"]) -> Shaped[Array, "*shards"]:
        return compute.by_rows(x.reshape(shards, -1, *x.shape[1:]))

    ids = SegmentIds(by_shard(segment_ids.queries), by_shard(segment_ids.keys), segment_ids.places)
    return compute.by_rows(jax.vmap(part)(by_shard(q), by_shard(k), by_shard(v), ids, keys).reshape(q.shape))


def _item_keys(dropout: Dropout | None, kind: int, places: Places) -> Key[Array, "*shards N"] | None:
    """A dropout key for each item of a kind, by its number in the batch; None for no dropout."""
    if dropout is None:
        return None
    keys = jax.random.split(jax.random.fold_in(dropout.key, kind), places.row.size)
    return keys if places.number is None else keys[places.number]


def _attend_items(
    q: Float[Array, "B Q HK"],
    k: Float[Array, "B S HK"],
    v: Float[Array, "B S HK"],
    bias: Float[Array, "H LQ LS"],
    segment_ids: SegmentIds,
    compute: Compute,
    item_keys: list[Any],
    rate: float,
) -> Float[Array, "B Q HK"]:
    """:func:`attend_items` for rows that one device has."""
    assert segment_ids.places is not None
    H, mixed = bias.shape[0], jnp.zeros(q.shape, jnp.float32)
    for places, keys in zip(segment_ids.places, item_keys, strict=True):
        N = len(places.row)
        to_queries = places.row[:, None], places.query_at[:, None] + jnp.arange(places.queries)[None]
        to_keys = places.row[:, None], places.key_at[:, None] + jnp.arange(places.keys)[None]
        heads = [
            _taken(x, to).reshape(N, to[1].shape[1], H, -1)
            for x, to in ((q, to_queries), (k, to_keys), (v, to_keys))
        ]
        ids = _taken(segment_ids.queries, to_queries), _taken(segment_ids.keys, to_keys)
        seen = ids[0][:, None, :, None] == ids[1][:, None, None, :]
        item_bias = bias[None, :, : places.queries, : places.keys] + mask_bias(seen)
        dropout = None if keys is None else Dropout(keys, rate)
        out = attend(heads[0], heads[1], heads[2], item_bias, compute, dropout)
        out = out.reshape(N, places.queries, -1)
        mixed = mixed.at[to_queries].set(out, mode="drop", unique_indices=True)
    return mixed


def _taken(
    x: Shaped[Array, "B Q *HK"], to: tuple[Int[Array, "N 1"], Int[Array, "N q"]]
) -> Shaped[Array, "N q *HK"]:
    """The positions of items; 0 for those that are not in the batch."""
    return x.at[to].get(mode="fill", fill_value=0, unique_indices=True)
