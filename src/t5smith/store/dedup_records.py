"""Hashes by which duplicates are found: one of each document's words, and MinHash signatures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t5smith.store.workspace import Workspace, temporary, write
from t5smith.text.cleaning.minhash import MinHasher, short_hash
from t5smith.text.document import Document
from t5smith.text.locations import split_row_range

RECORD = np.dtype(
    [
        ("key", np.uint64, 2),
        ("valid", np.bool_),
        ("tokens", np.uint32),
        ("text_bytes", np.uint64),
        ("file", np.uint32),
        ("line", np.uint64),
        ("after", np.uint64),
    ]
)
"""A document of a shard: hash of its words, whether it is held out, its length, its place in the input.

`after` is the byte from which lines are counted or, in an archive, the number of the member, from 1."""
CHUNK_DOCUMENTS = 1 << 14
"""Documents that are written at once."""


class RecordWriter:
    """Writes the records of one shard. They exist once :meth:`close` has returned."""

    def __init__(
        self, workspace: Workspace, shard: str, files: Iterable[str], hasher: MinHasher | None
    ) -> None:
        """Start the records of documents of `files`; without `hasher` no signatures are written."""
        self._files = {split_row_range(name)[0]: number for number, name in enumerate(files)}
        self._hasher = hasher
        self._targets = [workspace.records(shard)]
        if hasher is not None:
            self._targets.append(workspace.signatures(shard))
        self._out = [temporary(target).open("wb") for target in self._targets]
        self._rows: list[tuple[Any, ...]] = []
        self._names = workspace.members(shard)
        self._members: list[str] = []
        self._signatures: list[NDArray[np.uint64]] = []

    def add(self, document: Document, text: str, valid: bool, tokens: int, text_bytes: int) -> None:
        """Add a document; `text` is its text after cleaning."""
        file = self._files[document.file]
        # Except in byte-level vocabularies, texts that differ only in white space have the same ids.
        key = short_hash(" ".join(text.split()).encode())
        after = document.counted_from
        if document.member:
            if self._members[-1:] != [document.member]:
                self._members.append(document.member)
            after = len(self._members)
        self._rows.append((key, valid, tokens, text_bytes, file, document.line, after))
        if self._hasher is not None:
            self._signatures.append(self._hasher.signature(text))
        if len(self._rows) == CHUNK_DOCUMENTS:
            self._flush()

    def close(self) -> None:
        """Finish the files: RECORD (documents,), and one that :func:`read_signatures` reads."""
        self._flush()
        self.abandon()
        if self._members:
            write(self._names, json.dumps(self._members).encode())
        for target in self._targets:
            temporary(target).replace(target)

    def abandon(self) -> None:
        """Close the unfinished files."""
        for out in self._out:
            out.close()

    def _flush(self) -> None:
        self._out[0].write(np.array(self._rows, RECORD).tobytes())
        if self._signatures:
            self._out[1].write(np.stack(self._signatures, 1).tobytes())
        self._rows, self._signatures = [], []


def read_signatures(path: Path, documents: int, buckets: int, bucket: int) -> NDArray[np.uint64]:
    """The hashes of one bucket, (documents, 2). A file holds chunks of documents, each bucket by bucket."""
    found = np.empty((documents, 2), np.uint64)
    size = found.itemsize * 2
    with path.open("rb") as file:
        for start in range(0, documents, CHUNK_DOCUMENTS):
            rows = min(CHUNK_DOCUMENTS, documents - start)
            file.seek((start * buckets + rows * bucket) * size)
            found[start : start + rows] = np.fromfile(file, np.uint64, rows * 2).reshape(rows, 2)
    return found
