"""Decompression that gives all there is of a compressed file, up to the first damage, and then says so."""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import zstandard

DAMAGE = (EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError)
"""What the libraries raise on a truncated or altered archive. bz2 raises an OSError without a number."""

DEFLATE = ".deflate"
"""A single stream without a header, as zip archives have it."""
_DECODERS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".xz": lzma.LZMADecompressor,
    ".bz2": bz2.BZ2Decompressor,
    # Web dumps are compressed with larger windows than the library allows by default.
    ".zst": lambda: zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj(),
    DEFLATE: lambda: zlib.decompressobj(wbits=-15),
}
_BUFFER = 1 << 18
_ZSTD_STEP = 1 << 12
"""Bytes given to zstd at a time: what comes out is not limited, and four bytes may become 128 KiB."""


def is_archive_damage(error: BaseException) -> bool:
    """Whether an exception means that an archive is truncated or altered."""
    return isinstance(error, DAMAGE) or (isinstance(error, OSError) and error.errno is None)


class Decompressed(io.RawIOBase):
    """The decompressed bytes of an archive of one or more streams, up to the first damage.

    The libraries' own readers take what follows the first stream for padding if it is damaged, or lose what
    they had unpacked when they find damage; this one gives all that there is, and then says so.
    """

    def __init__(self, file: IO[bytes], ending: str) -> None:
        self._file, self._ending, self._new = file, ending, _DECODERS[ending]
        # Streams of these may be followed by zeros.
        self._padded = ending in (".gz", ".xz")
        self._step_bytes = min(_ZSTD_STEP, _BUFFER) if ending == ".zst" else _BUFFER
        self._decoder: Any = None
        self._streams = 0
        self._packed = self._left = b""
        self._read = self._given = 0
        # Of the current stream: its first byte in the file, and the bytes unpacked.
        self._start = self._unpacked = 0
        self._damage: Exception | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Some more bytes; at the first damage, what the decoder's library raises."""
        while self._given == len(self._left):
            if self._damage is not None:
                raise self._damage
            if self._decoder is None and not self._next_stream():
                return 0
            self._given = 0
            self._decode()
        size = min(len(buffer), len(self._left) - self._given)
        buffer[:size] = self._left[self._given : self._given + size]
        self._given += size
        return size

    def _fetch(self) -> bool:
        self._packed = self._file.read(self._step_bytes)
        self._read += len(self._packed)
        return bool(self._packed)

    def _next_stream(self) -> bool:
        """Start the next stream, if there is another."""
        while True:
            if self._streams and self._padded:
                self._packed = self._packed.lstrip(b"\0")
            if self._streams and self._ending == DEFLATE:
                return False
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
                    packed = self._file.read(_BUFFER if steps else min(self._step_bytes, failed - position))
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
