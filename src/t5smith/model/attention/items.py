"""Where the items of packed rows are, so that attention computes nothing outside them.

An item is the room that one window, or a pair of windows, takes in a row. Every item of a kind has the same
size, and the plan of the rows is known before training. So the items of a kind are one array of a fixed
shape, whatever rows they are in.

Shapes: B rows, P items of a row at most, N items of one kind in a batch at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int


@dataclass(frozen=True)
class ItemLayout:
    """The plan of the rows, a constant of the compiled step.

    Attributes:
      sizes: input and target positions of each kind of item.
      cycle: the kinds of the items of each row, in order; the rows of a run repeat this cycle.
    """

    sizes: tuple[tuple[int, int], ...]
    cycle: tuple[tuple[int, ...], ...]

    def most(self, rows: int) -> list[int]:
        """The most items of each kind in that many consecutive rows."""
        per_row = np.array([np.bincount(row, minlength=len(self.sizes)) for row in self.cycle])
        cycles, rest = divmod(rows, len(self.cycle))
        before = np.concatenate([per_row[:0].sum(axis=0)[None], np.tile(per_row, (2, 1)).cumsum(axis=0)])
        spans = before[rest : rest + len(self.cycle)] - before[: len(self.cycle)]
        return (cycles * per_row.sum(axis=0) + spans.max(axis=0)).tolist()

    def longest(self, side: int) -> int:
        """The most input positions (side 0) or target positions (side 1) of an item."""
        return max(size[side] for size in self.sizes)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("row", "query_at", "key_at", "count", "number"),
    meta_fields=("queries", "keys"),
)
@dataclass(frozen=True)
class Places:
    """The items of one kind in a batch, for one sort of attention.

    If several devices divide the rows, each has room for the items of its own rows.

    Attributes:
      row: the row of each item, of those that a device has; from `count` on it is outside of these.
      query_at, key_at: the first query and key position in the row.
      count: the number of items.
      queries, keys: the positions of an item.
      number: of each item among those of its kind in the batch; None on one device, where they are in order.
    """

    row: Int[Array, "*shards N"]
    query_at: Int[Array, "*shards N"]
    key_at: Int[Array, "*shards N"]
    count: Int[Array, "*shards"]
    queries: int
    keys: int
    number: Int[Array, "*shards N"] | None = None


@partial(jax.tree_util.register_dataclass, data_fields=("kinds",), meta_fields=("layout",))
@dataclass(frozen=True)
class Items:
    """The items of consecutive rows of a run.

    Attributes:
      kinds: the kind of each item of a row, in order; -1 behind the last.
      layout: the sizes of the kinds.
    """

    kinds: Int[Array, "B P"]
    layout: ItemLayout

    def places(self, query_side: int, key_side: int) -> tuple[Places, ...]:
        """The places of the items of each kind; a side is 0 for inputs, 1 for targets."""
        B, P = self.kinds.shape
        sizes = jnp.asarray([*self.layout.sizes, (0, 0)], jnp.int32)[self.kinds]
        begin = (jnp.cumsum(sizes, axis=1) - sizes).reshape(B * P, 2)
        found: list[Places] = []
        for kind, most in enumerate(self.layout.most(B)):
            if not most:
                continue
            chosen = self.kinds.reshape(-1) == kind
            count = chosen.sum(dtype=jnp.int32)
            (item,) = jnp.nonzero(chosen, size=most)
            # Different rows, so that no two of the places are equal.
            unused = B + jnp.arange(most, dtype=jnp.int32)
            row = jnp.where(jnp.arange(most) < count, (item // P).astype(jnp.int32), unused)
            size = self.layout.sizes[kind]
            at = begin[item]
            found.append(
                Places(row, at[:, query_side], at[:, key_side], count, size[query_side], size[key_side])
            )
        return tuple(found)

    def places_by_shard(self, query_side: int, key_side: int, shards: int) -> tuple[Places, ...]:
        """The same where the rows are divided into that many parts: the places of each part by itself."""
        B, P = self.kinds.shape

        def part(kinds: Int[Array, "b P"]) -> tuple[Places, ...]:
            return Items(kinds, self.layout).places(query_side, key_side)

        def numbered(places: Places) -> Places:
            before = jnp.cumsum(places.count) - places.count
            order = jnp.arange(places.row.shape[1], dtype=jnp.int32)
            return replace(places, number=before[:, None] + order[None])

        return tuple(map(numbered, jax.vmap(part)(self.kinds.reshape(shards, B // shards, P))))
