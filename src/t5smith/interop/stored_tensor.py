"""A tensor in a file of another project: its shape and type at once, its numbers when they are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

DTYPES: Mapping[str, np.dtype] = {
    **{name: np.dtype(name) for name in ("float16", "float32", "float64", "bool")},
    **{f"{kind}{bits}": np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
"""Types of numbers that weights of a T5 have, or that stand beside them."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor whose numbers are still in a file.

    Attributes:
      shape: of the tensor, as it is stored.
      dtype: of its numbers.
      load: reads the numbers: the array of this shape and dtype.
      transposed: whether :meth:`read` returns the transpose of what is stored.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], NDArray]
    transposed: bool = False

    def read(self) -> NDArray[np.float32]:
        """The numbers as float32."""
        array = self.load()
        return (array.T if self.transposed else array).astype(np.float32, copy=False)

    @property
    def bytes(self) -> int:
        """Bytes of its numbers in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


Tensors = Mapping[str, StoredTensor]
