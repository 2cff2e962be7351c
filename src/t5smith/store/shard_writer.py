"""Writing one shard: ids, lengths of documents and counts of both splits, and last a note with its counts."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from t5smith.store.dedup_records import RecordWriter
from t5smith.store.file_notes import FileNotes
from t5smith.store.token_store import id_dtype
from t5smith.store.workspace import SPLITS, Workspace, write
from t5smith.text.cleaning.pipeline import Tally
from t5smith.text.document import Document
from t5smith.text.documents import is_held_out
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.vocabulary import Vocabulary

BUFFER_BYTES = 1 << 22
"""Ids are buffered up to about this size."""
COUNTS: tuple[str, ...] = ("documents", "tokens", "text_bytes", "unknown", "empty")
PIECES = np.dtype([("id", "<u4"), ("count", "<i8")])
"""An id and its count in a shard."""


@dataclass
class SplitWriter:
    """Writes the part of a shard that belongs to one split."""

    file: IO[bytes]
    pieces: NDArray[np.int64]
    buffered: list[bytes] = field(default_factory=list[bytes])
    buffered_bytes: int = 0
    lengths: array[int] = field(default_factory=lambda: array("I"))
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    digest: Any = field(default_factory=hashlib.sha256)

    def flush(self, dtype: np.dtype[np.unsignedinteger]) -> None:
        """Write the buffered ids."""
        data = b"".join(self.buffered)
        self.pieces += np.bincount(np.frombuffer(data, dtype), minlength=len(self.pieces))
        self.digest.update(data)
        self.file.write(data)
        self.buffered, self.buffered_bytes = [], 0


def used_pieces(counts: NDArray[np.int64]) -> bytes:
    """Counts of the ids that occur, as the bytes of PIECES; a small shard uses few of a large vocabulary."""
    used = np.flatnonzero(counts)
    rows = np.empty(len(used), PIECES)
    rows["id"], rows["count"] = used, counts[used]
    return rows.tobytes()


class ShardWriter:
    """Writes one shard. The shard exists once :meth:`close` has returned."""

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        vocabulary: Vocabulary,
        separator: tuple[int, ...],
        records: RecordWriter | None = None,
    ) -> None:
        self.workspace, self.name, self.records = workspace, name, records
        self.dtype = id_dtype(vocabulary.size)
        self.unk_id = vocabulary.unk_id
        self.separator = np.array(separator, self.dtype).tobytes()
        self.writers = {
            split: SplitWriter(
                workspace.unfinished_ids(split, name).open("wb"), np.zeros(vocabulary.size, np.int64)
            )
            for split in SPLITS
        }

    def add(self, document: Document, text: str, split: str, fraction: float, ids: bytes) -> tuple[int, int]:
        """Add a document; returns its tokens and the bytes of its text, zeros if it is empty.

        Args:
          document: with its raw text, whose hash selects the split if `split` is empty.
          text: the document after cleaning.
          split: `train`, `valid` or empty.
          fraction: share of documents that are held out.
          ids: of `text`, as the bytes of an array.
        """
        split = split or ("valid" if is_held_out(document.text, fraction) else "train")
        writer = self.writers[split]
        counts = writer.counts
        if not ids:
            counts["empty"] += 1
            return 0, 0
        writer.buffered += (ids, self.separator)
        length = (len(ids) + len(self.separator)) // self.dtype.itemsize
        writer.lengths.append(length)
        size = len(text.encode())
        counts["documents"] += 1
        counts["tokens"] += length
        counts["text_bytes"] += size
        if self.records is not None:
            self.records.add(document, text, split == "valid", length, size)
        writer.buffered_bytes += len(ids)
        if writer.buffered_bytes >= BUFFER_BYTES:
            writer.flush(self.dtype)
        return length, size

    def close(
        self,
        skipped: SkippedRecords,
        tallies: Iterable[Tally],
        cut: int,
        files: FileNotes,
        control_words: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        """Finish the shard; returns its note.

        Args:
          skipped: records of its block that were skipped.
          tallies: what each cleaning step did.
          cut: number of runs of characters without white space that were cut before encoding.
          control_words: how often each of them stands in the text.
          files: the files that begin in it.
        """
        note: dict[str, Any] = {
            "skipped_records": skipped.facts(),
            "cleaning": [tally.facts() for tally in tallies],
            "cut": cut,
            "control_words": dict(control_words or {}),
            "files": files.facts(),
        }
        if self.records is not None:
            self.records.close()
        for split, writer in self.writers.items():
            writer.flush(self.dtype)
            writer.counts["unknown"] = int(writer.pieces[self.unk_id])
            writer.file.close()
            unfinished = self.workspace.unfinished_ids(split, self.name)
            if writer.counts["tokens"]:
                write(self.workspace.lengths(split, self.name), writer.lengths.tobytes())
                write(self.workspace.pieces(split, self.name), used_pieces(writer.pieces))
                unfinished.replace(self.workspace.ids(split, self.name))
            else:
                unfinished.unlink()
            size = writer.counts["tokens"] * self.dtype.itemsize
            note[split] = {**writer.counts, "bytes": size, "sha256": writer.digest.hexdigest()}
        write(self.workspace.note(self.name), json.dumps(note, ensure_ascii=False).encode())
        return note

    def abandon(self) -> None:
        """Remove the unfinished files."""
        if self.records is not None:
            self.records.abandon()
        for split, writer in self.writers.items():
            writer.file.close()
            self.workspace.unfinished_ids(split, self.name).unlink(missing_ok=True)
