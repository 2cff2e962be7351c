"""Lines of a file, whole or some blocks of it, and the documents of plain text."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import IO, Any

from t5smith.base.errors import T5smithError
from t5smith.text.decompression import is_archive_damage
from t5smith.text.document import BlockSelection, Document, lines_before
from t5smith.text.skipped_records import DAMAGED_ARCHIVE, FileRecords

BOM, _MARK = b"\xef\xbb\xbf", "\ufeff"
"""The byte order mark that some programs write at the beginning of a file."""

_SKIPPED = 1 << 20
"""Bytes of a line that are skipped at a time."""
TOO_LONG = b""
"""Stands for a line that is longer than `corpus.longest_document`."""

Positioned = tuple[int, Document | None]
"""A position in the file, and the document that begins there; None: a block begins there."""


class Lines:
    """The lines of a file as text, without their ends.

    Attributes:
      number: number of the line read last, counted from where reading began.
      position: its first byte.
      next: first byte of the next line.
      quotes: number of double quotes in the line that was too long last.
      damaged: the archive is truncated or altered, so the record being read is incomplete.
    """

    def __init__(
        self, name: str, stream: IO[bytes], blocks: BlockSelection, records: FileRecords, longest: int
    ) -> None:
        self.name, self.stream, self.blocks, self.records, self.longest = (
            name,
            stream,
            blocks,
            records,
            longest,
        )
        self.number = self.quotes = 0
        self.damaged = False
        self.position = self.next = blocks.start
        self._before: int | None = None
        if blocks.start:
            stream.seek(blocks.start - 1)
            self.next -= 1
            # The rest of a line that began before. If it goes on beyond the blocks, nothing begins here.
            while more := stream.readline(_SKIPPED):
                self.next += len(more)
                if more[-1] == 10 or (blocks.stop is not None and self.next >= blocks.stop):
                    break
            # The line that was cut is not counted here, but among those before.
            self._after = self.next
        else:
            self._after = 0

    @property
    def here(self) -> str:
        """The line read last, as `file:line`."""
        if self._before is None:
            self._before = lines_before(self.name, self._after) if self._after else 0
        return f"{self.name}:{self.number + self._before}"

    @property
    def last(self) -> int:
        """The last byte read: the same for all readers that reach the end."""
        return max(self.next - 1, 0)

    def document(self, text: str, line: int) -> Document:
        """A document that begins at a line."""
        return Document(text, self.name, line, self._after)

    def raw(self) -> Iterator[bytes]:
        """Each line with its end; TOO_LONG for one that is too long."""
        if self.blocks.start and self.blocks.stop is not None and self.next >= self.blocks.stop:
            return  # a line that began before goes on through all of the blocks
        read = self.stream.readline
        limit = self.longest + 1
        try:
            while line := read(limit):
                self.number += 1
                self.position, self.next = self.next, self.next + len(line)
                if self.number == 1 and not self._after:
                    _reject_other_encodings(line, self.here)
                if len(line) == limit and line[-1] != 10:
                    self.quotes = line.count(b'"')
                    self._skip_rest(read, limit)
                    yield TOO_LONG
                    continue
                if self.number == 1 and not self._after and line.startswith(BOM):
                    line = line[len(BOM) :] or b"\n"  # not what stands for a long line
                yield line
        except Exception as error:
            if not is_archive_damage(error):
                raise
            self.number += 1
            self.damaged = True
            if self.blocks.includes(self.blocks.block_of(self.next)):
                what = f"the archive is cut short or damaged ({error or type(error).__name__})"
                fix = "fetch or compress the file again"
                self.records.skip(DAMAGED_ARCHIVE, T5smithError(what, where=self.here, fix=fix))

    def wanted(self) -> Iterator[bytes | None]:
        """Lines that begin in the selected blocks, and None before the first line of each block."""
        block, ours = -1, False
        for raw in self.raw():
            if self.blocks.stop is not None and self.position >= self.blocks.stop:
                return
            if block != (block := self.blocks.block_of(self.position)):
                ours = self.blocks.includes(block)
                yield None
            if ours:
                yield raw

    def _skip_rest(self, read: Any, limit: int) -> None:
        while more := read(limit):
            self.next += len(more)
            self.quotes += more.count(b'"')
            if more[-1] == 10:
                break

    def decoded(self, raw: bytes) -> str | None:
        """A line as text without its end; None if it is unusable, which is counted."""
        if raw == TOO_LONG:
            what = f"a line of {self.next - self.position:,} bytes is longer than allowed"
            self.records.skip("too long", too_long(self, what))
            return None
        raw = raw.rstrip(b"\r\n")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            what = f"invalid UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1} of the line"
            fix = "save the text as UTF-8 (`iconv -f latin1 -t utf-8` if it is Latin-1)"
            self.records.skip(
                "not UTF-8", T5smithError(what, where=self.here, expected="text in UTF-8", fix=fix)
            )
            return None


def text_lines(lines: Lines) -> Iterator[Positioned]:
    """One document per line; blank lines are skipped."""
    for raw in lines.wanted():
        if raw is None:
            yield lines.position, None
        elif (text := _unmarked(lines.decoded(raw) or "")) and not text.isspace():
            yield lines.position, lines.document(text, lines.number)
    yield lines.last, None


def text_file(lines: Lines) -> Iterator[Positioned]:
    """The file as one document."""
    held: list[str] = []
    first, size = 1, 0
    for raw in lines.raw():
        text = lines.decoded(raw)
        size += len(raw)
        if text is None:
            return
        if size > lines.longest:
            lines.records.skip("too long", too_long(lines))
            return
        if held or (text != _MARK and text and not text.isspace()):
            first = first if held else lines.number
            held.append(text)
    if held and not lines.damaged:
        yield 0, lines.document(_unmarked("\n".join(held)).rstrip("\n"), first)


def text_blocks(lines: Lines) -> Iterator[Positioned]:
    """One document per run of lines between blank lines. Its position is that of the blank line before."""
    blocks = lines.blocks
    held: list[str] = []
    position, first, size = blocks.start, 1, 0
    # When reading starts in the middle, text before the first blank line belongs to another block.
    ours = not blocks.start and blocks.includes(blocks.block_of(0))
    broken = False
    for raw in lines.raw():
        if not ours and blocks.stop is not None and lines.position >= blocks.stop:
            return
        if raw.isspace() or (raw[:1] not in _PLAIN and _is_blank(raw)):
            if held and not broken:
                yield position, lines.document(_unmarked("\n".join(held)), first)
            held, size, broken = [], 0, False
            position = lines.position
            if blocks.stop is not None and position >= blocks.stop:
                return
            ours = blocks.includes(blocks.block_of(position))
            yield position, None
        elif ours and not broken:
            text = lines.decoded(raw)
            size += len(raw)
            if text is not None and size > lines.longest:
                lines.records.skip("too long", too_long(lines))
                text = None
            broken = text is None
            first = first if held else lines.number
            held.append(text or "")
    if held and not broken and not lines.damaged:
        yield position, lines.document(_unmarked("\n".join(held)), first)
    yield lines.last, None


def _unmarked(text: str) -> str:
    """Text without byte order marks at the beginning of lines, where files were joined."""
    if _MARK not in text:
        return text
    return "\n".join(line.removeprefix(_MARK) for line in text.split("\n"))


def _reject_other_encodings(line: bytes, here: str) -> None:
    """Reject a file that decodes as UTF-8 but is not what its author meant, by its first line.

    Most UTF-16 and UTF-32 does, with a NUL beside each letter. A file with the line ends of old Macs (CR) is
    a single line.

    Raises:
      T5smithError: it begins so.
    """
    begin = line[:1_000]
    if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or begin.count(0) * 3 > len(begin):
        fix = "save the text as UTF-8 (`iconv -f utf-16 -t utf-8`)"
        raise T5smithError("this looks like UTF-16", where=here, expected="text in UTF-8", fix=fix)
    if not line.endswith(b"\n") and line.rstrip(b"\r").count(b"\r") > 1:
        fix = "change them (`tr '\\r' '\\n'`)"
        raise T5smithError("its lines end in CR, as on old Macs", where=here, expected="line feeds", fix=fix)


_PLAIN = frozenset(bytes([code]) for code in range(0x21, 0x7F))


def _is_blank(raw: bytes) -> bool:
    """Whether a line has only white space, in any script."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return text.isspace() or text.strip() == _MARK


def too_long(lines: Lines, what: str = "a document is longer than allowed") -> T5smithError:
    """The error for a document that is too long, at the line read last."""
    return T5smithError(
        what,
        where=lines.here,
        expected=f"at most {lines.longest:,} bytes",
        fix="raise corpus.longest_document, or make documents smaller (corpus.document)",
    )
