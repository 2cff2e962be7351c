"""Muon: momentum, made orthogonal (Jordan et al. 2024), for stacked matrices of layers.

Shapes: L layers, M and N rows and columns of a layer's matrix; G matrices are made orthogonal at once, of R
rows and C columns, R <= C.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from optax.contrib import MuonState

from t5smith.model.compute import Backend
from t5smith.model.layers import with_row_major_layout

MOMENTUM = 0.95
ITERATED_IN = jnp.bfloat16
"""Of the operands of the iterations; the sums are float32."""
COEFFICIENTS = (
    (7.913078, -21.138174, 14.198892),
    (3.759868, -2.548231, 0.442069),
    (3.132172, -2.145708, 0.403998),
    (2.211970, -1.487165, 0.346380),
)
"""Of the polynomials a x + b x^3 + c x^5, one per iteration. Each is closest to 1, in the maximum norm, on
the interval that those before map [0.005, 1] to (Amsel et al. 2025). The interval is extended at its upper
end by 5 %, because singular values above it grow without limit, and rounding may take them there."""
ELEMENTS_AT_ONCE: dict[Backend, int] = {"cpu_rows": 1 << 19}
"""Elements of the matrices that are iterated on together, so that they stay in the cache. Default: all."""


def muon(num_heads: int, backend: Backend) -> optax.GradientTransformationExtraArgs:
    """Nesterov momentum, made orthogonal, with an RMS of about 1, for a tree of (L, M, N) stacks.

    The matrices of attention are made orthogonal head by head, which takes far smaller products. The state is
    that of optax's Muon, mapped over layers, so that checkpoints of earlier versions can be restored; the
    coefficients in it are not used.
    """

    def init(params: Any) -> MuonState:
        layers = len(jax.tree.leaves(params)[0])
        mu = jax.tree.map(jnp.zeros_like, params)
        return MuonState(jnp.zeros((layers,), jnp.int32), mu, jnp.zeros((layers, 3), jnp.float32))

    def update(updates: Any, state: Any, params: Any = None, *, applied: Array) -> tuple[Any, MuonState]:
        count = state.count[0] + 1
        mu = jax.tree.map(
            lambda old, gradient: jnp.where(applied, MOMENTUM * old + (1 - MOMENTUM) * gradient, old),
            state.mu,
            updates,
        )
        of_mu = MOMENTUM / (1 - MOMENTUM ** (count + 1))
        of_gradient = (1 - MOMENTUM) / (1 - MOMENTUM**count)

        def direction(path: Any, mu: Array, gradient: Array) -> Array:
            heads, heads_in_rows = _heads(path, num_heads)
            nesterov = (of_mu * mu + of_gradient * gradient).astype(ITERATED_IN)
            return orthogonal(nesterov, heads, backend, heads_in_rows=heads_in_rows)

        directions = jax.tree_util.tree_map_with_path(direction, mu, updates)
        counts = jnp.where(applied, state.count + 1, state.count)
        return directions, MuonState(counts, mu, state.ns_coeffs)

    return optax.GradientTransformationExtraArgs(cast(Any, init), cast(Any, update))


def _heads(path: Any, num_heads: int) -> tuple[int, bool]:
    """The number of matrices that the one at a path is made of, and whether they are below each other."""
    *_, block, name = (key.name for key in path)
    return num_heads if block.endswith("attention") else 1, name == "o"


def muon_flops(parameters: Any, num_heads: int) -> int:
    """Operations of the products in an update of all stacks in a tree of parameters, or of their shapes."""
    flops = 0
    for path, stack in jax.tree_util.tree_leaves_with_path(parameters):
        if stack.ndim != 3:
            continue
        heads, heads_in_rows = _heads(path, num_heads)
        L, M, N = stack.shape
        R, C = sorted((M // heads, N) if heads_in_rows else (M, N // heads))
        # Per iteration: the Gram matrix, its square, and the product with the matrix.
        flops += L * heads * len(COEFFICIENTS) * 2 * (2 * R * R * C + R**3)
    return flops


def orthogonal(
    x: Float[Array, "L M N"], heads: int, backend: Backend, *, heads_in_rows: bool = True
) -> Float[Array, "L M N"]:
    """The orthogonal factors of matrices, nearly, with a root mean square of about 1.

    Args:
      x: the matrices of all layers.
      heads: the number of matrices that each is made of.
      backend: the programs for this device.
      heads_in_rows: whether these are below each other, or side by side.
    """
    one_layer = partial(_orthogonal_layer, heads=heads, heads_in_rows=heads_in_rows)
    at_once = ELEMENTS_AT_ONCE.get(backend)
    if at_once is None:
        return jax.vmap(one_layer)(x)
    return cast(Array, jax.lax.map(one_layer, x, batch_size=max(1, at_once // x[0].size)))


def _orthogonal_layer(x: Float[Array, "M N"], heads: int, heads_in_rows: bool) -> Float[Array, "M N"]:
    """The same for one layer."""
    M, N = x.shape
    if heads_in_rows:
        return newton_schulz(x.reshape(heads, -1, N)).reshape(M, N)
    parts = newton_schulz(jnp.swapaxes(x.reshape(M, heads, -1), 0, 1))
    return jnp.swapaxes(parts, 0, 1).reshape(M, N)


def newton_schulz(x: Float[Array, "G M N"]) -> Float[Array, "G M N"]:
    """Map the singular values of matrices towards 1 by polynomials, with bfloat16 operands and float32 sums.

    In the first iteration rows are scaled by the row sums of the Gram matrix, so that no singular value
    exceeds 1 and more are near it (Boissin et al. 2025).
    """
    tall = x.shape[1] > x.shape[2]
    least = jnp.finfo(jnp.float32).tiny
    x = x.astype(jnp.float32)
    length = jnp.sqrt(jnp.square(x).sum((1, 2), keepdims=True))
    y = (x / jnp.maximum(length, least)).astype(ITERATED_IN)
    y = _turned(y) if tall else y
    gram = _product(y, y, 2)
    scale = jax.lax.rsqrt(jnp.maximum(jnp.abs(gram).sum(2, keepdims=True), least))
    y = (y.astype(jnp.float32) * scale).astype(ITERATED_IN)
    polynomial = _polynomial(gram * scale * jnp.swapaxes(scale, 1, 2), *COEFFICIENTS[0])
    for coefficients in COEFFICIENTS[1:]:
        y = _product(polynomial, y, 1).astype(ITERATED_IN)
        polynomial = _polynomial(_product(y, y, 2), *coefficients)
    # XLA on CPU has no kernel for bfloat16 operands if the result has another layout.
    y = with_row_major_layout(_product(_turned(y), polynomial, 1) if tall else _product(polynomial, y, 1))
    return y * max(y.shape[1:]) ** 0.5


def _polynomial(gram: Float[Array, "G R R"], a: float, b: float, c: float) -> Float[Array, "G R R"]:
    """What an iteration multiplies matrices by, with its first term: so it reads and writes them once."""
    eye = jnp.eye(gram.shape[1], dtype=jnp.float32)[None]
    operand = gram.astype(ITERATED_IN)
    rest = b * operand.astype(jnp.float32) + c * _product(operand, operand, 1)
    return (a * eye + rest).astype(ITERATED_IN)


def _turned(x: Float[Array, "G R C"]) -> Float[Array, "G C R"]:
    """Transposed matrices, in this order in memory."""
    return with_row_major_layout(jnp.swapaxes(x, 1, 2))


def _product(a: Float[Array, "G R I"], b: Float[Array, "G _ _"], contracted: int) -> Float[Array, "G R _"]:
    """Products of bfloat16 matrices, contracted over this axis of the second, summed in float32."""
    return jax.lax.dot_general(
        a, b, (((2,), (contracted,)), ((0,), (0,))), preferred_element_type=jnp.float32
    )
