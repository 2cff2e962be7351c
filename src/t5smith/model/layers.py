"""The parts of a layer: dense product, norm, feed-forward.

Shapes: N tokens (batch and positions flattened, because on CPU XLA's backward products of 3-D arrays are far
slower), I and O input and output features, D d_model, F d_ff.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from t5smith.model.compute import Compute
from t5smith.model.dropout import Dropout, drop
from t5smith.model.params import FeedForward


def dense(x: Float[Array, "N I"], w: Float[Array, "I O"], compute: Compute) -> Float[Array, "N O"]:
    """`x @ w` with operands in `dtype` and sums in float32, forward and backward.

    By default JAX would multiply the float32 gradient by the bfloat16 operands in float32, which is slower.
    """
    return cast(Array, _dense(x, w, compute))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(x: Float[Array, "N I"], w: Float[Array, "I O"], compute: Compute) -> Float[Array, "N O"]:
    return _dense_forward(x, w, compute)[0]


def _dense_forward(
    x: Float[Array, "N I"], w: Float[Array, "I O"], compute: Compute
) -> tuple[Float[Array, "N O"], tuple[Array, Array]]:
    x, w = x.astype(compute.dtype), w.astype(compute.dtype)
    return product(x, w, compute), (x, w)


def _dense_backward(
    compute: Compute, operands: tuple[Array, Array], g: Float[Array, "N O"]
) -> tuple[Float[Array, "N I"], Float[Array, "I O"]]:
    return dense_gradients(*operands, g.astype(compute.dtype), compute)


_dense.defvjp(_dense_forward, _dense_backward)


def dense_gradients(
    x: Float[Array, "N I"], w: Float[Array, "I O"], g: Float[Array, "N O"], compute: Compute
) -> tuple[Float[Array, "N I"], Float[Array, "I O"]]:
    """Gradients to `x` and `w` of `x @ w`, from the gradient g of the product; operands of one precision."""
    dx = jax.lax.dot_general(
        g,
        w,
        (((1,), (1,)), ((), ())),
        precision=compute.precision,
        preferred_element_type=jnp.float32,
    )
    # XLA's CPU kernels are slow where both operands are contracted over their first axis.
    return dx, product(with_row_major_layout(x.T) if compute.is_cpu else x.T, g, compute)


def product(a: Float[Array, "N I"], b: Float[Array, "I O"], compute: Compute) -> Float[Array, "N O"]:
    """`a @ b` with sums in float32, of operands that are cast already."""
    return jnp.matmul(a, b, precision=compute.precision, preferred_element_type=jnp.float32)


def with_row_major_layout(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The array with its axes in this order in memory, where XLA on CPU would let a product transpose it."""
    return cast(Array, with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim)))))


def kept_for_backward(arrays: Any) -> Any:
    """What the backward pass gets of the forward pass.

    Behind the barrier XLA does not see that these are the same values. It would otherwise keep larger ones of
    the forward pass, which it could compute these from, or computed from them.
    """
    return jax.lax.optimization_barrier(arrays)


def norm(x: Float[Array, "N D"], scale: Float[Array, " D"], epsilon: float) -> Float[Array, "N D"]:
    """RMSNorm (Zhang & Sennrich 2019): scale by the root mean square, without mean or bias.

    For the backward pass only `x` and one factor per token are kept.
    """
    return cast(Array, _norm(x, scale, epsilon))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _norm(x: Float[Array, "N D"], scale: Float[Array, " D"], epsilon: float) -> Float[Array, "N D"]:
    return _norm_forward(x, scale, epsilon)[0]


def _norm_forward(
    x: Float[Array, "N D"], scale: Float[Array, " D"], epsilon: float
) -> tuple[Float[Array, "N D"], tuple[Array, Array, Array]]:
    factor = jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + epsilon)
    return x * factor * scale[None], kept_for_backward((x, factor, scale))


def _norm_backward(
    epsilon: float, residuals: tuple[Array, Array, Array], g: Float[Array, "N D"]
) -> tuple[Float[Array, "N D"], Float[Array, " D"]]:
    x, factor, scale = residuals
    normal, g_normal = x * factor, g * scale[None]
    mean = jnp.mean(g_normal * normal, axis=-1, keepdims=True)
    return factor * (g_normal - normal * mean), (g * normal).sum(axis=0)


_norm.defvjp(_norm_forward, _norm_backward)


def feed_forward(
    x: Float[Array, "N D"], p: FeedForward, compute: Compute, dropout: Dropout | None = None
) -> Float[Array, "N D"]:
    """T5 1.1: `(gelu(x wi_0) * (x wi_1)) wo` with tanh GELU (Shazeer 2020). T5 1.0: `relu(x wi_0) wo`."""
    h = dense(x, p.wi_0, compute)
    h = jax.nn.relu(h) if p.wi_1 is None else cast(Array, _gated(h, dense(x, p.wi_1, compute)))
    return dense(drop(h, dropout, 0), p.wo, compute)


@jax.custom_vjp
def _gated(a: Float[Array, "N F"], b: Float[Array, "N F"]) -> Float[Array, "N F"]:
    """`gelu(a) * b`. For the backward pass a and b are kept, and nothing between."""
    return jax.nn.gelu(a, approximate=True) * b


def _gated_forward(
    a: Float[Array, "N F"], b: Float[Array, "N F"]
) -> tuple[Float[Array, "N F"], tuple[Array, Array]]:
    return _gated(a, b), kept_for_backward((a, b))


def _gated_backward(
    kept: tuple[Array, Array], g: Float[Array, "N F"]
) -> tuple[Float[Array, "N F"], Float[Array, "N F"]]:
    a, b = kept
    # The tanh GELU is a * share, with share = (1 + tanh(u)) / 2 and u = c (a + 0.044715 a^3).
    c, cube = (2 / math.pi) ** 0.5, 0.044715
    square = a * a
    tanh = jnp.tanh(c * a * (1.0 + cube * square))
    share = 0.5 * (1.0 + tanh)
    slope = share + 0.5 * c * a * (1.0 - tanh * tanh) * (1.0 + 3 * cube * square)
    return g * b * slope, g * a * share


_gated.defvjp(_gated_forward, _gated_backward)
