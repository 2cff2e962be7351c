"""Which keys a query sees, as numbers: no mask of batch x heads x queries x keys is made.

Shapes: B rows, Q query and S key positions.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

MASKED = -1e9
"""Added to the scores of positions that may not be seen; finite, so that a row without any is not NaN."""


class SegmentIds(NamedTuple):
    """Which keys a query may see: those of its own number.

    Attributes:
      queries: one number a row, or one a position. keys: one a position.
    """

    queries: Int[Array, "*B #Q"]
    keys: Int[Array, "*B S"]


def mask_bias(mask: Bool[Array, ...]) -> Float[Array, ...]:
    """0 where a position may be seen, a large negative number where not."""
    return jnp.where(mask, jnp.float32(0), jnp.float32(MASKED))


def causal(length: int) -> Bool[np.ndarray, "1 Q S"]:
    """What each decoder position may see: itself and what stands before it."""
    return np.tril(np.ones((length, length), bool))[None]
