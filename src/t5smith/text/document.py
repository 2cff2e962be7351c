"""One document of a corpus, and which documents of a file are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from t5smith.text.compression import opened


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its text and where it begins.

    Attributes:
      text: as it stands in the file.
      file: its name.
      line: the first is 1; of a file that is no text, the number of the row or record.
      after: byte of the file from which lines were counted; 0: from its beginning.
    """

    text: str
    file: str
    line: int
    after: int = 0

    @property
    def bytes(self) -> int:
        """Length of the text in UTF-8."""
        return len(self.text.encode())

    @property
    def place(self) -> str:
        """Where it begins, as `file:line`."""
        if not self.after:
            return f"{self.file}:{self.line}"
        return f"{self.file}:{self.line + lines_before(self.file, self.after)}"


def lines_before(file: str, offset: int) -> int:
    """How many line ends there are in the first `offset` bytes of a plain file."""
    found, left = 0, offset
    with opened(file) as stream:
        while left and (data := stream.read(min(left, 1 << 20))):
            found += data.count(b"\n")
            left -= len(data)
    return found


@dataclass(frozen=True)
class Part:
    """Which blocks of a file are read. A block is a stretch of its bytes, uncompressed, or as good.

    A document belongs to the block in which it begins, so blocks do not depend on who reads them.

    Attributes:
      unit: bytes of a block; 0: the whole file is block 0.
      start, stop: where reading begins, and before which documents begin; None: the end.
      turn, turns: of the blocks, those whose number leaves `turn` when divided by `turns`.
      done: blocks that need not be read again.
    """

    unit: int = 0
    start: int = 0
    stop: int | None = None
    turn: int = 0
    turns: int = 1
    done: frozenset[int] = frozenset()

    def block(self, position: int) -> int:
        """The block of a place in the file."""
        return position // self.unit if self.unit else 0

    def wants(self, block: int) -> bool:
        """Whether a block is to be read here."""
        return block % self.turns == self.turn and block not in self.done


WHOLE = Part()
