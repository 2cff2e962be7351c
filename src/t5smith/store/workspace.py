"""Where `prepare` keeps what it works on until the store is whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Workspace:
    """Where `prepare` works: the store that grows, and what is known of its shards until it is whole."""

    store: Path
    notes: Path
    draft: bool = False
    """Duplicates are still among the documents."""

    @classmethod
    def of(cls, folder: Path) -> Workspace:
        """Those beside a store's folder."""
        return cls(folder.with_name(f"{folder.name}.unfinished"), folder.with_name(f"{folder.name}.notes"))

    def ids(self, split: str, shard: str) -> Path:
        """The ids of a shard."""
        return (self.notes / "draft" if self.draft else self.store) / split / f"{shard}.bin"

    def lengths(self, split: str, shard: str) -> Path:
        """uint32: the tokens of each of its documents."""
        return self.notes / ("draft" if self.draft else "") / "lengths" / f"{split}-{shard}.bin"

    def pieces(self, split: str, shard: str) -> Path:
        """PIECES (ids,): how often each id stands in it, of those that do."""
        return self.notes / ("draft" if self.draft else "") / "pieces" / f"{split}-{shard}.bin"

    def note(self, shard: str) -> Path:
        """What there is to say of a finished shard."""
        return self.notes / ("draft" if self.draft else "") / "shards" / f"{shard}.json"

    def records(self, shard: str) -> Path:
        """What duplicates of its documents are found by."""
        return self.notes / "draft" / "records" / f"{shard}.bin"

    def signatures(self, shard: str) -> Path:
        """The same for documents that are nearly the same."""
        return self.notes / "draft" / "signatures" / f"{shard}.bin"

    def end(self, unit: int) -> Path:
        """How many blocks a unit has, once that is known."""
        return self.notes / "ends" / f"{unit:05d}"

    def progress(self, task: int) -> Path:
        """How far a task is."""
        return self.notes / "progress" / f"{task:05d}"

    def make(self) -> None:
        """Make those that are not there."""
        folders = [*(self.store / split for split in SPLITS), *(self.notes / name for name in _NOTES)]
        if self.draft:
            folders += [self.notes / "draft" / name for name in (*SPLITS, *_DRAFT)]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)


_NOTES = ("lengths", "pieces", "shards", "ends", "progress", "failures", "logs")
_DRAFT = ("lengths", "pieces", "shards", "records", "signatures")


def temporary(path: Path) -> Path:
    """The name of a file while it is written. By process: one thought dead may still write the same file."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def write(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all; that it outlives a power cut is left to the sealing."""
    temporary(path).write_bytes(data)
    temporary(path).replace(path)
