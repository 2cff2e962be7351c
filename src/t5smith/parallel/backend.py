"""Which programs compute the model on this machine: the one place that decides it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from t5smith.model.compute import Backend, Compute

PRECISIONS = {"float32": jnp.dtype(jnp.float32), "bfloat16": jnp.dtype(jnp.bfloat16)}
"""The dtypes of the operands of products, by the names of `train.precision`."""


def chosen_backend(mesh: Mesh | None = None) -> Backend:
    """`cpu_rows` for one CPU device, `xla` on any other, and on several."""
    return "cpu_rows" if mesh is None and jax.default_backend() == "cpu" else "xla"


def backend_reason(mesh: Mesh | None = None) -> str:
    """Why :func:`chosen_backend` chose it."""
    if mesh is not None:
        return f"a mesh of {mesh.size} device{'s' if mesh.size > 1 else ''}"
    return "one CPU device" if jax.default_backend() == "cpu" else f"one {jax.default_backend()} device"


def compute_in(precision: str, mesh: Mesh | None = None) -> Compute:
    """How this machine computes in a precision, `float32` or `bfloat16`, on one device or on a mesh."""
    return Compute(PRECISIONS[precision], chosen_backend(mesh), mesh)
