"""One shard of the store as it is written: ids, lengths of documents, counts, a note that it is whole."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from t5smith.corpus.document import Document
from t5smith.corpus.faults import Faults
from t5smith.corpus.sources import is_held_out
from t5smith.corpus.store import id_dtype
from t5smith.vocab.vocabulary import Vocabulary

FLUSHED_BYTES = 1 << 22
"""Ids are held until there are about so many bytes of them."""
SPLITS = ("train", "valid")
COUNTS: tuple[str, ...] = ("documents", "tokens", "text_bytes", "unknown", "empty")
PIECES = np.dtype([("id", "<u4"), ("count", "<i8")])
"""An id and how often it stands in a shard."""


@dataclass(frozen=True)
class Folders:
    """Where `prepare` works: the store that grows, and what is known of its shards until it is whole."""

    store: Path
    notes: Path

    @classmethod
    def of(cls, folder: Path) -> Folders:
        """Those beside a store's folder."""
        return cls(folder.with_name(f"{folder.name}.unfinished"), folder.with_name(f"{folder.name}.notes"))

    def ids(self, split: str, shard: str) -> Path:
        """The ids of a shard."""
        return self.store / split / f"{shard}.bin"

    def lengths(self, split: str, shard: str) -> Path:
        """uint32: the tokens of each of its documents."""
        return self.notes / "lengths" / f"{split}-{shard}.bin"

    def pieces(self, split: str, shard: str) -> Path:
        """PIECES (ids,): how often each id stands in it, of those that do."""
        return self.notes / "pieces" / f"{split}-{shard}.bin"

    def note(self, shard: str) -> Path:
        """What there is to say of a finished shard."""
        return self.notes / "shards" / f"{shard}.json"

    def end(self, unit: int) -> Path:
        """How many blocks a unit has, once that is known."""
        return self.notes / "ends" / f"{unit:05d}"

    def progress(self, task: int) -> Path:
        """How far a task is."""
        return self.notes / "progress" / f"{task:05d}"

    def make(self) -> None:
        """Make those that are not there."""
        for folder in (*(self.store / split for split in SPLITS), *(self.notes / name for name in _NOTES)):
            folder.mkdir(parents=True, exist_ok=True)


_NOTES = ("lengths", "pieces", "shards", "ends", "progress", "failures", "logs")


@dataclass
class Half:
    """What falls to one split of a shard."""

    file: IO[bytes]
    pieces: NDArray[np.int64]
    held: list[bytes] = field(default_factory=list[bytes])
    held_bytes: int = 0
    lengths: array[int] = field(default_factory=lambda: array("I"))
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    digest: Any = field(default_factory=hashlib.sha256)

    def flush(self, dtype: np.dtype[np.unsignedinteger]) -> None:
        """Write what is held."""
        data = b"".join(self.held)
        self.pieces += np.bincount(np.frombuffer(data, dtype), minlength=len(self.pieces))
        self.digest.update(data)
        self.file.write(data)
        self.held, self.held_bytes = [], 0

    def used_pieces(self) -> bytes:
        """How often each id stands in it, of those that do: few of a large vocabulary in a small shard."""
        used = np.flatnonzero(self.pieces)
        rows = np.empty(len(used), PIECES)
        rows["id"], rows["count"] = used, self.pieces[used]
        return rows.tobytes()


class Shard:
    """Writes one shard; it is there when `close` has returned, and not before."""

    def __init__(
        self, folders: Folders, name: str, vocabulary: Vocabulary, separator: tuple[int, ...]
    ) -> None:
        self.folders, self.name = folders, name
        self.dtype = id_dtype(vocabulary.size)
        self.unk_id = vocabulary.unk_id
        self.separator = np.array(separator, self.dtype).tobytes()
        self.halves = {
            split: Half(
                self._temporary(folders.ids(split, name)).open("wb"), np.zeros(vocabulary.size, np.int64)
            )
            for split in SPLITS
        }

    def add(self, document: Document, split: str, fraction: float, ids: bytes) -> None:
        """Add a document.

        Args:
          document: its raw text decides where it belongs, if `split` is nothing.
          split: `train` or `valid`, or nothing.
          fraction: share of documents that are held out.
          ids: of its text.
        """
        half = self.halves[split or ("valid" if is_held_out(document.text, fraction) else "train")]
        counts = half.counts
        if not ids:
            counts["empty"] += 1
            return
        half.held += (ids, self.separator)
        length = (len(ids) + len(self.separator)) // self.dtype.itemsize
        half.lengths.append(length)
        counts["documents"] += 1
        counts["tokens"] += length
        counts["text_bytes"] += document.bytes
        half.held_bytes += len(ids)
        if half.held_bytes >= FLUSHED_BYTES:
            half.flush(self.dtype)

    def close(self, faults: Faults, cut: int) -> dict[str, Any]:
        """Finish it; the counts of both splits. `cut` stretches of its text were too long for a tokenizer."""
        note: dict[str, Any] = {"faults": faults.facts(), "cut": cut}
        for split, half in self.halves.items():
            half.flush(self.dtype)
            half.counts["unknown"] = int(half.pieces[self.unk_id])
            half.file.close()
            target = self.folders.ids(split, self.name)
            if half.counts["tokens"]:
                for file, data in (
                    (self.folders.lengths(split, self.name), half.lengths.tobytes()),
                    (self.folders.pieces(split, self.name), half.used_pieces()),
                ):
                    self._temporary(file).write_bytes(data)
                    self._temporary(file).replace(file)
                self._temporary(target).replace(target)
            else:
                self._temporary(target).unlink()
            size = half.counts["tokens"] * self.dtype.itemsize
            note[split] = {**half.counts, "bytes": size, "sha256": half.digest.hexdigest()}
        file = self.folders.note(self.name)
        self._temporary(file).write_text(json.dumps(note, ensure_ascii=False), encoding="utf-8")
        self._temporary(file).replace(file)
        return note

    def abandon(self) -> None:
        """Leave nothing behind."""
        for split, half in self.halves.items():
            half.file.close()
            self._temporary(self.folders.ids(split, self.name)).unlink(missing_ok=True)

    @staticmethod
    def _temporary(path: Path) -> Path:
        # By process: one that was thought dead may still be at work on the same shard.
        return path.with_name(f"{path.name}.{os.getpid()}.part")
