"""Files as streams of bytes: local or through fsspec, plain or compressed."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, cast

from t5smith.base.disk import disk_errors, limit_error
from t5smith.base.errors import T5smithError
from t5smith.text.decompression import Decompressed, is_archive_damage
from t5smith.text.locations import is_url

COMPRESSIONS = {
    ".gz": ".gz",
    ".gzip": ".gz",
    ".xz": ".xz",
    ".zst": ".zst",
    ".zstd": ".zst",
    ".bz2": ".bz2",
}
"""Endings of compressed files, and the usual one of each kind."""
_MAGIC = {
    ".gz": re.compile(rb"\x1f\x8b\x08"),
    ".xz": re.compile(rb"\xfd7zXZ\0"),
    ".bz2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    ".zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),
}
"""First bytes of each kind; of zstd also those of a frame that is skipped."""
MAGIC_BYTES = 10
_BUFFER = 1 << 18


OpenAgain = Callable[[], AbstractContextManager[IO[bytes]]]
"""Opens the decompressed bytes of a file once more, from the beginning."""


def compression_suffix(name: str) -> str:
    """The ending of a name that stands for a compression, as it is written in lower case; "": none."""
    return next((ending for ending in COMPRESSIONS if name.lower().endswith(ending)), "")


def compression_of(name: str) -> str:
    """How a file is compressed: `.gz`, `.xz`, `.zst` or `.bz2` by its first bytes; "": not.

    Of a file that does not exist, or is behind a URL and has a known ending, the ending decides.

    Raises:
      T5smithError: it cannot be read.
    """
    ending = compression_suffix(name)
    if (ending and is_url(name)) or (not is_url(name) and not os.path.exists(name)):
        return COMPRESSIONS.get(ending, "")
    with open_file(name) as raw:
        return _compression(name, raw)


def _compression(name: str, raw: IO[bytes]) -> str:
    first = cast(io.BufferedReader, raw).peek(MAGIC_BYTES)[:1024]
    for kind, magic in _MAGIC.items():
        if magic.match(first):
            return kind
    if (ending := compression_suffix(name)) and not _is_text(first):
        return COMPRESSIONS[ending]  # damaged at its beginning
    return ""


def starts_compressed(first: bytes) -> bool:
    """Whether bytes are the first ones of a compressed file."""
    return any(magic.match(first) for magic in _MAGIC.values())


def _is_text(first: bytes) -> bool:
    """Whether bytes are UTF-8 without control characters, and no beginning of an archive."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(first)
    except UnicodeDecodeError:
        return False
    return len(first) >= MAGIC_BYTES and not re.search(r"[\x00-\x08\x0e-\x1f]", text)


@contextlib.contextmanager
def open_stream(name: str, *, seekable: bool = False) -> Generator[tuple[IO[bytes], IO[bytes]]]:
    """A file as it is stored, and its decompressed bytes.

    Args:
      name: of the file.
      seekable: the decompressed bytes can be read from any position. A compressed file is first unpacked
        into a temporary file.

    Raises:
      T5smithError: it is missing or cannot be read; with `seekable`: a damaged archive, a full disk.
    """
    with open_file(name) as raw:
        stream = decompressed(name, raw)
        if stream is raw or not seekable:
            yield raw, stream
        else:
            with tempfile.TemporaryFile() as unpacked:
                _unpack(name, stream, unpacked)
                yield raw, unpacked


@contextlib.contextmanager
def opened(name: str) -> Generator[IO[bytes]]:
    """The decompressed bytes of a file, as :func:`open_stream`."""
    with open_stream(name) as (_, stream):
        yield stream


def is_compressed(name: str, raw: IO[bytes]) -> bool:
    """Whether a stream is, which stays at its beginning; see :func:`decompressed`."""
    return bool(_compression(name, raw))


def decompressed(name: str, raw: IO[bytes]) -> IO[bytes]:
    """The decompressed bytes of a stream; the stream itself if it is not compressed.

    Args:
      name: of the file.
      raw: as it is stored, at its beginning; can be peeked into.
    """
    ending = _compression(name, raw)
    return io.BufferedReader(Decompressed(raw, ending), _BUFFER) if ending else raw


def copy_to_disk(stream: IO[bytes], into: IO[bytes]) -> None:
    """Copy a stream into a temporary file, which is then at its beginning.

    Raises:
      T5smithError: the disk is full.
    """
    with disk_errors(Path(tempfile.gettempdir())):
        shutil.copyfileobj(stream, into, _BUFFER)
    into.seek(0)


def _unpack(name: str, archive: IO[bytes], into: IO[bytes]) -> None:
    try:
        copy_to_disk(archive, into)
    except Exception as error:
        if not is_archive_damage(error):
            raise
        what = f"the archive is cut short or damaged ({error or type(error).__name__})"
        raise T5smithError(what, where=name, fix="fetch or compress the file again") from None


@contextlib.contextmanager
def open_file(name: str) -> Generator[IO[bytes]]:
    """A file as it is stored.

    Raises:
      T5smithError: it is missing or cannot be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            if is_url(name):
                import fsspec

                file = cast("AbstractContextManager[io.RawIOBase]", fsspec.open(name, "rb"))
                # Its own files read no line of a limited length.
                stream: IO[bytes] = io.BufferedReader(stack.enter_context(file), _BUFFER)
            else:
                stream = stack.enter_context(open(name, "rb", buffering=_BUFFER))
        except FileNotFoundError:
            raise T5smithError("there is no such file", where=name) from None
        except PermissionError:
            raise T5smithError(
                "no permission to read", where=name, fix="change its mode, or run as its owner"
            ) from None
        except IsADirectoryError:
            raise T5smithError("this is a folder", where=name, expected="a file") from None
        except (ImportError, OSError) as error:
            # fsspec names the package that a protocol needs.
            why = (isinstance(error, OSError) and error.strerror) or error
            raise limit_error(error) or T5smithError(f"cannot be opened ({why})", where=name) from None
        yield stream
