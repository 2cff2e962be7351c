"""Files as streams of bytes: local or by fsspec, plain or compressed, from any place if they are plain."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from t5smith.artefact import disk_errors
from t5smith.corpus.places import is_url
from t5smith.errors import T5smithError

COMPRESSIONS = (".gz", ".xz", ".zst", ".bz2")

DAMAGE = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError)
"""What the libraries raise on an archive that is cut short or altered. bz2: an OSError without a number."""

_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda file: _Steady(gzip.GzipFile(fileobj=file)),
    ".xz": lambda file: _Steady(lzma.LZMAFile(file)),
    ".bz2": lambda file: _Steady(bz2.BZ2File(file)),
    ".zst": lambda file: _Zstandard(file),
}
_BUFFER = 1 << 18


def compression(name: str) -> str:
    """The ending that says how a file is compressed, or nothing."""
    return next((ending for ending in COMPRESSIONS if name.lower().endswith(ending)), "")


@contextlib.contextmanager
def reading(name: str, *, anywhere: bool = False) -> Generator[tuple[IO[bytes], IO[bytes]]]:
    """The file as it lies there, and the bytes in it.

    Args:
      name: of the file.
      anywhere: it is not read from the beginning to the end. What is compressed is unpacked first, into a
        file in the system's temporary folder that ends with this.

    Raises:
      T5smithError: it is not there, or may not be read; with `anywhere`: a damaged archive, a full disk.
    """
    opener = _OPENERS.get(compression(name))
    with opened(name) as raw:
        if opener and anywhere:
            with tempfile.TemporaryFile() as unpacked:
                _unpack(name, opener(raw), unpacked)
                yield raw, unpacked
        else:
            yield raw, io.BufferedReader(opener(raw), _BUFFER) if opener else raw


def _unpack(name: str, stream: IO[bytes], into: IO[bytes]) -> None:
    try:
        with disk_errors(Path(tempfile.gettempdir())):
            shutil.copyfileobj(io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER), into, _BUFFER)
    except Exception as error:
        if not is_damage(error):
            raise
        what = f"the archive is cut short or damaged ({error or type(error).__name__})"
        raise T5smithError(what, where=name, fix="fetch or compress the file again") from None
    into.seek(0)


@contextlib.contextmanager
def opened(name: str) -> Generator[IO[bytes]]:
    """The file as it lies there.

    Raises:
      T5smithError: it is not there, or may not be read.
    """
    try:
        if is_url(name):
            import fsspec

            with cast("contextlib.AbstractContextManager[io.RawIOBase]", fsspec.open(name, "rb")) as raw:
                # Its own files read no line of a limited length.
                yield io.BufferedReader(raw, _BUFFER)
        else:
            with open(name, "rb", buffering=_BUFFER) as raw:
                yield raw
    except FileNotFoundError:
        raise T5smithError("there is no such file", where=name) from None
    except PermissionError:
        raise T5smithError(
            "no permission to read", where=name, fix="change its mode, or run as its owner"
        ) from None
    except IsADirectoryError:
        raise T5smithError("this is a folder", where=name, expected="a file") from None
    except ImportError as error:
        # fsspec names the package that a protocol needs.
        raise T5smithError(f"cannot be opened ({error})", where=name) from None


def is_damage(error: BaseException) -> bool:
    """Whether an exception says that an archive is cut short or altered."""
    return isinstance(error, DAMAGE) or (isinstance(error, OSError) and error.errno is None)


class _Steady(io.RawIOBase):
    """An archive that gives what it has unpacked before it says that the rest is damaged.

    The libraries' own `readinto` fills the whole buffer, and where that fails what was in it is lost.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._file.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Zstandard(io.RawIOBase):
    """All frames of a file; the library's own reader takes one that is cut short for one that ends."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = zstandard.ZstdDecompressor().decompressobj()
        self._left = b""
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._left:
            data = self._decoder.unused_data if self._decoder.eof else b""
            if self._decoder.eof:
                self._decoder = zstandard.ZstdDecompressor().decompressobj()
                self._begun = False
            if not (data := data or self._file.read(_BUFFER)):
                if self._begun:
                    raise EOFError("the last frame is not complete")
                return 0
            self._begun = True
            self._left = self._decoder.decompress(data)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
