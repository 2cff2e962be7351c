"""The arrays of a msgpack file as Flax writes it: `flax_model.msgpack`, and T5X's older checkpoints.

An array is an extension of type 1: its shape, the name of its type, and its numbers; a number is one of
type 3. An array of more than a gigabyte is a dictionary of parts. (github.com/google/flax,
its module serialization; the format: github.com/msgpack/msgpack)

The msgpack library would read all numbers at once. Here the file is walked from header to header, and the
numbers stay in it until they are needed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.interop.safetensors_file import AGAIN
from t5smith.interop.stored_tensor import DTYPES, StoredTensor

CHUNKED = "__msgpack_chunked_array__"
MAX_NAMES = 100_000
"""Entries of a dictionary or a list."""
MAX_OBJECTS = 1_000_000
"""Objects of a file: a T5 has some thousands, with its optimizer's state."""
MAX_DEPTH = 50
MAX_TEXT = 10_000
_ARRAY, _SCALAR = 1, 3
_EXTENSIONS = {0xD4 + power: 1 << power for power in range(5)}
"""First byte of an extension of a fixed length -> its bytes."""


def read_msgpack(path: Path) -> dict[str, StoredTensor]:
    """The arrays of a tree, by their path with dots between the names. Their numbers are read later.

    Raises:
      T5smithError: the file is damaged, or has something else than a tree of arrays.
    """
    try:
        with path.open("rb") as file:
            tree = _Walk(path, file).value()
        if not isinstance(tree, dict):
            raise TypeError("it has no names")
        return dict(_leaves(cast("dict[str, Any]", tree), ""))
    except Exception as error:  # damage may raise anything
        what = f"not a complete msgpack file of Flax ({type(error).__name__}: {error})"
        raise T5smithError(what, where=path, fix=AGAIN) from None


def _leaves(tree: dict[str, Any], above: str) -> Iterator[tuple[str, StoredTensor]]:
    for name, value in tree.items():
        if isinstance(value, StoredTensor):
            yield above + name, value
        elif isinstance(value, dict):
            yield from _leaves(cast("dict[str, Any]", value), f"{above}{name}.")


class _Walk:
    """Reads objects one after the other; of an array its place in the file."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file, self._size = path, file, path.stat().st_size
        self._objects = 0

    def value(self, depth: int = 0) -> object:
        """The next object: a dictionary, list, text, number or tensor; None for anything else."""
        self._objects += 1
        if self._objects > MAX_OBJECTS or depth > MAX_DEPTH:
            raise ValueError("too many objects")
        kind = self._number(1)
        if kind < 0x80:
            return kind
        if kind < 0x90 or kind in (0xDE, 0xDF):
            return self._map(kind & 15 if kind < 0x90 else self._number(2 << (kind - 0xDE)), depth)
        if kind < 0xA0 or kind in (0xDC, 0xDD):
            count = kind & 15 if kind < 0xA0 else self._number(2 << (kind - 0xDC))
            return [self.value(depth + 1) for _ in range(_checked(count))]
        if kind < 0xC0 or kind in (0xD9, 0xDA, 0xDB):
            return self._text(kind & 31 if kind < 0xC0 else self._number(1 << (kind - 0xD9)))
        if kind >= 0xE0:
            return kind - 0x100
        return self._other(kind, depth)

    def _other(self, kind: int, depth: int) -> object:
        if kind in (0xC0, 0xC2, 0xC3):
            return {0xC2: False, 0xC3: True}.get(kind)
        if 0xCC <= kind <= 0xCF:
            return self._number(1 << (kind - 0xCC))
        if 0xD0 <= kind <= 0xD3:
            return int.from_bytes(self._take(1 << (kind - 0xD0)), "big", signed=True)
        if kind in (0xCA, 0xCB):
            self._take(4 << (kind - 0xCA))
            return None
        if kind in (0xC4, 0xC5, 0xC6):
            self._skip(self._number(1 << (kind - 0xC4)))
            return None
        if kind in _EXTENSIONS or kind in (0xC7, 0xC8, 0xC9):
            length = _EXTENSIONS.get(kind) or self._number(1 << (kind - 0xC7))
            return self._extension(length, depth)
        raise ValueError(f"byte {kind:#x} begins no object")

    def _map(self, count: int, depth: int) -> object:
        found: dict[str, Any] = {}
        for _ in range(_checked(count)):
            name = self.value(depth + 1)
            if not isinstance(name, str):
                raise TypeError("a name is not text")
            if name in found:
                raise ValueError("a name is there twice")
            found[name] = self.value(depth + 1)
        return _joined(found) if found.get(CHUNKED) else found

    def _extension(self, length: int, depth: int) -> StoredTensor | None:
        """An array, whose numbers are skipped; None for a number."""
        code = self._number(1)
        end = self._file.tell() + length
        if code not in (_ARRAY, _SCALAR):
            raise ValueError(f"an extension of type {code}")
        if code == _SCALAR:
            self._skip(length)
            return None
        if self._number(1) != 0x93:  # a list of three
            raise ValueError("an array without sizes, type and numbers")
        sizes, name, kind = self.value(depth + 1), self.value(depth + 1), self._number(1)
        if not isinstance(name, str) or name not in DTYPES:
            raise ValueError(f"an array of type {name!r}")
        if not isinstance(sizes, list) or not all(type(one) is int and one >= 0 for one in sizes):
            raise ValueError("an array's sizes are not valid")
        if kind not in (0xC4, 0xC5, 0xC6):
            raise ValueError("an array without numbers")
        found, shape, dtype = self._number(1 << (kind - 0xC4)), tuple(cast("list[int]", sizes)), DTYPES[name]
        offset, path = self._file.tell(), self._path
        if math.prod(shape) * dtype.itemsize != found or offset + found != end:
            raise ValueError(f"an array of sizes {list(shape)} has {found:,} bytes")
        self._skip(found)

        def load() -> np.ndarray:
            return np.fromfile(path, dtype, math.prod(shape), offset=offset).reshape(shape)

        return StoredTensor(shape, dtype, load)

    def _text(self, length: int) -> str:
        if length > MAX_TEXT:
            raise ValueError(f"a text of {length:,} bytes")
        return self._take(length).decode()

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _take(self, size: int) -> bytes:
        found = self._file.read(size)
        if len(found) < size:
            raise ValueError("it ends in the middle")
        return found

    def _skip(self, size: int) -> None:
        if self._file.seek(size, os.SEEK_CUR) > self._size:
            raise ValueError("it ends in the middle")


def _checked(count: int) -> int:
    if count > MAX_NAMES:
        raise ValueError(f"{count:,} entries")
    return count


def _joined(parts: dict[str, Any]) -> StoredTensor:
    """An array that was cut into parts, which have the names 0, 1, …"""
    shape = tuple(parts["shape"][str(axis)] for axis in range(len(parts["shape"])))
    chunks = [parts["chunks"][str(number)] for number in range(len(parts["chunks"]))]
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("an array's sizes are not valid")
    if not chunks or math.prod(shape) != sum(math.prod(chunk.shape) for chunk in chunks):
        raise ValueError(f"the parts of an array do not have its sizes {list(shape)}")
    if len({chunk.dtype for chunk in chunks}) > 1:
        raise ValueError("the parts of an array have several types")

    def load() -> np.ndarray:
        whole, end = np.empty(math.prod(shape), chunks[0].dtype), 0
        for chunk in chunks:
            one = chunk.load().reshape(-1)
            whole[end : end + len(one)] = one
            end += len(one)
        return whole.reshape(shape)

    return StoredTensor(shape, chunks[0].dtype, load)
