"""One shard of the store as it is written: ids, lengths of documents, counts, a note that it is whole."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from t5smith.store.dedup_records import Records
from t5smith.store.token_store import id_dtype
from t5smith.store.workspace import SPLITS, Workspace, temporary, write
from t5smith.text.cleaning.pipeline import Tally
from t5smith.text.document import Document
from t5smith.text.documents import is_held_out
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.vocabulary import Vocabulary

FLUSHED_BYTES = 1 << 22
"""Ids are held until there are about so many bytes of them."""
COUNTS: tuple[str, ...] = ("documents", "tokens", "text_bytes", "unknown", "empty")
PIECES = np.dtype([("id", "<u4"), ("count", "<i8")])
"""An id and how often it stands in a shard."""


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


def used_pieces(counts: NDArray[np.int64]) -> bytes:
    """How often each id stands in a shard, of those that do: few of a large vocabulary in a small shard."""
    used = np.flatnonzero(counts)
    rows = np.empty(len(used), PIECES)
    rows["id"], rows["count"] = used, counts[used]
    return rows.tobytes()


class Shard:
    """Writes one shard; it is there when `close` has returned, and not before."""

    def __init__(
        self,
        folders: Workspace,
        name: str,
        vocabulary: Vocabulary,
        separator: tuple[int, ...],
        records: Records | None = None,
    ) -> None:
        self.folders, self.name, self.records = folders, name, records
        self.dtype = id_dtype(vocabulary.size)
        self.unk_id = vocabulary.unk_id
        self.separator = np.array(separator, self.dtype).tobytes()
        self.halves = {
            split: Half(temporary(folders.ids(split, name)).open("wb"), np.zeros(vocabulary.size, np.int64))
            for split in SPLITS
        }

    def add(self, document: Document, text: str, split: str, fraction: float, ids: bytes) -> None:
        """Add a document.

        Args:
          document: its raw text decides where it belongs, if `split` is nothing.
          text: what is left of it after cleaning.
          split: `train` or `valid`, or nothing.
          fraction: share of documents that are held out.
          ids: of the text.
        """
        split = split or ("valid" if is_held_out(document.text, fraction) else "train")
        half = self.halves[split]
        counts = half.counts
        if not ids:
            counts["empty"] += 1
            return
        half.held += (ids, self.separator)
        length = (len(ids) + len(self.separator)) // self.dtype.itemsize
        half.lengths.append(length)
        size = len(text.encode())
        counts["documents"] += 1
        counts["tokens"] += length
        counts["text_bytes"] += size
        if self.records is not None:
            self.records.add(document, text, split == "valid", length, size)
        half.held_bytes += len(ids)
        if half.held_bytes >= FLUSHED_BYTES:
            half.flush(self.dtype)

    def close(self, skipped: SkippedRecords, tallies: Iterable[Tally], cut: int) -> dict[str, Any]:
        """Finish it; the counts of both splits. `cut` stretches of its text were too long for a tokenizer."""
        note: dict[str, Any] = {
            "faults": skipped.facts(),
            "cleaning": [tally.facts() for tally in tallies],
            "cut": cut,
        }
        if self.records is not None:
            self.records.close()
        for split, half in self.halves.items():
            half.flush(self.dtype)
            half.counts["unknown"] = int(half.pieces[self.unk_id])
            half.file.close()
            target = self.folders.ids(split, self.name)
            if half.counts["tokens"]:
                write(self.folders.lengths(split, self.name), half.lengths.tobytes())
                write(self.folders.pieces(split, self.name), used_pieces(half.pieces))
                temporary(target).replace(target)
            else:
                temporary(target).unlink()
            size = half.counts["tokens"] * self.dtype.itemsize
            note[split] = {**half.counts, "bytes": size, "sha256": half.digest.hexdigest()}
        write(self.folders.note(self.name), json.dumps(note, ensure_ascii=False).encode())
        return note

    def abandon(self) -> None:
        """Leave nothing behind."""
        if self.records is not None:
            self.records.abandon()
        for split, half in self.halves.items():
            half.file.close()
            temporary(self.folders.ids(split, self.name)).unlink(missing_ok=True)
