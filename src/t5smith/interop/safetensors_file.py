"""Safetensors files: read without trusting the header, written one tensor at a time.

The format: eight bytes with the length of a header, the header in JSON, and the numbers. Each entry of the
header has type, shape, and the first and last byte of its numbers. (github.com/huggingface/safetensors)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.interop.stored_tensor import DTYPES, StoredTensor

MAX_HEADER = 100_000_000
"""Bytes of the longest header, as in the safetensors library."""
AGAIN = "export or download the model again"
_TYPES = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "BOOL": "bool",
    **{f"{kind[0].upper()}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file, by name. Their numbers are read later.

    Raises:
      T5smithError: the file is not complete, or its header does not fit the file or itself.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if len(first) < 8 or length > min(size - 8, MAX_HEADER):
            raise _damaged(path, f"its header of {length:,} bytes does not fit into a file of {size:,}")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not valid ({error})") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not an object")
    header.pop("__metadata__", None)
    begin, tensors, places, end = 8 + length, dict[str, StoredTensor](), list[tuple[int, int]](), 0
    for name, entry in header.items():
        tensors[name], place = _tensor(path, name, entry, begin, size)
        places.append(place)
    for first, last in sorted(places):
        if first != end:
            raise _damaged(path, f"its tensors are not in a row: one begins at {first:,} instead of {end:,}")
        end = last
    if begin + end != size:
        raise _damaged(path, f"{size:,} bytes instead of {begin + end:,}")
    return tensors


def write_safetensors(
    files: Mapping[Path, Mapping[str, tuple[int, ...]]],
    dtype: np.dtype,
    tensors: Iterable[tuple[str, np.ndarray]],
) -> None:
    """Write tensors into one or several files. In memory is only the tensor that is being written.

    The bytes are those that the safetensors library writes for PyTorch.

    Args:
      files: the shape of each tensor of each file, by name.
      dtype: of all tensors in the files.
      tensors: all tensors with their names, in any order.
    """
    with ExitStack() as opened:
        places: dict[str, tuple[Any, int]] = {}
        for path, shapes in files.items():
            header, begins = _header(shapes, dtype)
            file = opened.enter_context(path.open("wb"))
            file.write(len(header).to_bytes(8, "little") + header)
            places |= {name: (file, 8 + len(header) + begin) for name, begin in begins.items()}
        for name, tensor in tensors:
            file, begin = places.pop(name)
            file.seek(begin)
            # NumPy's buffers know no bfloat16, but they know bytes.
            file.write(np.ascontiguousarray(tensor, dtype).reshape(-1).view(np.uint8))
    assert not places, f"not written: {sorted(places)}"


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype) -> tuple[bytes, dict[str, int]]:
    """A file's header, and where each tensor begins behind it."""
    kind = next(kind for kind, name in _TYPES.items() if DTYPES[name] == dtype)
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begins, end = dict[str, int](), 0
    for name in sorted(shapes):
        begins[name] = end
        end += math.prod(shapes[name]) * dtype.itemsize
        entries[name] = {"dtype": kind, "shape": list(shapes[name]), "data_offsets": [begins[name], end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return text.ljust(-(-len(text) // 8) * 8), begins


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The entries of an object in JSON, each name once.

    Raises:
      ValueError: a name is there twice, so that each reader may take another one.
    """
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found


def _tensor(path: Path, name: str, entry: Any, begin: int, size: int) -> tuple[StoredTensor, tuple[int, int]]:
    try:
        kind, shape = entry["dtype"], tuple(entry["shape"])
        first, last = entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, first, last))
    except (KeyError, TypeError, ValueError):
        whole, kind, shape, first, last = False, "", (), 0, 0
    if not whole:
        raise _damaged(path, f"the entry of {name!r} is not valid")
    if kind not in _TYPES:
        raise T5smithError(f"{name!r} is of type {kind}", where=path, expected=f"one of {', '.join(_TYPES)}")
    dtype = DTYPES[_TYPES[kind]]
    if last - first != math.prod(shape) * dtype.itemsize or begin + last > size:
        raise _damaged(path, f"{name!r} has {last - first:,} bytes from {first:,} on")

    def load() -> np.ndarray:
        return np.fromfile(path, dtype, math.prod(shape), offset=begin + first).reshape(shape)

    return StoredTensor(shape, dtype, load), (first, last)


def _damaged(path: Path, what: str) -> T5smithError:
    return T5smithError(f"not a complete safetensors file: {what}", where=path, fix=AGAIN)
