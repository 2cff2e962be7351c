"""The arrays of a msgpack file as Flax writes it: `flax_model.msgpack`, and T5X's older checkpoints.

An array is an extension of type 1: its shape, the name of its type, and its numbers; a number is one of
type 3. An array of more than a gigabyte is a dictionary of parts. (github.com/google/flax,
its module serialization)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.interop.safetensors_file import AGAIN
from t5smith.interop.stored_tensor import DTYPES, StoredTensor, in_memory

CHUNKED = "__msgpack_chunked_array__"
MAX_NAMES = 100_000
_ARRAY, _SCALAR = 1, 3


def read_msgpack(path: Path) -> dict[str, StoredTensor]:
    """The arrays of a tree, by their path with dots between the names.

    Raises:
      T5smithError: the file is damaged, or has something else than a tree of arrays.
    """
    try:
        with path.open("rb") as file:
            # Read in pieces: the arrays are then the only copy.
            unpacker = msgpack.Unpacker(
                file,
                ext_hook=_extension,
                object_pairs_hook=_unique,
                raw=False,
                max_buffer_size=max(path.stat().st_size, 1),
                max_map_len=MAX_NAMES,
                max_array_len=MAX_NAMES,
            )
            tree = unpacker.unpack()
        if not isinstance(tree, dict):
            raise TypeError("it has no names")
        return dict(_leaves(tree, ""))
    except Exception as error:  # msgpack's own exceptions have several bases
        what = f"not a complete msgpack file of Flax ({type(error).__name__}: {error})"
        raise T5smithError(what, where=path, fix=AGAIN) from None


def _unique(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return _joined(found) if found.get(CHUNKED) else found


def _joined(parts: dict[str, Any]) -> np.ndarray:
    """An array that was cut into parts, which have the names 0, 1, …"""
    shape = [parts["shape"][str(axis)] for axis in range(len(parts["shape"]))]
    chunks = [parts["chunks"][str(number)] for number in range(len(parts["chunks"]))]
    return np.concatenate([chunk.reshape(-1) for chunk in chunks]).reshape(shape)


def _leaves(tree: dict[str, Any], above: str) -> Iterator[tuple[str, StoredTensor]]:
    for name, value in tree.items():
        if isinstance(value, np.ndarray):
            yield above + name, in_memory(value)
        elif isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")


def _extension(code: int, data: bytes) -> Any:
    if code not in (_ARRAY, _SCALAR):
        raise ValueError(f"an extension of type {code}")
    shape, name, numbers = msgpack.unpackb(data, raw=False)
    if name not in DTYPES:
        raise ValueError(f"an array of type {name!r}")
    dtype = DTYPES[name]
    if not all(type(one) is int and one >= 0 for one in shape):
        raise ValueError("an array's sizes are not valid")
    if math.prod(shape) * dtype.itemsize != len(numbers):
        raise ValueError(f"an array of sizes {shape} has {len(numbers):,} bytes")
    return np.frombuffer(numbers, dtype).reshape(shape)
