"""The parts of a layer: dense product, norm, feed-forward.

Shapes: N tokens (batch and positions flattened, because on CPU XLA's backward products of 3-D arrays are far
slower), I and O input and output features, D d_model, F d_ff.
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
    """`x @ w` with operands in `dtype` and sums in float32, forward and backward.

    By default JAX would multiply the float32 gradient by the bfloat16 operands in float32, which is slower.
    """
    return cast(Array, _dense(x, w, dtype))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(x: Float[Array, "N I"], w: Float[Array, "I O"], dtype: jnp.dtype) -> Float[Array, "N O"]:
    return jnp.matmul(x.astype(dtype), w.astype(dtype), preferred_element_type=jnp.float32)


def _dense_forward(
    x: Float[Array, "N I"], w: Float[Array, "I O"], dtype: jnp.dtype
) -> tuple[Float[Array, "N O"], tuple[Array, Array]]:
    x, w = x.astype(dtype), w.astype(dtype)
    return jnp.matmul(x, w, preferred_element_type=jnp.float32), (x, w)


def _dense_backward(
    dtype: jnp.dtype, operands: tuple[Array, Array], g: Float[Array, "N O"]
) -> tuple[Float[Array, "N I"], Float[Array, "I O"]]:
    return dense_gradients(*operands, g.astype(dtype))


_dense.defvjp(_dense_forward, _dense_backward)


def dense_gradients(
    x: Float[Array, "N I"], w: Float[Array, "I O"], g: Float[Array, "N O"]
) -> tuple[Float[Array, "N I"], Float[Array, "I O"]]:
    """Gradients to `x` and `w` of `x @ w`, from the gradient g of the product; operands of one precision."""
    dx = jax.lax.dot_general(g, w, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    # XLA's CPU kernels are slow where both operands are contracted over their first axis.
    x_transposed = with_row_major_layout(x.T) if jax.default_backend() == "cpu" else x.T
    return dx, jnp.matmul(x_transposed, g, preferred_element_type=jnp.float32)


def with_row_major_layout(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The array with its axes in this order in memory, where XLA would let the next product transpose it."""
    return cast(Array, with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim)))))


def norm(x: Float[Array, "N D"], scale: Float[Array, " D"], epsilon: float) -> Float[Array, "N D"]:
    """RMSNorm (Zhang & Sennrich 2019): scale by the root mean square, without mean or bias."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + epsilon) * scale[None]


def feed_forward(
    x: Float[Array, "N D"], p: FeedForward, dtype: jnp.dtype, dropout: Dropout | None = None
) -> Float[Array, "N D"]:
    """T5 1.1: `(gelu(x wi_0) * (x wi_1)) wo` with tanh GELU (Shazeer 2020). T5 1.0: `relu(x wi_0) wo`."""
    h = dense(x, p.wi_0, dtype)
    h = jax.nn.relu(h) if p.wi_1 is None else jax.nn.gelu(h, approximate=True) * dense(x, p.wi_1, dtype)
    return dense(drop(h, dropout, 0), p.wo, dtype)
