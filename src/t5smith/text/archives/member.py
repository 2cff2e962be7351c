"""A member of an archive: its place, and its bytes as a stream that can be read again from its beginning."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from t5smith.base.disk import disk_errors
from t5smith.text.decompression import is_archive_damage

MAX_NAME = 200
"""Characters of a member's name; longer ones are shortened in the middle."""
_IN_MEMORY = 1 << 20
_BUFFER = 1 << 18


@dataclass
class Member:
    """A file in an archive, or a stretch of the archive that is damaged.

    Attributes:
      name: its name in the archive, with folders.
      base: its position in the archive. Positions count bytes as they are unpacked, as far as headers state
        them, and no more than there could be.
      span: number of positions up to the next member.
      open: its bytes; raises what `is_archive_damage` knows.
      fault: the kind of skipped record that it is, and what is wrong; none: it can be read.
      seekable: whether its bytes can be read from any position at no cost.
      empty: it has no bytes.
      damaged: it is, as its reader has found and counted.
    """

    name: str
    base: int
    span: int
    open: Callable[[], io.RawIOBase] = io.BytesIO  # type: ignore[assignment]
    fault: tuple[str, str] | None = None
    seekable: bool = False
    empty: bool = False
    damaged: bool = False


def member_name(raw: bytes | str) -> str:
    """The name of a member as it is shown: relative, in one line, and not too long. It is never opened."""
    name = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in name.replace("\\", "/"))
    name = name.lstrip("/").removeprefix("./")
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME // 2]}…{name[-MAX_NAME // 2 :]}"


class Part(io.RawIOBase):
    """Some bytes of a file as a stream.

    Attributes:
      place: bytes read so far.
    """

    def __init__(self, file: IO[bytes], start: int, size: int, seekable: bool = True) -> None:
        """The `size` bytes from `start`; a file that is not seekable is there, and nobody else reads it."""
        self._file, self._start, self._size, self._seekable = file, start, size, seekable
        self.place = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read from any place."""
        return self._seekable

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place."""
        self._checkSeekable()
        self.place = max(offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place}.get(whence, self._size), 0)
        return self.place

    def tell(self) -> int:
        """The place."""
        return self.place

    def readinto(self, buffer: Any, /) -> int:
        """Some more bytes.

        Raises:
          EOFError: the file ends before.
        """
        size = min(len(buffer), self._size - self.place)
        if size <= 0:
            return 0
        if self._seekable:
            self._file.seek(self._start + self.place)
        data = cast(io.BufferedReader, self._file).read1(size)
        if not data:
            raise EOFError("it ends in the middle")
        buffer[: len(data)] = data
        self.place += len(data)
        return len(data)

    def _checkSeekable(self) -> None:  # noqa: N802 - as in io
        if not self._seekable:
            raise io.UnsupportedOperation("not seekable")


class Rereadable:
    """The bytes of a stream; those at its beginning can be read several times, until :meth:`settle`.

    Formats look at the first records before they read. They are kept in memory, or in a temporary file.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = cast(io.BufferedReader, stream)
        self._kept: IO[bytes] | None = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - see close
        self._size = 0
        self._settled = False
        self._damage: Exception | None = None

    def cursor(self) -> Cursor:
        """A reader of the bytes from the beginning."""
        assert not self._settled
        return Cursor(self)

    @contextmanager
    def again(self) -> Generator[IO[bytes]]:
        """The bytes from the beginning, to look at some of them."""
        yield io.BufferedReader(self.cursor(), _BUFFER)

    def settle(self) -> None:
        """Keep no more: what is being read is read for the last time."""
        self._settled = True

    def close(self) -> None:
        """Remove what is kept."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def read(self, place: int, size: int) -> bytes:
        """Some bytes from a place that is not behind the farthest that was read."""
        if self._kept is not None and place < self._size:
            self._kept.seek(place)
            return self._kept.read(min(size, self._size - place))
        if self._damage is not None:
            raise self._damage
        if self._settled:
            self.close()
        try:
            data = self._stream.read1(size)
        except Exception as error:
            self._damage = error
            raise
        if self._kept is not None:
            with disk_errors(Path(tempfile.gettempdir())):
                self._kept.seek(0, io.SEEK_END)
                self._kept.write(data)
        self._size += len(data)
        return data


class Cursor(io.RawIOBase):
    """A reader of a :class:`Rereadable`.

    Attributes:
      failed: it has come to where the bytes are damaged, or end too early, and raised that.
    """

    def __init__(self, source: Rereadable) -> None:
        """Start at the beginning."""
        self._source = source
        self._place = 0
        self.failed = False

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Some more bytes."""
        try:
            data = self._source.read(self._place, len(buffer))
        except Exception as error:
            self.failed |= is_archive_damage(error)
            raise
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
