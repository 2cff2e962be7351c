"""The backend for CPU where rows are packed: one item at a time, kind by kind, with its own backward pass.

The loop over the items of a kind ends after the last, so the room for more of them costs nothing.

Shapes: B rows, Q query and S key positions of a row, H heads; HK the heads side by side; N items of one kind
at most, q and s their positions; L positions of the longest item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from t5smith.model.attention.cpu import as_bits, attend_alone, gradients_alone
from t5smith.model.attention.items import Places
from t5smith.model.attention.masks import SegmentIds


def attend_by_item(
    q: Float[Array, "B Q HK"],
    k: Float[Array, "B S HK"],
    v: Float[Array, "B S HK"],
    bias: Float[Array, "H LQ LS"],
    segment_ids: SegmentIds,
    key: Key[Array, ""] | None,
    dtype: jnp.dtype,
    dropout_rate: float,
) -> Float[Array, "B Q HK"]:
    """Weighted mean of the values; 0 outside the items.

    Each item has a dropout key of its own, derived from `key`; None for no dropout.
    """
    # As plain arrays: JAX fills the structure of what has no gradient with objects that are no arrays.
    numbers, structure = jax.tree.flatten(segment_ids)
    return cast(Array, _attend(q, k, v, bias, tuple(numbers), key, structure, dtype, dropout_rate))


@partial(jax.custom_vjp, nondiff_argnums=(6, 7, 8))
def _attend(
    q: Float[Array, "B Q HK"],
    k: Float[Array, "B S HK"],
    v: Float[Array, "B S HK"],
    bias: Float[Array, "H LQ LS"],
    numbers: tuple[Array, ...],
    key: Key[Array, ""] | None,
    structure: Any,
    dtype: jnp.dtype,
    dropout_rate: float,
) -> Float[Array, "B Q HK"]:
    return _forward(q, k, v, bias, numbers, key, structure, dtype, dropout_rate)[0]


def _forward(
    q: Float[Array, "B Q HK"],
    k: Float[Array, "B S HK"],
    v: Float[Array, "B S HK"],
    bias: Float[Array, "H LQ LS"],
    numbers: tuple[Array, ...],
    key: Key[Array, ""] | None,
    structure: Any,
    dtype: jnp.dtype,
    dropout_rate: float,
) -> tuple[Float[Array, "B Q HK"], tuple[Any, ...]]:
    segment_ids: SegmentIds = jax.tree.unflatten(structure, numbers)
    mixed = jnp.zeros(q.shape, jnp.float32)
    q, k, v = (as_bits(x.astype(dtype)) for x in (q, k, v))
    saved: list[Any] = []
    for kind in _kinds(segment_ids, bias, key):
        mixed, room = kind.attended(mixed, (q, k, v), dtype, dropout_rate)
        saved.append(room)
    return mixed, (q, k, v, as_bits(mixed.astype(dtype)), bias, numbers, key, saved)


def _backward(
    structure: Any,
    dtype: jnp.dtype,
    dropout_rate: float,
    residuals: tuple[Any, ...],
    gradient: Float[Array, "B Q HK"],
) -> tuple[Any, ...]:
    q, k, v, mixed, bias, numbers, key, saved = residuals
    segment_ids: SegmentIds = jax.tree.unflatten(structure, numbers)
    gradients = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
    d_bias = jnp.zeros_like(bias)
    for kind, room in zip(_kinds(segment_ids, bias, key), saved, strict=True):
        operands = (q, k, v, mixed), room, gradient
        d_item, gradients = kind.with_gradients(gradients, *operands, dtype, dropout_rate)
        d_bias = d_bias.at[:, : d_item.shape[1], : d_item.shape[2]].add(d_item)
    return *gradients, d_bias, None, None


_attend.defvjp(_forward, _backward)


@dataclass(frozen=True)
class _Kind:
    """All items of one kind.

    Attributes:
      places: where they are.
      bias: of one item.
      segment_ids: of the rows.
      keys: a dropout key for each; None for no dropout.
    """

    places: Places
    bias: Float[Array, "H q s"]
    segment_ids: SegmentIds
    keys: Key[Array, " N"] | None

    def attended(
        self, mixed: Float[Array, "B Q HK"], operands: Sequence[Array], dtype: jnp.dtype, rate: float
    ) -> tuple[Float[Array, "B Q HK"], Any]:
        """`mixed` with the results of these items in place, and what their backward passes need."""

        def item(i: Int[Array, ""]) -> tuple[Array, Any]:
            q, k, v = operands
            parts = self.queries(q, i), self.memory(k, i), self.memory(v, i)
            return attend_alone(parts, self.bias, self.ids(i), self.key(i), dtype, rate)

        def step(i: Int[Array, ""], carry: tuple[Array, Any]) -> tuple[Array, Any]:
            mixed, room = carry
            out, keep = item(i)
            room = jax.tree.map(lambda of_all, of_one: of_all.at[i].set(of_one), room, keep)
            return _written(mixed, out, self.places.row[i], self.places.query_at[i]), room

        keep = jax.eval_shape(item, jax.ShapeDtypeStruct((), jnp.int32))[1]
        N = len(self.places.row)
        room = jax.tree.map(lambda of_one: jnp.zeros((N, *of_one.shape), of_one.dtype), keep)
        return jax.lax.fori_loop(0, self.places.count, step, (mixed, room))

    def with_gradients(
        self,
        gradients: tuple[Array, ...],
        operands: Sequence[Array],
        room: Any,
        gradient: Float[Array, "B Q HK"],
        dtype: jnp.dtype,
        rate: float,
    ) -> tuple[Float[Array, "H q s"], tuple[Array, ...]]:
        """The gradient to the bias, and the gradients to q, k and v with those of these items in place."""
        q, k, v, mixed = operands

        def step(i: Int[Array, ""], carry: tuple[Array, tuple[Array, ...]]) -> Any:
            d_bias, (dq, dk, dv) = carry
            parts = self.queries(q, i), self.memory(k, i), self.memory(v, i), self.queries(mixed, i)
            keep, g = jax.tree.map(lambda of_all: of_all[i], room), self.queries(gradient, i)
            d_scores, (q_part, k_part, v_part) = gradients_alone(
                parts, self.bias, self.ids(i), self.key(i), keep, g, dtype, rate
            )
            row, at = self.places.row[i], self.places.key_at[i]
            dq = _written(dq, q_part, row, self.places.query_at[i])
            return d_bias + d_scores, (dq, _written(dk, k_part, row, at), _written(dv, v_part, row, at))

        start = jnp.zeros_like(self.bias), gradients
        return jax.lax.fori_loop(0, self.places.count, step, start)

    def queries(self, x: Shaped[Array, "B Q HK"], i: Int[Array, ""]) -> Shaped[Array, "q HK"]:
        """The query positions of an item."""
        start = self.places.row[i], self.places.query_at[i], jnp.int32(0)
        return jax.lax.dynamic_slice(x, start, (1, self.places.queries, x.shape[2]))[0]

    def memory(self, x: Shaped[Array, "B S HK"], i: Int[Array, ""]) -> Shaped[Array, "s HK"]:
        """The key positions of an item."""
        start = self.places.row[i], self.places.key_at[i], jnp.int32(0)
        return jax.lax.dynamic_slice(x, start, (1, self.places.keys, x.shape[2]))[0]

    def ids(self, i: Int[Array, ""]) -> SegmentIds:
        """The segment ids of an item."""
        queries, keys = self.segment_ids.queries[..., None], self.segment_ids.keys[..., None]
        return SegmentIds(self.queries(queries, i)[:, 0], self.memory(keys, i)[:, 0])

    def key(self, i: Int[Array, ""]) -> Key[Array, ""] | None:
        """The dropout key of an item."""
        return None if self.keys is None else self.keys[i]


def _kinds(segment_ids: SegmentIds, bias: Float[Array, "H LQ LS"], key: Key[Array, ""] | None) -> list[_Kind]:
    """The kinds of items in the rows."""
    assert segment_ids.places is not None
    kinds: list[_Kind] = []
    for number, places in enumerate(segment_ids.places):
        keys = None if key is None else jax.random.split(jax.random.fold_in(key, number), len(places.row))
        kinds.append(_Kind(places, bias[:, : places.queries, : places.keys], segment_ids, keys))
    return kinds


def _written(
    x: Float[Array, "B Q HK"], part: Float[Array, "q HK"], row: Int[Array, ""], at: Int[Array, ""]
) -> Float[Array, "B Q HK"]:
    """The array with an item's part in place."""
    return jax.lax.dynamic_update_slice(x, part[None], (row, at, jnp.int32(0)))
