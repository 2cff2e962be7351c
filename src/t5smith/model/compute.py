"""How a model is computed: the precision of its products, the programs for a kind of device, the devices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

Backend = Literal["cpu_rows", "xla"]
ROW_AXES = ("data", "fsdp")
"""The axes of a mesh that divide the rows of a batch."""


@dataclass(frozen=True)
class Compute:
    """A constant of every compiled program of the model.

    Attributes:
      dtype: of the operands of matrix products; sums are float32.
      backend: `cpu_rows`: programs for one CPU device: attention row by row, unrolled layers, and arrays in
        the order in memory for which XLA's CPU kernels are fastest. `xla`: programs for any device, which XLA
        may divide among several.
      mesh: the devices, if there are several; the axes are those of `parallel.mesh.AXES`.
    """

    dtype: jnp.dtype
    backend: Backend = "xla"
    mesh: Mesh | None = None

    @property
    def is_cpu(self) -> bool:
        """Whether the programs are those for one CPU device."""
        return self.backend == "cpu_rows"

    @property
    def precision(self) -> jax.lax.Precision | None:
        """Of products: float32 is computed as such, where TPUs and GPUs would take fewer bits by default."""
        return jax.lax.Precision.HIGHEST if self.dtype == jnp.float32 else None

    def describe(self) -> str:
        """Operands, sums and backend in a few words, for the record."""
        return f"{self.dtype.name} operands, float32 sums, backend {self.backend}"

    @property
    def row_shards(self) -> int:
        """The number of parts that the rows of a batch are divided into."""
        return 1 if self.mesh is None else math.prod(self.mesh.shape[axis] for axis in ROW_AXES)

    def by_rows(self, x: Shaped[Array, "*shape"], axis: int = 0) -> Shaped[Array, "*shape"]:
        """An array with an axis of rows, or of rows and positions: each device gets its rows whole."""
        if self.mesh is None:
            return x
        spec = PartitionSpec(*(ROW_AXES if number == axis else None for number in range(x.ndim)))
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

    def gathered(self, x: Shaped[Array, "*shape"], tensor: int) -> Shaped[Array, "*shape"]:
        """A matrix whose parts are brought together for its use, divided by `tensor` alone, on an axis."""
        if self.mesh is None:
            return x
        spec = PartitionSpec(*("tensor" if number == tensor else None for number in range(x.ndim)))
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))


FLOAT32 = Compute(jnp.dtype(jnp.float32))
"""The reference: float32 on any device."""
