"""The token store: the ids of each split in a row, read as windows of any length.

Ids are stored in :mod:`t5smith.store.shards`, so opening a store takes no memory, however large it is.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.base.progress import info
from t5smith.store.shards import Shards

_IDS_AT_ONCE = 1 << 24
_PREPARE_AGAIN = "make it again with `t5smith prepare`"


def id_dtype(vocabulary_size: int) -> np.dtype[np.unsignedinteger]:
    """Type of the stored ids, little-endian: uint16 if it holds all ids, else uint32."""
    return np.dtype("<u2" if vocabulary_size <= 1 << 16 else "<u4")


@dataclass(frozen=True)
class Corpus:
    """A corpus of a split: its tokens from `start` to `stop`."""

    name: str
    start: int
    stop: int

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.stop - self.start


@dataclass(frozen=True)
class Split:
    """The training or the held-out split of a store.

    Attributes:
      name: `train` or `valid`.
      tokens: (tokens,), read-only; all ids, including the `</s>` between documents.
      ends: int64 (documents,); end of each document in `tokens`, after its `</s>`.
      text_bytes: UTF-8 bytes of the text.
      corpora: the split's corpora in order; a single one if they are not named.
    """

    name: str
    tokens: NDArray[np.unsignedinteger] | Shards
    ends: NDArray[np.int64]
    text_bytes: int
    corpora: tuple[Corpus, ...] = ()

    def __post_init__(self) -> None:
        if not self.corpora:
            object.__setattr__(self, "corpora", (Corpus(self.name, 0, len(self.tokens)),))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name of the file of ends, not its contents."""
        file = self.ends.filename if isinstance(self.ends, np.memmap) else None
        ends = self.ends if file is None else str(file)
        return _unpickle_split, (self.name, self.tokens, ends, self.text_bytes, self.corpora)

    def window_count(self, length: int) -> int:
        """Number of complete windows of `length` tokens; the remainder at the end is not used.

        Raises:
          T5smithError: there is none.
        """
        count = len(self.tokens) // length
        if not count:
            raise T5smithError(
                f"the {self.name} split has {len(self.tokens):,} tokens, fewer than one window of {length:,}",
                where=f"corpus.{self.name}",
                fix="use more text, or lower objective.input_length",
            )
        return count

    def windows(
        self, length: int, indices: NDArray[np.integer], offset: int | NDArray[np.integer] = 0
    ) -> NDArray[np.int32]:
        """Windows by number: (n,) -> int32 (n, length).

        Window i has the tokens from i * length + offset; `offset` is a number or (n,).
        """
        return self.windows_at(np.asarray(indices, np.int64) * length + offset, length)

    def windows_at(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int32]:
        """Windows by their first token: (n,) -> int32 (n, length)."""
        if np.any(starts < 0) or np.any(starts + length > len(self.tokens)):
            raise IndexError(
                f"windows of {length} tokens from {starts.min()} to {starts.max()} "
                f"exceed the {len(self.tokens)} tokens of the split"
            )
        if isinstance(self.tokens, Shards):
            return self.tokens.windows_at(starts, length)
        return self.tokens[starts[:, None] + np.arange(length)].astype(np.int32)

    def document_starts(self, starts: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
        """Which tokens of windows are the first of a document: (n,) -> bool (n, length)."""
        is_start = np.zeros((len(starts), length), np.bool_)
        first = np.searchsorted(self.ends, starts)
        count = np.searchsorted(self.ends, starts + length) - first
        row = np.repeat(np.arange(len(starts)), count)
        end = np.arange(len(row)) - (np.cumsum(count) - count - first)[row]
        is_start[row, self.ends[end] - starts[row]] = True
        return is_start

    def counts(self, vocab_size: int) -> NDArray[np.int64]:
        """Count of each id: int64 (vocab_size,).

        Raises:
          T5smithError: an id is not below `vocab_size`.
        """
        counts = np.zeros(vocab_size, np.int64)
        for start in range(0, len(self.tokens), _IDS_AT_ONCE):
            part = np.bincount(self.tokens[start : start + _IDS_AT_ONCE], minlength=vocab_size)
            if len(part) > vocab_size:
                raise T5smithError(
                    f"the {self.name} split has id {len(part) - 1:,}; the vocabulary has {vocab_size:,} ids",
                    fix="make the store again with `t5smith prepare`",
                )
            counts += part
        return counts


@dataclass(frozen=True)
class TokenStore:
    """Both splits of a prepared corpus."""

    folder: Path
    train: Split
    valid: Split

    @classmethod
    def open(cls, folder: Path, check_hashes: bool = True) -> TokenStore:
        """Open a store for reading.

        Args:
          folder: the store.
          check_hashes: read all files and compare their hashes; if False, only sizes are compared.

        Raises:
          T5smithError: missing, unfinished, damaged, or another kind of artifact.
        """
        facts = read_manifest(folder, "store", check_hashes=check_hashes).facts
        with _damage_errors(folder):
            dtype = id_dtype(facts["vocab_size"])
            table = json.loads((folder / "shards.json").read_text(encoding="utf-8"))
            train, valid = (
                open_split(folder, name, table[name], dtype, facts[name]) for name in ("train", "valid")
            )
        return cls(folder, train, valid)


@contextlib.contextmanager
def _damage_errors(folder: Path) -> Generator[None]:
    """Report errors that hashes do not show: an edited manifest, or files that were wrong when hashed.

    Raises:
      T5smithError: a value or file is missing, or of another type.
    """
    try:
        yield
    except KeyError as error:
        problem = f"{error} is missing"
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError, FileNotFoundError) as error:
        problem = str(error)
    else:
        return
    raise T5smithError(f"damaged manifest or shards.json ({problem})", where=folder, fix=_PREPARE_AGAIN)


def open_split(
    folder: Path,
    name: str,
    shards: Sequence[tuple[str, int]],
    dtype: np.dtype[np.unsignedinteger],
    facts: Mapping[str, Any],
) -> Split:
    """Open a split of a store.

    Args:
      folder: the store.
      name: `train` or `valid`.
      shards: its files and their numbers of ids.
      dtype: of the ids.
      facts: of the split, from the manifest.
    """
    tokens = Shards([(str(folder / name / file), size) for file, size in shards], dtype)
    ends = np.load(folder / f"{name}.ends.npy", "r")
    return Split(name, tokens, ends, facts["text_bytes"], corpora_from_facts(facts))


def _unpickle_split(name: str, tokens: Any, ends: Any, *rest: Any) -> Split:
    return Split(name, tokens, np.load(ends, "r") if isinstance(ends, str) else ends, *rest)


def verify_store(folder: Path) -> None:
    """Read all files of a store and check hashes, that ids are in the vocabulary, and the ends of documents.

    Raises:
      T5smithError: the store is missing or damaged.
    """
    facts = read_manifest(folder, "store").facts
    store = TokenStore.open(folder, check_hashes=False)
    with _damage_errors(folder), phase("verify", "reading all tokens", at_once=False):
        for split in (store.train, store.valid):
            _check_split(folder, split, facts[split.name], facts["vocab_size"])
    splits = (store.train, store.valid)
    shards = sum(len(split.tokens.files) for split in splits if isinstance(split.tokens, Shards))
    info(f"verify    {shards} shards, {sum(len(split.tokens) for split in splits):,} tokens: no error found")


def _check_split(folder: Path, split: Split, facts: Mapping[str, Any], vocab_size: int) -> None:
    split.counts(vocab_size)
    for start in range(0, len(split.ends), _IDS_AT_ONCE):
        # Overlaps the part before by one, so that its first end is compared too.
        ends = split.ends[max(start - 1, 0) : start + _IDS_AT_ONCE]
        if ends[0] <= 0 or np.any(np.diff(ends) <= 0):
            raise T5smithError("the ends of documents do not increase", where=folder, fix=_PREPARE_AGAIN)
    expected = (facts["tokens"], facts["documents"], facts["tokens"])
    if (len(split.tokens), len(split.ends), int(split.ends[-1])) != expected:
        raise T5smithError(
            f"the length of the {split.name} split differs from the manifest",
            where=folder,
            fix=_PREPARE_AGAIN,
        )


def corpora_from_facts(facts: Mapping[str, Any]) -> tuple[Corpus, ...]:
    """The corpora of a split by its facts in the manifest; empty if they have no names."""
    found: list[Corpus] = []
    for name, one in facts.get("corpora", {}).items():
        begin = found[-1].stop if found else 0
        found.append(Corpus(name, begin, begin + one["tokens"]))
    return tuple(found)
