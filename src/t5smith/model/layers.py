"""The parts of a block: dense product, norm, feed-forward.

Shapes: N tokens (batch times positions, flattened: on CPU, XLA's backward products of 3-D arrays are far
slower), I and O features in and out, D d_model, F d_ff.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from t5smith.model.dropout import Dropout, drop
from t5smith.model.params import FeedForward


def dense(x: Float[Array, "N I"], w: Float[Array, "I O"], dtype: jnp.dtype) -> Float[Array, "N O"]:
    """`x @ w` with operands in `dtype` and the sum in float32, forward and backward.

    Left to itself the backward pass would multiply a float32 gradient by bfloat16 operands in float32,
    which is slower.
    """
    return cast(Array, _dense(x, w, dtype))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(x: Array, w: Array, dtype: jnp.dtype) -> Array:
    return jnp.matmul(x.astype(dtype), w.astype(dtype), preferred_element_type=jnp.float32)


def _dense_forward(x: Array, w: Array, dtype: jnp.dtype) -> tuple[Array, tuple[Array, Array]]:
    x, w = x.astype(dtype), w.astype(dtype)
    return jnp.matmul(x, w, preferred_element_type=jnp.float32), (x, w)


def _dense_backward(dtype: jnp.dtype, operands: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    return dense_gradients(*operands, g.astype(dtype))


_dense.defvjp(_dense_forward, _dense_backward)


def dense_gradients(
    x: Float[Array, "N I"], w: Float[Array, "I O"], g: Float[Array, "N O"]
) -> tuple[Float[Array, "N I"], Float[Array, "I O"]]:
    """The gradients of `x @ w` to `x` and to `w`, given that of the product; all of one precision."""
    dx = jax.lax.dot_general(g, w, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    # XLA's CPU kernels are slow where both operands are contracted over their first axis.
    across = with_row_major_layout(x.T) if jax.default_backend() == "cpu" else x.T
    return dx, jnp.matmul(across, g, preferred_element_type=jnp.float32)


def with_row_major_layout(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The same array, in memory as its axes say, where XLA would rather have a product transpose it."""
    return cast(Array, with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim)))))


def norm(x: Float[Array, "N D"], scale: Float[Array, " D"], epsilon: float) -> Float[Array, "N D"]:
    """Divide by the root mean square; no mean is taken off and nothing is added (Zhang & Sennrich 2019)."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + epsilon) * scale[None]


def feed_forward(
    x: Float[Array, "N D"], p: FeedForward, dtype: jnp.dtype, dropout: Dropout | None = None
) -> Float[Array, "N D"]:
    """T5 1.1: `(gelu(x wi_0) * (x wi_1)) wo`, gelu in its tanh form (Shazeer 2020). T5 1.0: relu, no gate."""
    h = dense(x, p.wi_0, dtype)
    h = jax.nn.relu(h) if p.wi_1 is None else jax.nn.gelu(h, approximate=True) * dense(x, p.wi_1, dtype)
    return dense(drop(h, dropout, 0), p.wo, dtype)
