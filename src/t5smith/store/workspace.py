"""The files of `prepare` until the store is finished."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

SPLITS = ("train", "valid")
_PROCESS = secrets.token_hex(4)
"""Names this process; the processes of two machines may have one number."""


@dataclass(frozen=True)
class Workspace:
    """The unfinished store, and a folder of notes about its shards and tasks."""

    store: Path
    notes: Path
    draft: bool = False
    """Whether shards may still contain duplicates; such shards are in the notes."""

    @classmethod
    def beside(cls, folder: Path) -> Workspace:
        """The folders beside a store's folder."""
        return cls(folder.with_name(f"{folder.name}.unfinished"), folder.with_name(f"{folder.name}.notes"))

    def of(self, key: str) -> Workspace:
        """The folders of one key within these: a task of another key, believed dead, writes elsewhere."""
        return replace(self, store=self.store / key[:16], notes=self.notes / key[:16])

    @property
    def _shard_notes(self) -> Path:
        return self.notes / "draft" if self.draft else self.notes

    def ids(self, split: str, shard: str) -> Path:
        """The ids of a shard."""
        return (self._shard_notes if self.draft else self.store) / split / f"{shard}.bin"

    def unfinished_ids(self, split: str, shard: str) -> Path:
        """The ids of a shard while it is written: never in the store, which may be finished meanwhile."""
        return temporary(self.notes / "parts" / f"{split}-{shard}.bin")

    def lengths(self, split: str, shard: str) -> Path:
        """uint32 (documents,): number of tokens of each document."""
        return self._shard_notes / "lengths" / f"{split}-{shard}.bin"

    def pieces(self, split: str, shard: str) -> Path:
        """PIECES (ids,): counts of the ids that occur in a shard."""
        return self._shard_notes / "pieces" / f"{split}-{shard}.bin"

    def note(self, shard: str) -> Path:
        """Counts of a shard; exists once the shard is finished."""
        return self._shard_notes / "shards" / f"{shard}.json"

    def finished_shards(self) -> dict[int, list[int]]:
        """The blocks of each unit whose shards are finished, from one listing of the folder of notes."""
        found: dict[int, list[int]] = {}
        for name in os.listdir(self._shard_notes / "shards"):
            if name.endswith(".json"):
                unit, block = name.removesuffix(".json").split("-")
                found.setdefault(int(unit), []).append(int(block))
        return found

    def records(self, shard: str) -> Path:
        """RECORD (documents,): hashes by which duplicates are found."""
        return self.notes / "draft" / "records" / f"{shard}.bin"

    def members(self, shard: str) -> Path:
        """The names of the members of archives that documents of a shard are from, if they are from any."""
        return self.records(shard).with_suffix(".json")

    def signatures(self, shard: str) -> Path:
        """Signatures by which near duplicates are found."""
        return self.notes / "draft" / "signatures" / f"{shard}.bin"

    def end(self, unit: int) -> Path:
        """The number of blocks of a unit; exists once it is known."""
        return self.notes / "ends" / f"{unit:05d}"

    def progress(self, task: int) -> Path:
        """The progress of a task."""
        return self.notes / "progress" / f"{task:05d}"

    def make(self) -> None:
        """Create missing folders."""
        folders = [*(self.store / split for split in SPLITS), *(self.notes / name for name in _NOTES)]
        if self.draft:
            folders += [self.notes / "draft" / name for name in (*SPLITS, *_DRAFT)]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)


_NOTES = (
    "lengths",
    "pieces",
    "shards",
    "ends",
    "progress",
    "started",
    "completed",
    "failures",
    "logs",
    "parts",
)
_DRAFT = ("lengths", "pieces", "shards", "records", "signatures")


def temporary(path: Path) -> Path:
    """A file's name while it is written, with the process: a task believed dead may still write it."""
    return path.with_name(f"{path.name}.{_PROCESS}-{os.getpid()}.part")


def write(path: Path, data: bytes) -> None:
    """Write a file atomically. It is not flushed to disk: that is done when the store is sealed."""
    temporary(path).write_bytes(data)
    temporary(path).replace(path)


def discard(folder: Path) -> None:
    """Remove a folder, under another name first: what still writes into it then finds it gone, and ends."""
    removed = folder.with_name(f"{folder.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)
