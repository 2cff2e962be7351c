"""The members of a zip archive, in the order of its directory, or as they lie in it if that is missing.

The directory is read piece by piece, and nothing that it states is believed without a look at the file:
memory does not grow with the number of members, or with the sizes that they claim. PKWARE's APPNOTE.TXT
describes the format.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from t5smith.text.archives.first_bytes import ZIP
from t5smith.text.archives.member import Member, Part, member_name
from t5smith.text.decompression import DEFLATE, Decompressed
from t5smith.text.skipped_records import DAMAGED_ARCHIVE, ENCRYPTED, SIDE_MEMBERS, UNREADABLE

_HEADER, _ENTRY, _DESCRIPTOR, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x07\x08", b"PK\x05\x06"
_END_64 = b"PK\x06\x06"
_END_BYTES, _END_64_BYTES, _LOCATOR_BYTES, _ENTRY_BYTES, _HEADER_BYTES = 22, 56, 20, 46, 30
MAX_COMMENT = 0xFFFF
MAX_RATIO = 1032
"""Most bytes that deflate makes of one."""
_EMPTY_BYTES = 2
"""Bytes that deflate makes of none."""
_METHODS = {0: "", 8: DEFLATE, 12: ".bz2", 93: ".zst", 95: ".xz"}
_DIRECTORY_PIECE = 1 << 20
_SEARCHED = 1 << 20
_UNKNOWN = 0xFFFFFFFF
"""Stands for a size or an offset that is in an extra field."""
_UNIX = 3
"""The system whose file modes the directory has."""
_STREAMED = 8
"""A flag: sizes follow the data."""


@dataclass(frozen=True)
class _Entry:
    """What the directory, or the header in front of the data, states of a member.

    Attributes:
      header: position of that header.
      stored: bytes of its data.
      size, crc: of the data when it is unpacked; None: unknown.
    """

    name: bytes
    flags: int
    method: int
    header: int
    stored: int
    size: int | None
    crc: int | None
    link: bool = False


class _DamagedError(Exception):
    """The directory cannot be read on."""


def zip_members(stream: IO[bytes]) -> Iterator[Member]:
    """The files of a zip archive, without its folders.

    Args:
      stream: can be read from any position.
    """
    total = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    base = read = end = 0
    entries = _directory(stream, total)
    while True:
        try:
            entry = next(entries, None)
        except _DamagedError as error:
            yield Member("", base, 1, fault=(DAMAGED_ARCHIVE, str(error)))
            base, entries = base + 1, _found(stream, end, total)
            continue
        if entry is None:
            return
        end = max(end, entry.header + _HEADER_BYTES + entry.stored)
        read += entry.stored
        # What claims to be empty and has more is read.
        empty = entry.size == 0 and entry.stored <= _EMPTY_BYTES
        if entry.name.endswith((b"/", b"\\")) and empty:
            continue
        span = entry.stored * 4 if entry.size is None else min(entry.size, (entry.stored + 1) * MAX_RATIO)
        member = Member(
            _name(entry),
            base,
            max(span, 1),
            lambda entry=entry: _content(stream, total, entry),
            _fault(entry, read > total),
            seekable=not _METHODS.get(entry.method),
            empty=empty,
        )
        base += member.span
        yield member


def _name(entry: _Entry) -> str:
    try:
        return member_name(entry.name.decode("utf-8"))
    except UnicodeDecodeError:
        return member_name(entry.name.decode("cp437"))


def _fault(entry: _Entry, overlaps: bool) -> tuple[str, str] | None:
    if entry.link:
        return SIDE_MEMBERS, "a link"
    if entry.flags & 1:
        return ENCRYPTED, "this member is encrypted"
    if entry.method not in _METHODS:
        return UNREADABLE, f"this member is compressed by an unknown method, {entry.method}"
    if overlaps:
        return UNREADABLE, "members of this archive share their bytes"
    return None


def _content(stream: IO[bytes], total: int, entry: _Entry) -> io.RawIOBase:
    """The unpacked bytes of a member, which are checked."""
    stream.seek(entry.header)
    header = stream.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(_HEADER):
        raise EOFError("the directory points to what is no member")
    name, extra = struct.unpack("<HH", header[26:30])
    part = Part(stream, entry.header + _HEADER_BYTES + name + extra, min(entry.stored, total))
    ending = _METHODS[entry.method]
    if not ending and entry.crc is None and entry.size is None:
        return part
    unpacked = Decompressed(io.BufferedReader(part), ending) if ending else part
    return _Checked(unpacked, entry.size, entry.crc)


class _Checked(io.RawIOBase):
    """The unpacked bytes of a member. It is damaged if their number or check sum is not as stated."""

    def __init__(self, source: io.RawIOBase, size: int | None, crc: int | None) -> None:
        self._source, self._expected, self._crc = source, size, crc
        self._size = self._sum = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._source.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._crc = self._expected = None  # it is not read in order
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def readinto(self, buffer: Any, /) -> int:
        read = self._source.readinto(buffer) or 0
        if not read and self._expected not in (None, self._size):
            raise EOFError(f"it has {self._size:,} bytes, not {self._expected:,} as stated")
        if not read and self._crc not in (None, self._sum):
            raise zlib.error("its check sum is wrong")
        self._size += read
        self._sum = zlib.crc32(memoryview(buffer)[:read], self._sum)
        return read


def _directory(stream: IO[bytes], total: int) -> Iterator[_Entry]:
    """The entries of the directory at the end of the archive."""
    place, end, shift, after = _place_of_directory(stream, total)
    data, at = b"", 0
    while place + at < end:
        if len(data) - at < _ENTRY_BYTES + 3 * 0xFFFF and place + len(data) < end:
            # Members are read in between; progress is shown by where they are.
            place, at, data = place + at, 0, _read_at(stream, place + at, end, _DIRECTORY_PIECE)
        if data[at : at + 4] != _ENTRY or len(data) - at < _ENTRY_BYTES:
            raise _DamagedError("its directory is damaged")
        made, _, flags, method, _, _, crc, stored, size, *lengths, _, _, mode, header = struct.unpack_from(
            "<HHHHHHIIIHHHHHII", data, at + 4
        )
        name_bytes, extra_bytes, comment_bytes = lengths
        name_at = at + _ENTRY_BYTES
        name = data[name_at : name_at + name_bytes]
        extra = data[name_at + name_bytes : name_at + name_bytes + extra_bytes]
        size, stored, header = _large(extra, [size, stored, header])
        at = name_at + name_bytes + extra_bytes + comment_bytes
        header += shift
        if not 0 <= header < total:
            raise _DamagedError("its directory is damaged")
        link = made >> 8 == _UNIX and stat.S_ISLNK(mode >> 16)
        yield _Entry(name, flags, method, header, min(stored, total), size, crc, link)
    yield from _found(stream, after, total)  # archives that were joined


def _place_of_directory(stream: IO[bytes], total: int) -> tuple[int, int, int, int]:
    """Where the directory begins and ends, what is to be added to its offsets, and where its archive ends."""
    # With other bytes before the first member, this is that of a program that unpacks it; otherwise what is
    # shifted is the directory of an archive in this one, which is cut short.
    begins = _read_at(stream, 0, total, len(_HEADER)) in ZIP
    start = max(total - MAX_COMMENT - _END_BYTES - _END_64_BYTES - _LOCATOR_BYTES, 0)
    tail = _read_at(stream, start, total, total - start)
    at = len(tail)
    while (at := tail.rfind(_END, 0, at)) >= 0:
        if at + _END_BYTES > len(tail):
            continue
        size, offset, comment = struct.unpack_from("<IIH", tail, at + 12)
        end = start + at
        after = end + _END_BYTES + comment
        if _UNKNOWN in (size, offset) or tail[at + 10 : at + 12] == b"\xff\xff":
            large = at - _LOCATOR_BYTES - _END_64_BYTES
            if large >= 0 and tail[large : large + 4] == _END_64:
                size, offset = struct.unpack_from("<QQ", tail, large + 40)
                end = start + large
        if size <= end and (offset == end - size or (offset < end - size and not begins)):
            return end - size, end, end - size - offset, after
    raise _DamagedError("its directory is missing, so it is cut short or damaged")


def _found(stream: IO[bytes], place: int, total: int) -> Iterator[_Entry]:
    """The members from a place on, by the header in front of each."""
    while (place := _next(stream, place, total, (_HEADER,))) < total:
        header = _read_at(stream, place, total, _HEADER_BYTES + 2 * 0xFFFF)
        if len(header) < _HEADER_BYTES:
            return
        version, flags, method, _, _, crc, stored, size, name, extra = struct.unpack_from(
            "<HHHHHIIIHH", header, 4
        )
        data = _HEADER_BYTES + name + extra
        if not name or version & 0xFF > 100 or data > len(header):
            place += 4
            continue
        size, stored = _large(header[data - extra : data], [size, stored])
        streamed = bool(flags & _STREAMED) and not stored
        if streamed:
            signs = (_HEADER, _ENTRY, _DESCRIPTOR)
            stored = _next(stream, place + data, total, signs) - place - data
        yield _Entry(
            header[_HEADER_BYTES : _HEADER_BYTES + name],
            flags,
            method,
            place,
            min(stored, total),
            None if streamed else size,
            None if streamed else crc,
        )
        place += data + stored


def _next(stream: IO[bytes], place: int, total: int, signs: tuple[bytes, ...]) -> int:
    """The place of the next of some signs, each of four bytes; the end of the file if there is none."""
    while place < total:
        data = _read_at(stream, place, total, _SEARCHED)
        found = [at for at in map(data.find, signs) if at >= 0]
        if found:
            return place + min(found)
        if len(data) < _SEARCHED:
            break
        place += len(data) - 3
    return total


def _read_at(stream: IO[bytes], place: int, end: int, size: int) -> bytes:
    """Some bytes from a place, up to an end; the stream stays where it is."""
    before = stream.tell()
    stream.seek(place)
    data = stream.read(max(min(size, end - place), 0))
    stream.seek(before)
    return data


def _large(extra: bytes, fields: list[int]) -> list[int]:
    """Sizes and offset of a member, those of more than 4 GB from its extra fields."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{min(size, len(extra) - at - 4) // 8}Q", extra, at + 4))
            return [next(values, field) if field == _UNKNOWN else field for field in fields]
        at += 4 + size
    return fields
