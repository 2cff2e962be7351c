"""Hashes by which duplicates are found: one of each document's words, and MinHash signatures of its n-grams.

Words, n-grams and their hashes are datatrove's. The hashes of a bucket are combined to one hash, since two
documents meet in a bucket only if all of its hashes are equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from t5smith.recipe.recipe import Recipe
from t5smith.store.workspace import Workspace, temporary, write
from t5smith.text.document import Document
from t5smith.text.locations import split_row_range

if TYPE_CHECKING:
    from datatrove.utils.word_tokenizers import WordTokenizer

    from t5smith.recipe.cleaning import NearDuplicateSettings

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
NGRAMS_AT_ONCE = 4096
"""n-grams hashed at once, each with `num_buckets * hashes_per_bucket` functions."""


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
        key = _key(" ".join(text.split()).encode())
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


class MinHasher:
    """MinHash signatures of texts."""

    def __init__(self, settings: NearDuplicateSettings, words: WordTokenizer, scratch: Path) -> None:
        """Set up datatrove's hashes.

        Args:
          settings: numbers of buckets, hashes and words of an n-gram.
          words: splits texts into words.
          scratch: a folder, which datatrove requires; nothing is written there.
        """
        from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
        from datatrove.utils.hashing import create_hash_func
        from datatrove.utils.text import simplify_text

        config = MinhashConfig(**settings.model_dump())
        self.buckets = settings.num_buckets
        self._n = settings.n_grams
        self._step = MinhashDedupSignature(str(scratch), config, words)  # pyright: ignore[reportArgumentType]
        self._hash: Any = create_hash_func(config.hash_config)
        self._split_words = lambda text: words.word_tokenize(simplify_text(text, config.norm_config))

    def signature(self, text: str) -> NDArray[np.uint64]:
        """A hash per bucket: (buckets, 2); zeros if the text has too few words for an n-gram."""
        words = self._split_words(text)
        ngrams = len(words) - self._n + 1
        minima: NDArray[np.uint64] | None = None
        for start in range(0, ngrams, NGRAMS_AT_ONCE):
            # The hashes of all n-grams of a long document would not fit in memory.
            stop = min(start + NGRAMS_AT_ONCE, ngrams)
            hashes = [self._hash(" ".join(words[i : i + self._n]).encode()) for i in range(start, stop)]
            own = np.array(self._step.get_signature(np.array(hashes, np.uint64)[:, None]), np.uint64)
            minima = own if minima is None else np.minimum(minima, own)
        if minima is None:
            return np.zeros((self.buckets, 2), np.uint64)
        return np.array([_key(bucket.tobytes()) for bucket in minima], np.uint64)


def near_duplicate_hasher(recipe: Recipe, scratch: Path) -> MinHasher | None:
    """The hasher for a recipe that drops near duplicates, else None.

    Raises:
      T5smithError: a package is missing.
    """
    if "near_duplicates" not in recipe.cleaning.steps:
        return None
    from t5smith.text.cleaning.word_tokenizer import word_tokenizer

    words = word_tokenizer(recipe.cleaning.words, recipe.language)
    return MinHasher(recipe.cleaning.near_duplicates, words, scratch)


def _key(data: bytes) -> tuple[int, int]:
    digest = hashlib.blake2b(data, digest_size=16).digest()
    # Never all zeros, which stand for no hash.
    return int.from_bytes(digest[:8], "little") | 1, int.from_bytes(digest[8:], "little")
