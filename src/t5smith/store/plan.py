"""The plan of `prepare`: how the text is split into blocks, and which task reads which.

Small files are grouped into one block, large files are split into several. Each block becomes a shard, so the
store does not depend on the number of tasks. A large file that can be read only from its beginning, such as a
compressed one, is read by several tasks, each of which keeps the documents of its own blocks.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.compression import compression_of, open_file
from t5smith.text.corpus import CorpusFiles
from t5smith.text.document import BlockSelection
from t5smith.text.fingerprints import bytes_to_read, file_size
from t5smith.text.formats.parquet_arrow import parquet_bytes
from t5smith.text.locations import is_url, split_row_range
from t5smith.text.recognition import RANDOM_ACCESS, is_splittable, one_document_per_file, readable_format

MIN_BLOCK_BYTES, MAX_BLOCK_BYTES = 4 << 20, 256 << 20
"""Limits of the size of a block."""
TARGET_BLOCKS = 256
"""Blocks grow along the corpus: with `n` bytes of text up to a file, its blocks have about `n / 256`."""
COMPRESSION_RATIO = 4
"""Assumed bytes of text per byte of a compressed file; used only to distribute work."""


@dataclass(frozen=True)
class Unit:
    """A large file, or small files that form one block.

    Attributes:
      number: position in the order of the text.
      corpus: name of the corpus.
      split: `train` or `valid`; empty: the hash of each document decides.
      files: names; a single one if there are several blocks.
      bytes: size of the files on disk.
      blocks: number of blocks; None: not known until the file has been read.
      block_bytes: size of a block; 0: one block is the whole unit.
      read: bytes of the files, as they are stored, that reading them takes.
    """

    number: int
    corpus: str
    split: str
    files: tuple[str, ...]
    bytes: int
    blocks: int | None
    block_bytes: int = 0
    read: int = field(default=0, compare=False)

    def shard(self, block: int) -> str:
        """The name of a block's shard."""
        return f"{self.number:05d}-{block:05d}"


@dataclass(frozen=True)
class Assignment:
    """The part of a unit that one task reads."""

    unit: Unit
    part: BlockSelection

    @property
    def read(self) -> int:
        """The share of `Unit.read` that this part is counted as."""
        return self.unit.read // (self.unit.blocks or self.part.readers)


@dataclass(frozen=True)
class Plan:
    """All units of a corpus in the order of the text."""

    units: tuple[Unit, ...]

    @classmethod
    def create(cls, corpus: CorpusFiles) -> Plan:
        """Plan the files that a recipe names.

        Raises:
          T5smithError: a file is missing or unreadable.
        """
        named = [("train", corpus.train), ("valid", corpus.valid)] if corpus.valid else [("", corpus.train)]
        sizes = [
            (split, name, str(file), file_size(file), bytes_to_read(file))
            for split, files_of in named
            for name, files in files_of.items()
            for file in files
        ]
        return cls(tuple(_units(corpus.settings, sizes)))

    def assignments(self, tasks: int, rank: int) -> list[Assignment]:
        """What a task reads. All tasks together read the same blocks, whatever their number."""
        own: list[Assignment] = []
        streams = [unit for unit in self.units if unit.blocks is None]
        readers = _readers(streams, tasks)
        load = [0] * tasks
        for number, unit in enumerate(streams):
            for reader in range(readers):
                task = (number * readers + reader) % tasks
                load[task] += unit.bytes * COMPRESSION_RATIO // readers
                if task == rank:
                    part = BlockSelection(unit.block_bytes, reader=reader, readers=readers)
                    own.append(Assignment(unit, part))
        free = [(size, task) for task, size in enumerate(load)]
        heapq.heapify(free)
        for unit in self.units:
            if unit.blocks is None:
                continue
            for block in range(unit.blocks):
                size, task = heapq.heappop(free)
                heapq.heappush(free, (size + max(unit.bytes // unit.blocks, 1), task))
                if task == rank:
                    start = block * unit.block_bytes
                    part = BlockSelection(unit.block_bytes, start, start + unit.block_bytes)
                    own.append(Assignment(unit, part if unit.blocks > 1 else BlockSelection()))
        return own

    def bytes_to_read(self, tasks: int) -> int:
        """Bytes of the files, as they are stored, that all assignments of all tasks count together."""
        readers = _readers([unit for unit in self.units if unit.blocks is None], tasks)
        return sum(unit.read // parts * parts for unit in self.units if (parts := unit.blocks or readers))

    def to_json(self) -> str:
        """The plan as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def read(cls, file: Path) -> Plan:
        """Read a file with the output of :meth:`to_json`."""
        tree = json.loads(file.read_text(encoding="utf-8"))
        units = (Unit(**(unit | {"files": tuple(unit["files"])})) for unit in tree["units"])
        return cls(tuple(units))


def _readers(streams: Sequence[Unit], tasks: int) -> int:
    """Number of tasks that read each unit whose number of blocks is not known."""
    return max(1, tasks // len(streams)) if streams else 1


def _block_bytes(before: int) -> int:
    """Size of a block of a file, from the bytes of text up to its end.

    It does not depend on what follows, so the blocks of a text stay the same when files are added behind it.
    """
    block_bytes = MIN_BLOCK_BYTES
    while block_bytes < MAX_BLOCK_BYTES and before > block_bytes * TARGET_BLOCKS:
        block_bytes *= 2
    return block_bytes


def _units(corpus: CorpusSettings, sizes: Iterable[tuple[str, str, str, int, int]]) -> Iterator[Unit]:
    small: list[str] = []
    small_bytes = small_read = total = 0
    group = ("", "")
    number = 0
    for split, name, file, size, read in sizes:
        total += size
        block_bytes = _block_bytes(total)
        # Ranges of rows are counted from the beginning of a file, so one task reads it.
        large = size > block_bytes and split_row_range(file)[1] is None
        if small and (large or (split, name) != group or small_bytes + size > block_bytes):
            yield Unit(number, group[1], group[0], tuple(small), small_bytes, 1, read=small_read)
            number, small, small_bytes, small_read = number + 1, [], 0, 0
        group = (split, name)
        if large:
            blocks = _blocks(corpus.of_split(split), file, size, block_bytes)
            block_bytes = 0 if blocks == 1 else block_bytes
            yield Unit(number, name, split, (file,), size, blocks, block_bytes, read)
            number += 1
        else:
            small.append(file)
            small_bytes += size
            small_read += read
    if small:
        yield Unit(number, group[1], group[0], tuple(small), small_bytes, 1, read=small_read)


def _blocks(corpus: CorpusSettings, file: str, size: int, block_bytes: int) -> int | None:
    kind = readable_format(corpus, file)
    if not kind:
        return 1  # it is skipped, and counted once
    if is_splittable(corpus, file):
        return -(-size // block_bytes)
    if kind in RANDOM_ACCESS and compression_of(file):
        return 1  # reading a part needs all of it decompressed
    if kind == "parquet":
        if is_url(file):
            return 1  # its size is at its end, which would take a request per file
        with open_file(file) as stream:
            return max(-(-parquet_bytes(stream, file) // block_bytes), 1)
    return 1 if one_document_per_file(corpus, kind) else None
