"""The tensors of a PyTorch file (`.bin`, `.pt`), without running what stands in it.

`torch.save` writes a pickle, which names functions to call. Here those that rebuild tensors stand for
descriptions of tensors, and a name of anything else is an error, so no code of the file or of another
package runs. There are two containers: a zip file with the pickle and each storage as a member (PyTorch 1.6
and later), and the older one: pickles of a magic number, a version, facts about the machine, the object, the
keys of storages, and then the storages. (github.com/pytorch/pytorch, torch.serialization)
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.interop.safetensors_file import AGAIN
from t5smith.interop.stored_tensor import DTYPES, StoredTensor

MAX_PICKLE = 100_000_000
"""Bytes of the longest pickle: descriptions of some hundreds of tensors."""
MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
_STORAGES = {
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
}


# Named tuples, because a pickle can change the fields of other objects after they were checked.
class _Type(NamedTuple):
    """Stands for a class of storages."""

    dtype: np.dtype


class _Storage(NamedTuple):
    """A storage: `length` numbers under a key."""

    key: str
    dtype: np.dtype
    length: int


class _Described(NamedTuple):
    """What a call that rebuilds a tensor was given."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pytorch(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a state dictionary, by name. Their numbers are read later.

    Raises:
      T5smithError: the file is damaged, has other objects than tensors, or is no dictionary of tensors.
    """
    try:
        with path.open("rb") as file:
            is_zip = zipfile.is_zipfile(file)
            file.seek(0)
            found, load = (_zip if is_zip else _old)(path, file)
    except (_ForeignNameError, T5smithError):
        raise
    except Exception as error:  # a damaged pickle may raise anything
        what = f"not a complete PyTorch file ({type(error).__name__}: {error})"
        raise T5smithError(what, where=path, fix=AGAIN) from None
    if not isinstance(found, dict):
        raise T5smithError("not a dictionary of tensors", where=path, expected="a state dictionary of a T5")
    tensors: dict[str, StoredTensor] = {}
    for name, value in found.items():
        if isinstance(name, str) and isinstance(value, _Described):
            tensors[name] = _stored(path, name, value, load)
    if not tensors or len(tensors) < len(found):
        what = "not a dictionary of tensors alone"
        raise T5smithError(what, where=path, expected="the state dictionary of a T5")
    return tensors


def _loaded(path: Path, file: IO[bytes]) -> Any:
    """The next object of a pickle in a file.

    Raises:
      ValueError: it would take memory that it does not fill: it is numbered beyond its length, or says so.
    """
    begin = file.tell()
    for count, (code, argument, _) in enumerate(pickletools.genops(file), 1):
        # Python's reader makes room for as many remembered objects as their highest number.
        if code.name in ("PUT", "LONG_BINPUT") and (argument or 0) > count:
            raise ValueError(f"object {argument:,} after {count:,} steps")
    file.seek(begin)
    return _Unpickler(path, file).load()


class _ForeignNameError(T5smithError):
    """The file names something that does not belong to tensors."""


class _Unpickler(pickle.Unpickler):
    """Knows the names that stand in files of tensors, and none besides."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self._path = path

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _STORAGES:
            return _Type(DTYPES[_STORAGES[name]])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        raise _ForeignNameError(
            f"the file calls {module}.{name}, which has nothing to do with weights",
            where=self._path,
            fix="do not use this file; take the model as safetensors from a source that you trust",
        )

    def persistent_load(self, pid: Any, /) -> _Storage:
        kind, storage, key, _, length, *view = pid
        if kind != "storage" or not isinstance(storage, _Type) or (view and view[0] is not None):
            raise ValueError(f"an unknown kind of storage, {str(pid)[:80]}")
        if type(length) is not int or length < 0:
            raise ValueError(f"a storage of {length} numbers")
        return _Storage(str(key), storage.dtype, length)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Described:
    shape, strides = tuple(shape), tuple(strides)
    described = _Described(storage, offset, shape, strides)
    numbers = (described.offset, *described.shape, *described.strides)
    if not isinstance(storage, _Storage) or not all(type(one) is int and one >= 0 for one in numbers):
        raise ValueError("a tensor's sizes are not valid")
    if len(shape) != len(strides) or not shape:
        raise ValueError("a tensor's sizes are not valid")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= storage.length:
        raise ValueError("a tensor reaches beyond its storage")
    if math.prod(shape) > storage.length:
        raise ValueError("a tensor is larger than its storage")
    return described


def _rebuild_parameter(data: Any, *_: Any) -> _Described:
    if not isinstance(data, _Described):
        raise ValueError("a parameter without a tensor")
    return data


_Load = Callable[[_Storage], np.ndarray]


def _zip(path: Path, file: IO[bytes]) -> tuple[Any, _Load]:
    with zipfile.ZipFile(file) as archive:
        sizes = {info.filename: info for info in archive.infolist()}
        (pickled,) = [name for name in sizes if name.endswith("data.pkl") and name.count("/") <= 1]
        if sizes[pickled].file_size > MAX_PICKLE:
            raise ValueError(f"a pickle of {sizes[pickled].file_size:,} bytes")
        prefix = pickled.removesuffix("data.pkl")
        order = f"{prefix}byteorder"
        if order in sizes and archive.read(order) != b"little":
            raise ValueError("numbers that are not little-endian")
        found = _loaded(path, io.BytesIO(archive.read(pickled)))
    for one in found.values() if isinstance(found, dict) else ():
        if isinstance(one, _Described):
            member = sizes.get(f"{prefix}data/{one.storage.key}")
            if member is None or member.file_size != one.storage.length * one.storage.dtype.itemsize:
                raise ValueError(f"storage {one.storage.key} has another size")

    def load(storage: _Storage) -> np.ndarray:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{prefix}data/{storage.key}")
            if info.file_size != storage.length * storage.dtype.itemsize or info.compress_type:
                raise T5smithError(f"storage {storage.key} has another size", where=path, fix=AGAIN)
            return np.frombuffer(archive.read(info), storage.dtype)

    return found, load


def _old(path: Path, file: IO[bytes]) -> tuple[Any, _Load]:
    size = path.stat().st_size
    head = [_loaded(path, file) for _ in range(3)]
    if head[:2] != [MAGIC, VERSION] or not head[2].get("little_endian", True):
        raise ValueError("it does not begin as one")
    found, keys = _loaded(path, file), _loaded(path, file)
    lengths = {one.storage.key: one.storage for one in found.values() if isinstance(one, _Described)}
    places: dict[str, int] = {}
    for key in map(str, keys):
        count = int.from_bytes(file.read(8), "little")
        storage = lengths.get(key)
        if storage is None or count != storage.length:
            raise ValueError(f"storage {key} has {count:,} numbers")
        places[key] = file.tell()
        if file.seek(count * storage.dtype.itemsize, io.SEEK_CUR) > size:
            raise ValueError("it ends in the middle")

    def load(storage: _Storage) -> np.ndarray:
        return np.fromfile(path, storage.dtype, storage.length, offset=places[storage.key])

    return found, load


def _stored(path: Path, name: str, described: _Described, load: _Load) -> StoredTensor:
    storage = described.storage

    def read() -> np.ndarray:
        try:
            numbers = load(storage)[described.offset :]
        except T5smithError:
            raise
        except Exception as error:  # zipfile raises errors of many kinds for damaged headers
            what = f"{name!r} cannot be read ({type(error).__name__}: {error})"
            raise T5smithError(what, where=path, fix=AGAIN) from None
        strides = [step * storage.dtype.itemsize for step in described.strides]
        view = np.lib.stride_tricks.as_strided(numbers, described.shape, strides, writeable=False)
        return np.array(view) if view.base is not None and not view.flags.c_contiguous else view

    return StoredTensor(described.shape, storage.dtype, read)
