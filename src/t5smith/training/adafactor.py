"""Adafactor (Shazeer & Stern 2018) as in T5: no momentum, updates clipped at RMS 1, times parameters' RMS.

Shapes: R and C rows and columns of a matrix.
"""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from optax import FactoredState

from t5smith.model.compute import Backend

DECAY = 0.8
"""Second moments keep 1 - step^-0.8 of their value."""
EPSILON = 1e-30
"""Added to squared gradients."""
MIN_FACTORED = 128
"""Matrices with fewer rows or columns have a second moment per number."""
MIN_SCALE = 1e-3
"""Lower bound for a parameter's RMS, so that one at zero can move."""
WIDE: dict[Backend, int] = {"cpu_rows": 1 << 13}
"""Columns from which on the sum of all rows is a product, by backend; XLA on CPU would sum each column."""


def adafactor(backend: Backend) -> optax.GradientTransformationExtraArgs:
    """The direction, for vectors and matrices, with the state of optax's, written over that of before."""
    chain = optax.chain(
        optax.adafactor(learning_rate=None, min_dim_size_to_factor=MIN_FACTORED), optax.scale(-1.0)
    )

    def update(updates: Any, state: Any, params: Any = None, *, applied: Array) -> tuple[Any, Any]:
        (state, *empty), last = state
        share = (state.count + 1).astype(jnp.float32) ** -DECAY

        def one(
            gradient: Array, parameter: Array, v_row: Array, v_col: Array, v: Array
        ) -> tuple[Array, Array, Array, Array]:
            direction, *after = _direction(gradient, v_row, v_col, v, share, backend)
            scale = jnp.maximum(_rms(parameter), MIN_SCALE)
            before = (v_row, v_col, v)
            kept = [jnp.where(applied, new, old) for new, old in zip(after, before, strict=True)]
            return direction * scale, kept[0], kept[1], kept[2]

        made = jax.tree.map(one, updates, params, state.v_row, state.v_col, state.v)
        directions, *moments = jax.tree.transpose(
            jax.tree.structure(updates), jax.tree.structure((0, 0, 0, 0)), made
        )
        state = FactoredState(jnp.where(applied, state.count + 1, state.count), *moments)
        return directions, ((state, *empty), last)

    return optax.GradientTransformationExtraArgs(chain.init, cast(Any, update))


def _direction(
    gradient: Float[Array, "*shape"],
    v_row: Array,
    v_col: Array,
    v: Array,
    share: Float[Array, ""],
    backend: Backend,
) -> tuple[Float[Array, "*shape"], Array, Array, Array]:
    """The gradient over the root of its second moment, clipped at RMS 1, and the new moments."""
    squares = gradient * gradient
    if gradient.ndim < 2 or min(gradient.shape) < MIN_FACTORED:
        v = _moved(v, squares, share)
        direction = gradient * v**-0.5
        return direction / jnp.maximum(1.0, _rms(direction)), v_row, v_col, v
    # optax calls the mean over the longer axis `v_row`; of two equal axes the last counts as longer.
    R, C = gradient.shape
    by_row, by_column = (v_row, v_col) if R <= C else (v_col, v_row)
    by_row = _moved(by_row, squares.mean(axis=1), share)
    by_column = _moved(by_column, _over_rows(squares, backend) / R, share)
    mean = by_row.mean() if R <= C else by_column.mean()
    row_factor, column_factor = mean / by_row, 1.0 / by_column
    # The mean square of the direction, from squares: the direction itself is then computed where it is used.
    mean_square = (row_factor * (squares * column_factor[None]).mean(axis=1)).mean()
    clipped = 1.0 / jnp.maximum(1.0, jnp.sqrt(mean_square))
    direction = gradient * (jnp.sqrt(row_factor) * clipped)[:, None] * jnp.sqrt(column_factor)[None]
    v_row, v_col = (by_row, by_column) if R <= C else (by_column, by_row)
    return direction, v_row, v_col, v


def _moved(
    average: Float[Array, "*n"], new: Float[Array, "*n"], share: Float[Array, ""]
) -> Float[Array, "*n"]:
    """A moving average of squares after a step."""
    return (1.0 - share) * average + share * (new + EPSILON)


def _over_rows(x: Float[Array, "R C"], backend: Backend) -> Float[Array, " C"]:
    """The sum of all rows."""
    if x.shape[1] < WIDE.get(backend, x.shape[1] + 1):
        return x.sum(axis=0)
    return jnp.ones(x.shape[0], x.dtype) @ x


def _rms(x: Float[Array, "*shape"]) -> Float[Array, ""]:
    return jnp.sqrt(jnp.square(x).mean())
