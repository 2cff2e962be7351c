"""Which keys a query sees, by segment ids: no array of (batch, heads, queries, keys) is needed.

Shapes: B rows, Q query and S key positions.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from t5smith.model.attention.items import Places

MASKED = -1e9
"""Added to the scores of masked positions; finite, so that a query that sees no key does not give NaN."""


class SegmentIds(NamedTuple):
    """A query sees the keys with its own segment id.

    Attributes:
      queries: one id per row, or one per position.
      keys: one id per position.
      places: where the items of packed rows are, by kind. If they are given, the scores outside the items are
        not computed, and the bias is that of an item: it has the positions of the longest one.
    """

    queries: Int[Array, "*B #Q"]
    keys: Int[Array, "*B S"]
    places: tuple[Places, ...] | None = None


def mask_bias(mask: Bool[Array, ...]) -> Float[Array, ...]:
    """0 where the mask is True (seen), else a large negative number."""
    return jnp.where(mask, jnp.float32(0), jnp.float32(MASKED))


def causal(length: int) -> Bool[np.ndarray, "1 Q S"]:
    """The causal mask: a position sees itself and those before it."""
    return np.tril(np.ones((length, length), bool))[None]
