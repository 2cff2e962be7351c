"""What duplicates are found by: a hash of each document's words, and MinHash signatures of its runs of words.

How a text becomes runs of words and these become hashes is datatrove's. Of each bucket's hashes one hash is
kept, since two documents meet there only if all are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from t5smith.recipe.recipe import Recipe
from t5smith.store.workspace import Workspace, temporary
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
"""A document of a shard: a hash of its words, whether it is held out, its length, where it stands."""
CHUNK = 1 << 14
"""So many documents are held before they are written."""
RUNS_AT_ONCE = 4096
"""Runs of words hashed at once, each in `num_buckets * hashes_per_bucket` ways."""


class Records:
    """The records of one shard; they are there when `close` has returned."""

    def __init__(
        self, folders: Workspace, shard: str, files: Iterable[str], signatures: MinHasher | None
    ) -> None:
        """Of documents of these files; without signatures texts alone are hashed."""
        self._files = {split_row_range(name)[0]: number for number, name in enumerate(files)}
        self._signatures = signatures
        self._targets = [folders.records(shard), folders.signatures(shard)][: 2 if signatures else 1]
        self._out = [temporary(target).open("wb") for target in self._targets]
        self._rows: list[tuple[Any, ...]] = []
        self._signed: list[NDArray[np.uint64]] = []

    def add(self, document: Document, text: str, valid: bool, tokens: int, text_bytes: int) -> None:
        """Add a document; `text` is what is left of it after cleaning."""
        file = self._files[document.file]
        # To all vocabularies but bytes white space is single spaces, with none at the end.
        key = _key(" ".join(text.split()).encode())
        self._rows.append((key, valid, tokens, text_bytes, file, document.line, document.counted_from))
        if self._signatures is not None:
            self._signed.append(self._signatures.of(text))
        if len(self._rows) == CHUNK:
            self._flush()

    def close(self) -> None:
        """Finish both files: (documents,) of RECORD, and what :func:`read_signatures` reads."""
        self._flush()
        self.abandon()
        for target in self._targets:
            temporary(target).replace(target)

    def abandon(self) -> None:
        """Leave the files as they are."""
        for out in self._out:
            out.close()

    def _flush(self) -> None:
        self._out[0].write(np.array(self._rows, RECORD).tobytes())
        if self._signed:
            self._out[1].write(np.stack(self._signed, 1).tobytes())
        self._rows, self._signed = [], []


def read_signatures(path: Path, documents: int, buckets: int, bucket: int) -> NDArray[np.uint64]:
    """The hashes of one bucket, (documents, 2); for each CHUNK of documents they lie bucket by bucket."""
    found = np.empty((documents, 2), np.uint64)
    size = found.itemsize * 2
    with path.open("rb") as file:
        for start in range(0, documents, CHUNK):
            rows = min(CHUNK, documents - start)
            file.seek((start * buckets + rows * bucket) * size)
            found[start : start + rows] = np.fromfile(file, np.uint64, rows * 2).reshape(rows, 2)
    return found


class MinHasher:
    """MinHash of a text's runs of words."""

    def __init__(self, settings: NearDuplicateSettings, words: WordTokenizer, scratch: Path) -> None:
        """With datatrove's hashes.

        Args:
          settings: how many hashes of how many words.
          words: finds words.
          scratch: a folder; nothing is written there.
        """
        from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
        from datatrove.utils.hashing import create_hash_func
        from datatrove.utils.text import simplify_text

        config = MinhashConfig(**settings.model_dump())
        self.buckets = settings.num_buckets
        self._length = settings.n_grams
        self._step = MinhashDedupSignature(str(scratch), config, words)  # pyright: ignore[reportArgumentType]
        self._hash: Any = create_hash_func(config.hash_config)
        self._simplified = lambda text: words.word_tokenize(simplify_text(text, config.norm_config))

    def of(self, text: str) -> NDArray[np.uint64]:
        """A hash for each bucket: (buckets, 2). Zeros: too few words for a run."""
        words = self._simplified(text)
        runs = len(words) - self._length + 1
        least: NDArray[np.uint64] | None = None
        for start in range(0, runs, RUNS_AT_ONCE):
            # A long document has more runs than there is memory for all their hashes.
            stop = min(start + RUNS_AT_ONCE, runs)
            hashes = [self._hash(" ".join(words[i : i + self._length]).encode()) for i in range(start, stop)]
            own = np.array(self._step.get_signature(np.array(hashes, np.uint64)[:, None]), np.uint64)
            least = own if least is None else np.minimum(least, own)
        if least is None:
            return np.zeros((self.buckets, 2), np.uint64)
        return np.array([_key(bucket.tobytes()) for bucket in least], np.uint64)


def signatures(recipe: Recipe, scratch: Path) -> MinHasher | None:
    """How a recipe looks for near duplicates, if it does.

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
    # All zeros stands for none.
    return int.from_bytes(digest[:8], "little") | 1, int.from_bytes(digest[8:], "little")
