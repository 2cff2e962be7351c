"""The token store: each split of the text as one long row of ids, read as windows of any length.

The ids lie flat on disk, in shards, and are mapped, not loaded: however large the store, opening it takes no
memory.
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
from t5smith.base.progress import info

_COUNTED_AT_ONCE = 1 << 24
_AGAIN = "delete it and make it again with `t5smith prepare`"


def id_dtype(vocabulary_size: int) -> np.dtype[np.unsignedinteger]:
    """The smallest of uint16 and uint32, little endian, that holds every id."""
    return np.dtype("<u2" if vocabulary_size <= 1 << 16 else "<u4")


@dataclass(frozen=True)
class Corpus:
    """One of the corpora in a split: the tokens from `start` to `stop`."""

    name: str
    start: int
    stop: int

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        return self.stop - self.start


class Shards:
    """Ids in several files, as one row. Slices and windows are copies.

    Attributes:
      files: the files and how many ids each has.
      dtype: of the ids.
    """

    def __init__(self, files: Sequence[tuple[str, int]], dtype: np.dtype[np.unsignedinteger]) -> None:
        self.files, self.dtype = tuple(files), dtype
        self._starts = np.cumsum([0, *(size for _, size in self.files)])
        # At once: a store that is made anew while this one is read moves away.
        self._maps = [np.memmap(file, dtype, "r", shape=(size,)) for file, size in self.files]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: the names of the files, not the text in them."""
        return Shards, (self.files, self.dtype)

    def __getitem__(self, place: slice) -> NDArray[np.unsignedinteger]:
        start, stop, _ = place.indices(len(self))
        first = max(int(np.searchsorted(self._starts, start, "right")) - 1, 0)
        parts: list[NDArray[np.unsignedinteger]] = [np.empty(0, self.dtype)]
        while start < stop:
            begin = int(self._starts[first])
            end = min(stop, int(self._starts[first + 1]))
            parts.append(self._maps[first][start - begin : end - begin])
            start, first = max(start, end), first + 1
        return np.concatenate(parts)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def tolist(self) -> list[int]:
        """All ids."""
        return self[:].tolist()

    def windows_at(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int32]:
        """(n,) -> int32 (n, length)."""
        windows = np.empty((len(starts), length), np.int32)
        first = np.searchsorted(self._starts, starts, "right") - 1
        within = starts + length <= self._starts[first + 1]
        for shard in np.unique(first[within]):
            rows = np.flatnonzero(within & (first == shard))
            places = (starts[rows] - self._starts[shard])[:, None] + np.arange(length)
            windows[rows] = self._maps[int(shard)][places]
        for row in np.flatnonzero(~within):
            windows[row] = self[int(starts[row]) : int(starts[row]) + length]
        return windows


@dataclass(frozen=True)
class Split:
    """The training or the held-out part of a store.

    Attributes:
      name: `train` or `valid`.
      tokens: (tokens,), read-only; every id, the `</s>` between documents included. An array, or a row of
        shards that knows `len`, slices and `dtype`.
      ends: int64 (documents,); where each document ends in `tokens`, its `</s>` included.
      text_bytes: UTF-8 bytes of the raw text.
      corpora: the corpora it was made of, one after the other; without names there is one.
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
        """For another process: the name of the file of ends, not what is in it."""
        file = self.ends.filename if isinstance(self.ends, np.memmap) else None
        ends = self.ends if file is None else str(file)
        return _split, (self.name, self.tokens, ends, self.text_bytes, self.corpora)

    def window_count(self, length: int) -> int:
        """How many whole windows of `length` tokens there are; what is left over at the end is not used.

        Raises:
          T5smithError: not even one.
        """
        count = len(self.tokens) // length
        if not count:
            raise T5smithError(
                f"the {self.name} split has {len(self.tokens):,} tokens, fewer than one window of {length:,}",
                where=f"corpus.{self.name}",
                fix="give more text, or lower objective.input_length",
            )
        return count

    def windows(
        self, length: int, indices: NDArray[np.integer], offset: int | NDArray[np.integer] = 0
    ) -> NDArray[np.int32]:
        """Windows by number: (n,) -> int32 (n, length).

        Window i is the tokens from i * length + offset; the offset may differ from window to window.
        """
        return self.windows_at(np.asarray(indices, np.int64) * length + offset, length)

    def windows_at(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int32]:
        """Windows by their first token: (n,) -> int32 (n, length)."""
        if np.any(starts < 0) or np.any(starts + length > len(self.tokens)):
            raise IndexError(
                f"windows of {length} that begin at {starts.min()} to {starts.max()} "
                f"do not lie within {len(self.tokens)} tokens"
            )
        if isinstance(self.tokens, Shards):
            return self.tokens.windows_at(starts, length)
        return self.tokens[starts[:, None] + np.arange(length)].astype(np.int32)

    def document_starts(self, starts: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
        """Which tokens of windows are the first of a document: (n,) -> bool (n, length)."""
        opens = np.zeros((len(starts), length), np.bool_)
        first = np.searchsorted(self.ends, starts)
        count = np.searchsorted(self.ends, starts + length) - first
        row = np.repeat(np.arange(len(starts)), count)
        end = np.arange(len(row)) - (np.cumsum(count) - count - first)[row]
        opens[row, self.ends[end] - starts[row]] = True
        return opens

    def counts(self, vocab_size: int) -> NDArray[np.int64]:
        """How often each id occurs: int64 (vocab_size,).

        Raises:
          T5smithError: an id that such a vocabulary does not have.
        """
        counts = np.zeros(vocab_size, np.int64)
        for start in range(0, len(self.tokens), _COUNTED_AT_ONCE):
            part = np.bincount(self.tokens[start : start + _COUNTED_AT_ONCE], minlength=vocab_size)
            if len(part) > vocab_size:
                raise T5smithError(
                    f"the {self.name} split has id {len(part) - 1:,}, not among {vocab_size:,}",
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
        """Map a store that `prepare` made.

        Args:
          folder: the store.
          check_hashes: read every file and compare it with its hash; without, only sizes are compared.

        Raises:
          T5smithError: not there, unfinished, damaged, or another kind of artifact.
        """
        facts = read_manifest(folder, "store", check_hashes=check_hashes).facts
        with _as_written(folder):
            dtype = id_dtype(facts["vocab_size"])
            table = json.loads((folder / "shards.json").read_text(encoding="utf-8"))
            train, valid = (
                open_split(folder, name, table[name], dtype, facts[name]) for name in ("train", "valid")
            )
        return cls(folder, train, valid)


@contextlib.contextmanager
def _as_written(folder: Path) -> Generator[None]:
    """Hashes do not tell of a manifest that was altered, nor of what was wrong when it was hashed.

    Raises:
      T5smithError: something is missing that `prepare` writes, or is of another kind.
    """
    try:
        yield
    except KeyError as error:
        problem = f"{error} is missing"
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError, FileNotFoundError) as error:
        problem = str(error)
    else:
        return
    raise T5smithError(f"damaged manifest or shards.json ({problem})", where=folder, fix=_AGAIN)


def open_split(
    folder: Path,
    name: str,
    shards: Sequence[tuple[str, int]],
    dtype: np.dtype[np.unsignedinteger],
    facts: Mapping[str, Any],
) -> Split:
    """Map a split of a store.

    Args:
      folder: the store.
      name: `train` or `valid`.
      shards: its files and how many ids each has.
      dtype: of the ids.
      facts: what the manifest says of the split.
    """
    tokens = Shards([(str(folder / name / file), size) for file, size in shards], dtype)
    ends = np.load(folder / f"{name}.ends.npy", "r")
    return Split(name, tokens, ends, facts["text_bytes"], corpora_from_facts(facts))


def _split(name: str, tokens: Any, ends: Any, *rest: Any) -> Split:
    return Split(name, tokens, np.load(ends, "r") if isinstance(ends, str) else ends, *rest)


def check(folder: Path) -> None:
    """Read every file of a store: hashes, ids within the vocabulary, ends of documents.

    Raises:
      T5smithError: there is none, or something is not as it was written.
    """
    facts = read_manifest(folder, "store").facts
    store = TokenStore.open(folder, check_hashes=False)
    with _as_written(folder):
        for split in (store.train, store.valid):
            _check_split(folder, split, facts[split.name], facts["vocab_size"])
    shards = [
        len(split.tokens.files) for split in (store.train, store.valid) if isinstance(split.tokens, Shards)
    ]
    info(
        f"verify    {sum(shards)} shards, {len(store.train.tokens) + len(store.valid.tokens):,} tokens: "
        f"as they were written"
    )


def _check_split(folder: Path, split: Split, told: Mapping[str, Any], vocab_size: int) -> None:
    split.counts(vocab_size)
    for start in range(0, len(split.ends), _COUNTED_AT_ONCE):
        # The one before is among them, so that the first must be larger too.
        ends = split.ends[max(start - 1, 0) : start + _COUNTED_AT_ONCE]
        if ends[0] <= 0 or np.any(np.diff(ends) <= 0):
            raise T5smithError("documents do not end one after the other", where=folder, fix=_AGAIN)
    expected = (told["tokens"], told["documents"], told["tokens"])
    if (len(split.tokens), len(split.ends), int(split.ends[-1])) != expected:
        raise T5smithError(f"the {split.name} split is not as long as told", where=folder, fix=_AGAIN)


def corpora_from_facts(facts: Mapping[str, Any]) -> tuple[Corpus, ...]:
    """The corpora of a split, by what its manifest says of it; none if they had no names."""
    found: list[Corpus] = []
    for name, one in facts.get("corpora", {}).items():
        begin = found[-1].stop if found else 0
        found.append(Corpus(name, begin, begin + one["tokens"]))
    return tuple(found)
