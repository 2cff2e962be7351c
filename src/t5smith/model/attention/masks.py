"""Which keys a query sees, by segment ids: no array of (batch, heads, queries, keys) is needed.

Shapes: B rows, Q query and S key positions.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

MASKED = -1e9
"""Added to the scores of masked positions; finite, so that a query that sees no key does not give NaN."""


class SegmentIds(NamedTuple):
    """A query sees the keys with its own segment id.

    Attributes:
      queries: one id per row, or one per position.
      keys: one id per position.
    """

    queries: Int[Array, "*B #Q"]
    keys: Int[Array, "*B S"]


def mask_bias(mask: Bool[Array, ...]) -> Float[Array, ...]:
    """0 where the mask is True (seen), else a large negative number."""
    return jnp.where(mask, jnp.float32(0), jnp.float32(MASKED))


def causal(length: int) -> Bool[np.ndarray, "1 Q S"]:
    """The causal mask: a position sees itself and those before it."""
    return np.tril(np.ones((length, length), bool))[None]
