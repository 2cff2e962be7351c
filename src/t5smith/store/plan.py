"""How the text of a corpus is parted into work: by stretches of bytes, whatever the number of tasks.

Small files are gathered, large ones are read block by block. Each block becomes a shard of the store, so the
store is the same however many tasks there are. A large file that can be read only from its beginning, as a
compressed one, is read by several tasks, each of which makes a document of every so many blocks alone.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.compression import compression_suffix, open_file
from t5smith.text.corpus import CorpusFiles
from t5smith.text.document import BlockSelection
from t5smith.text.documents import RANDOM_ACCESS, file_format, is_splittable
from t5smith.text.fingerprints import file_size
from t5smith.text.formats.parquet_arrow import parquet_bytes
from t5smith.text.locations import is_url, split_row_range

MIN_BLOCK_BYTES, MAX_BLOCK_BYTES = 4 << 20, 256 << 20
"""Bounds on the bytes of a block."""
TARGET_BLOCKS = 256
"""So many blocks are aimed at."""
COMPRESSION_RATIO = 4
"""Bytes of text in a byte of a compressed file, about; for dealing out work alone."""


@dataclass(frozen=True)
class Unit:
    """Files that are read together.

    Attributes:
      number: counts them in the order of the text.
      corpus: the name of the corpus they are of.
      split: `train` or `valid` where that is given, else nothing: documents' hashes decide.
      files: names, one if there are several blocks.
      bytes: of the files, on disk.
      blocks: how many; None: known when the file has been read.
    """

    number: int
    corpus: str
    split: str
    files: tuple[str, ...]
    bytes: int
    blocks: int | None

    def shard(self, block: int) -> str:
        """The name of what becomes of a block."""
        return f"{self.number:05d}-{block:05d}"


@dataclass(frozen=True)
class Work:
    """What one task does of a unit."""

    unit: Unit
    part: BlockSelection


@dataclass(frozen=True)
class Plan:
    """All units of a corpus, in the order of the text, and the bytes of a block."""

    block_bytes: int
    units: tuple[Unit, ...]

    @classmethod
    def create(cls, corpus: CorpusFiles) -> Plan:
        """Part the files that a recipe names.

        Raises:
          T5smithError: a file is not there or may not be read.
        """
        named = [("train", corpus.train), ("valid", corpus.valid)] if corpus.valid else [("", corpus.train)]
        sizes = [
            (split, name, str(file), file_size(file))
            for split, files_of in named
            for name, files in files_of.items()
            for file in files
        ]
        block_bytes = MIN_BLOCK_BYTES
        while block_bytes < MAX_BLOCK_BYTES and sum(size for *_, size in sizes) > block_bytes * TARGET_BLOCKS:
            block_bytes *= 2
        return cls(block_bytes, tuple(_units(corpus.settings, sizes, block_bytes)))

    def work(self, tasks: int, rank: int) -> list[Work]:
        """What one of so many tasks does. All that they do together does not depend on their number."""
        mine: list[Work] = []
        streams = [unit for unit in self.units if unit.blocks is None]
        readers = max(1, tasks // len(streams)) if streams else 1
        load = [0] * tasks
        for number, unit in enumerate(streams):
            for turn in range(readers):
                task = (number * readers + turn) % tasks
                load[task] += unit.bytes * COMPRESSION_RATIO // readers
                if task == rank:
                    mine.append(Work(unit, BlockSelection(self.block_bytes, reader=turn, readers=readers)))
        free = [(bytes_, task) for task, bytes_ in enumerate(load)]
        heapq.heapify(free)
        for unit in self.units:
            if unit.blocks is None:
                continue
            for block in range(unit.blocks):
                bytes_, task = heapq.heappop(free)
                heapq.heappush(free, (bytes_ + max(unit.bytes // unit.blocks, 1), task))
                if task == rank:
                    start = block * self.block_bytes
                    part = BlockSelection(self.block_bytes, start, start + self.block_bytes)
                    mine.append(Work(unit, part if unit.blocks > 1 else BlockSelection()))
        return mine

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def read(cls, file: Path) -> Plan:
        """From a file that holds :meth:`to_json`."""
        tree = json.loads(file.read_text(encoding="utf-8"))
        units = (Unit(**(unit | {"files": tuple(unit["files"])})) for unit in tree["units"])
        return cls(tree["block_bytes"], tuple(units))


def _units(
    corpus: CorpusSettings, sizes: Iterable[tuple[str, str, str, int]], block_bytes: int
) -> Iterator[Unit]:
    held: list[str] = []
    held_bytes = 0
    of = ("", "")
    number = 0
    for split, name, file, size in sizes:
        # Some rows of a file are counted from its beginning: one task reads them.
        large = size > block_bytes and split_row_range(file)[1] is None
        if held and (large or (split, name) != of or held_bytes + size > block_bytes):
            yield Unit(number, of[1], of[0], tuple(held), held_bytes, 1)
            number, held, held_bytes = number + 1, [], 0
        of = (split, name)
        if large:
            yield Unit(number, name, split, (file,), size, _blocks(corpus, file, size, block_bytes))
            number += 1
        else:
            held.append(file)
            held_bytes += size
    if held:
        yield Unit(number, of[1], of[0], tuple(held), held_bytes, 1)


def _blocks(corpus: CorpusSettings, file: str, size: int, block_bytes: int) -> int | None:
    if is_splittable(corpus, file):
        return -(-size // block_bytes)
    if file_format(corpus, file) in RANDOM_ACCESS and compression_suffix(file):
        return 1  # whoever reads a part has to unpack it all
    if file_format(corpus, file) == "parquet":
        if is_url(file):
            return 1  # its own account of its bytes is at its end: not worth a visit to every file
        with open_file(file) as stream:
            return max(-(-parquet_bytes(stream, file) // block_bytes), 1)
    return 1 if corpus.document == "file" and file_format(corpus, file) == "text" else None
