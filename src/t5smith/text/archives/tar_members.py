"""The members of a tar archive, as POSIX (ustar, pax), GNU and older programs write them.

A header states the size of what follows; it is believed only as far as there are bytes. After a damaged
header reading goes on at the next one. Archives that were joined are read as one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import IO, cast

from t5smith.text.archives.first_bytes import TAR_BLOCK, is_tar_header
from t5smith.text.archives.member import Member, Part, member_name
from t5smith.text.decompression import is_archive_damage
from t5smith.text.skipped_records import DAMAGED_ARCHIVE, SIDE_MEMBERS, UNREADABLE

MAX_EXTENDED = 1 << 20
"""Bytes of an extended header that are read."""
_REGULAR, _FOLDER, _SPARSE = b"0\0" + b"7", b"5", b"S"
_LINKS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"V": "a label"}
_NAME, _LINK, _PAX, _ALL = b"L", b"K", b"x", b"g"
_RECORD = re.compile(rb"(\d{1,7}) ([^=]+)=")
_SKIPPED = 1 << 18


def tar_members(stream: IO[bytes]) -> Iterator[Member]:
    """The files of a tar archive, without its folders.

    Args:
      stream: its decompressed bytes.
    """
    tape = _Tape(stream)
    extended: dict[str, bytes] = {}
    ended = lost = False
    while True:
        start = tape.place
        try:
            block = tape.read(TAR_BLOCK)
        except Exception as error:
            if not is_archive_damage(error):
                raise
            yield _damaged(start, str(error) or type(error).__name__)
            return
        if len(block) < TAR_BLOCK:
            if not lost and (not ended or block.strip(b"\0")):
                yield _damaged(start, "it does not end in blocks of zeros")
            return
        if not block.strip(b"\0"):
            ended = True
            continue
        if not is_tar_header(block):
            if not lost:
                yield _damaged(start, "a header is damaged")
            lost = True
            continue
        ended = lost = False
        kind, size = block[156:157], _number(block[124:136])
        if kind in (_NAME, _LINK, _PAX, _ALL):
            data = tape.extended(size)
            if data is None:
                yield _damaged(start, "it ends within a header")
                return
            if kind == _NAME:
                extended["path"] = data.rstrip(b"\0")
            elif kind == _PAX:
                extended |= _records(data)
            continue
        if extended.get("size", b"").isdigit():
            size = int(extended["size"].lstrip(b"0")[:20] or b"0")
        yield from _member(tape, start, block, size, extended)
        extended = {}
        if tape.ended:
            return


def _member(tape: _Tape, start: int, block: bytes, size: int, extended: dict[str, bytes]) -> Iterator[Member]:
    """A file and, if the archive ends within it and no reader has met with that, the damage."""
    kind = block[156:157]
    has_data = kind not in _LINKS and kind != _FOLDER
    name = member_name(extended.get("path") or _own_name(block))
    size = size if has_data else 0
    part = Part(tape.stream, tape.place, size, tape.seekable)
    fault = None
    if kind in _LINKS:
        fault = SIDE_MEMBERS, _LINKS[kind]
    elif kind == _SPARSE or any(key.startswith("GNU.sparse") for key in extended):
        fault = UNREADABLE, "this member is a file with holes"
    elif kind not in _REGULAR:
        fault = UNREADABLE, f"this member is of an unknown type, {member_name(kind)!r}"
    damaged = False
    if kind != _FOLDER and not (kind in _REGULAR and name.endswith("/") and not size):
        empty = not size and not fault
        member = Member(name, start, max(size, 1), lambda: part, fault, tape.seekable, empty)
        yield member
        damaged = member.damaged
    tape.ended = not tape.skip(size, part.place)
    if tape.ended and not damaged:
        yield _damaged(start, "it ends within this member", name)


def _damaged(place: int, why: str, name: str = "") -> Member:
    return Member(name, place, 1, fault=(DAMAGED_ARCHIVE, why))


class _Tape:
    """The stream of an archive.

    Attributes:
      place: the position in the archive at which reading goes on.
      seekable: it can be moved without reading.
      ended: it ended within a member.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.seekable = stream, stream.seekable()
        self.place, self.ended = 0, False
        self._total = 0
        if self.seekable:
            self._total = stream.seek(0, io.SEEK_END)
            stream.seek(0)

    def read(self, size: int) -> bytes:
        """The next bytes; fewer only at the end."""
        if self.seekable:
            self.stream.seek(self.place)  # where the reader of a member has left it is unknown
        data = self.stream.read(size)
        self.place += len(data)
        return data

    def extended(self, size: int) -> bytes | None:
        """The content of an extended header, nothing of one that is too large; None: it is cut short."""
        data = b""
        try:
            if size <= MAX_EXTENDED:
                data = self.stream.read(size)
        except Exception as error:
            if not is_archive_damage(error):
                raise
        return data if self.skip(size, len(data)) else None

    def skip(self, size: int, read: int) -> bool:
        """Pass the data of a member, and what fills its last block; whether all of the data is there.

        Args:
          size: of the data.
          read: bytes of it that have been read, if the stream is not seekable.
        """
        target = self.place + -(-size // TAR_BLOCK) * TAR_BLOCK
        if self.seekable:
            there = self.place + size <= self._total
            self.place = min(target, self._total)
            return there
        place, end = self.place + read, self.place + size
        self.place = target
        while place < target:
            try:
                # Only this gives all there is before damage.
                data = cast(io.BufferedReader, self.stream).read1(min(_SKIPPED, target - place))
            except Exception as error:
                if not is_archive_damage(error):
                    raise
                data = b""
            if not data:
                return place >= end
            place += len(data)
        return True


def _own_name(block: bytes) -> bytes:
    name, prefix = block[:100].split(b"\0")[0], block[345:500].split(b"\0")[0]
    posix = block[257:263] == b"ustar\0"
    return prefix + b"/" + name if posix and prefix else name


def _number(field: bytes) -> int:
    """A number, in octal digits or, if it is large, in binary."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else 0
    digits = field.strip(b" \0")
    return int(digits, 8) if re.fullmatch(b"[0-7]+", digits) else 0


def _records(data: bytes) -> dict[str, bytes]:
    """The records of an extended header; nothing from the first on that is not as it should be."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data) and (record := _RECORD.match(data, at)):
        end = at + int(record[1])
        if end <= record.end() or end > len(data):
            break
        found[record[2].decode("utf-8", "replace")] = data[record.end() : end - 1]
        at = end
    return found
