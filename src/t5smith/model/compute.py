"""How a model is computed: the precision of its products, and the programs for a kind of device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

Backend = Literal["cpu_rows", "xla"]


@dataclass(frozen=True)
class Compute:
    """A constant of every compiled program of the model.

    Attributes:
      dtype: of the operands of matrix products; sums are float32.
      backend: `cpu_rows`: programs for one CPU device: attention row by row, unrolled layers, and arrays in
        the order in memory for which XLA's CPU kernels are fastest. `xla`: programs for any device, which XLA
        may divide among several.
    """

    dtype: jnp.dtype
    backend: Backend = "xla"

    @property
    def is_cpu(self) -> bool:
        """Whether the programs are those for one CPU device."""
        return self.backend == "cpu_rows"

    @property
    def precision(self) -> jax.lax.Precision | None:
        """Of products: float32 is computed as such, where TPUs and GPUs would take fewer bits by default."""
        return jax.lax.Precision.HIGHEST if self.dtype == jnp.float32 else None


FLOAT32 = Compute(jnp.dtype(jnp.float32))
"""The reference: float32 on any device."""
