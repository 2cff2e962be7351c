"""The plain backend: all rows at once, compiled by XLA.

Shapes: B rows, Q query and S key positions, H heads, K d_kv.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from t5smith.model.dropout import Dropout, drop


def attend(
    q: Float[Array, "B Q H K"],
    k: Float[Array, "B S H K"],
    v: Float[Array, "B S H K"],
    bias: Float[Array, "#B #H #Q S"],
    dtype: jnp.dtype,
    dropout: Dropout | None = None,
) -> Float[Array, "BQ HK"]:
    """Weighted mean of the values, with masked positions in the bias. Decoding uses it on CPU too."""
    scores = jnp.einsum(
        "bqhk,bshk->bhqs", q.astype(dtype), k.astype(dtype), preferred_element_type=jnp.float32
    )
    weights = drop(jax.nn.softmax(scores + bias, axis=-1), dropout, 0)
    mixed = jnp.einsum(
        "bhqs,bshk->bqhk", weights.astype(dtype), v.astype(dtype), preferred_element_type=jnp.float32
    )
    return mixed.reshape(q.shape[0] * q.shape[1], -1)
