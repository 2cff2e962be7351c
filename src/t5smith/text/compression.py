"""Files as streams of bytes: local or through fsspec, plain or compressed."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import io
import lzma
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from t5smith.base.disk import disk_errors, limit_error
from t5smith.base.errors import T5smithError
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

DAMAGE = (EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError)
"""What the libraries raise on a truncated or altered archive. bz2 raises an OSError without a number."""

_DECODERS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".xz": lzma.LZMADecompressor,
    ".bz2": bz2.BZ2Decompressor,
    # Web dumps are compressed with larger windows than the library allows by default.
    ".zst": lambda: zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj(),
}
_BUFFER = 1 << 18


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
        ending = _compression(name, raw)
        if not ending:
            yield raw, raw
        elif seekable:
            with tempfile.TemporaryFile() as unpacked:
                _unpack(name, _Archive(raw, ending), unpacked)
                yield raw, unpacked
        else:
            yield raw, io.BufferedReader(_Archive(raw, ending), _BUFFER)


def _unpack(name: str, archive: io.RawIOBase, into: IO[bytes]) -> None:
    try:
        with disk_errors(Path(tempfile.gettempdir())):
            shutil.copyfileobj(io.BufferedReader(archive, _BUFFER), into, _BUFFER)
    except Exception as error:
        if not is_archive_damage(error):
            raise
        what = f"the archive is cut short or damaged ({error or type(error).__name__})"
        raise T5smithError(what, where=name, fix="fetch or compress the file again") from None
    into.seek(0)


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

                file = cast("contextlib.AbstractContextManager[io.RawIOBase]", fsspec.open(name, "rb"))
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


def is_archive_damage(error: BaseException) -> bool:
    """Whether an exception means that an archive is truncated or altered."""
    return isinstance(error, DAMAGE) or (isinstance(error, OSError) and error.errno is None)


class _Archive(io.RawIOBase):
    """The decompressed bytes of an archive of one or more streams, up to the first damage.

    The libraries' own readers take what follows the first stream for padding if it is damaged, or lose what
    they had unpacked when they find damage; this one gives all that there is, and then says so.
    """

    def __init__(self, file: IO[bytes], ending: str) -> None:
        self._file, self._ending, self._new = file, ending, _DECODERS[ending]
        # Streams of these may be followed by zeros.
        self._padded = ending in (".gz", ".xz")
        self._decoder: Any = None
        self._streams = 0
        self._packed = self._left = b""
        self._read = 0
        # Of the current stream: its first byte in the file, and the bytes unpacked.
        self._start = self._unpacked = 0
        self._damage: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._left:
            if self._damage is not None:
                raise self._damage
            if self._decoder is None and not self._next_stream():
                return 0
            self._decode()
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def _fetch(self) -> bool:
        self._packed = self._file.read(_BUFFER)
        self._read += len(self._packed)
        return bool(self._packed)

    def _next_stream(self) -> bool:
        """Start the next stream, if there is another."""
        while True:
            if self._streams and self._padded:
                self._packed = self._packed.lstrip(b"\0")
            if self._packed:
                self._decoder = self._new()
                self._streams += 1
                self._start, self._unpacked = self._read - len(self._packed), 0
                return True
            if not self._fetch():
                return False

    def _decode(self) -> None:
        decoder, ended = self._decoder, False
        if not self._packed and getattr(decoder, "needs_input", True):
            ended = not self._fetch()
        try:
            self._left = _step(decoder, self._ending, self._packed, _BUFFER)
        except Exception as error:
            if not is_archive_damage(error):
                raise
            self._salvage(error)
            return
        self._unpacked += len(self._left)
        if decoder.eof:
            self._packed, self._decoder = decoder.unused_data, None
        else:
            self._packed = getattr(decoder, "unconsumed_tail", b"")
            if ended and not self._left:
                raise EOFError("it ends in the middle")

    def _salvage(self, error: Exception) -> None:
        """Unpack what a failed step would have given; the error follows it."""
        self._damage = error
        if self._streams > 1 and not self._unpacked:
            self._damage = EOFError("what follows the end of a stream is not another one")
        failed = self._read - len(self._packed)
        with contextlib.suppress(OSError):  # some remote files cannot be read again
            self._file.seek(self._start)
            self._left = b"".join(self._again(failed))

    def _again(self, failed: int) -> Iterator[bytes]:
        """Unpack the current stream again, byte by byte from where a step failed.

        A library drops what it has unpacked in a step that fails.

        Args:
          failed: position in the file of what was given to that step.
        """
        decoder, skipped, position = self._new(), 0, self._start
        packed, steps = b"", self._ending != ".zst"
        with contextlib.suppress(*DAMAGE, OSError):
            # zstd does not limit what comes out, but takes all that goes in.
            while skipped < self._unpacked if steps else position < failed:
                if not packed and getattr(decoder, "needs_input", True):
                    packed = self._file.read(_BUFFER if steps else min(_BUFFER, failed - position))
                    position += len(packed)
                    if not packed:
                        return
                out = _step(decoder, self._ending, packed, min(_BUFFER, self._unpacked - skipped))
                packed, skipped = getattr(decoder, "unconsumed_tail", b""), skipped + len(out)
            while not decoder.eof:
                packed = packed or self._file.read(_BUFFER)
                if not packed and getattr(decoder, "needs_input", True):
                    return
                size = 512 if steps else 1
                piece, packed = packed[:size], packed[size:]
                while out := _step(decoder, self._ending, piece, 1):
                    yield out
                    piece = getattr(decoder, "unconsumed_tail", b"")
                    if decoder.eof or not steps:
                        break
                packed = getattr(decoder, "unconsumed_tail", b"") + packed


def _step(decoder: Any, ending: str, packed: bytes, most: int) -> bytes:
    """Unpack in a bounded step where the library can: a few bytes may expand to very many."""
    return decoder.decompress(packed) if ending == ".zst" else decoder.decompress(packed, most)
