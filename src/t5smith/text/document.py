"""One document of a corpus, and the blocks of a file that are read."""

from __future__ import annotations

from dataclasses import dataclass

from t5smith.text.compression import open_file


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its text and where it begins.

    Attributes:
      text: as it is in the file.
      file: name of the file.
      line: number of the line, from 1; in a file that is not text, of the row or record.
      counted_from: byte of the file from which lines are counted.
      member: of a file that is an archive: the name of the file in it.
    """

    text: str
    file: str
    line: int
    counted_from: int = 0
    member: str = ""

    @property
    def bytes(self) -> int:
        """Length of the text in UTF-8."""
        return len(self.text.encode())

    @property
    def where(self) -> str:
        """Where it begins, as `file:line`, or `archive/member:line`."""
        if self.member:
            return f"{self.file}/{self.member}:{self.line}"
        before = lines_before(self.file, self.counted_from) if self.counted_from else 0
        return f"{self.file}:{self.line + before}"


def lines_before(file: str, offset: int) -> int:
    """Number of line ends in the first `offset` bytes of an uncompressed file."""
    lines = 0
    with open_file(file) as stream:
        while offset and (data := stream.read(min(offset, 1 << 20))):
            lines += data.count(b"\n")
            offset -= len(data)
    return lines


@dataclass(frozen=True)
class BlockSelection:
    """The blocks of a file that one task reads. A block is a stretch of the file's uncompressed bytes.

    A document belongs to the block in which it begins, so blocks do not depend on who reads them.

    Attributes:
      block_bytes: bytes per block; 0: the whole file is block 0.
      start, stop: byte where reading starts, and byte before which documents begin; None: the end.
      reader, readers: of the blocks, those whose number modulo `readers` is `reader`.
      finished: blocks that are not read again.
    """

    block_bytes: int = 0
    start: int = 0
    stop: int | None = None
    reader: int = 0
    readers: int = 1
    finished: frozenset[int] = frozenset()

    def block_of(self, position: int) -> int:
        """The block that a position in the file belongs to."""
        return position // self.block_bytes if self.block_bytes else 0

    def includes(self, block: int) -> bool:
        """Whether a block is read here."""
        return block % self.readers == self.reader and block not in self.finished


WHOLE_FILE = BlockSelection()


@dataclass(frozen=True)
class MemberSelection(BlockSelection):
    """The blocks of an archive, as the reader of a member sees them.

    Attributes:
      base: position of the member in the archive.
      span: number of positions that it has there.
      ratio: of its own positions, so many are one of the archive: more than 1 if the member is compressed.
    """

    base: int = 0
    span: int = 1
    ratio: int = 1

    def place(self, position: int) -> int:
        """The position in the archive of a position in the member."""
        return self.base + min(position // self.ratio, self.span - 1)

    def block_of(self, position: int) -> int:
        """The block that a position in the member belongs to."""
        return super().block_of(self.place(position))

    @property
    def any(self) -> bool:
        """Whether any block that the member may have a part of is read here."""
        return any(map(self.includes, range(self.block_of(0), self.block_of(self.span * self.ratio) + 1)))
