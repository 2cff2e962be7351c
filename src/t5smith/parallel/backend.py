"""Which programs compute the model on this machine: the one place that decides it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from t5smith.model.compute import Backend, Compute

PRECISIONS = {"float32": jnp.dtype(jnp.float32), "bfloat16": jnp.dtype(jnp.bfloat16)}
"""The dtypes of the operands of products, by the names of `train.precision`."""


def chosen_backend() -> Backend:
    """`cpu_rows` for the one CPU device that is used, `xla` on any other."""
    return "cpu_rows" if jax.default_backend() == "cpu" else "xla"


def compute_in(precision: str) -> Compute:
    """How this machine computes in a precision: `float32` or `bfloat16`."""
    return Compute(PRECISIONS[precision], chosen_backend())
