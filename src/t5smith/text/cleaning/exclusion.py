"""Texts that must not be trained on: lists of hashes, or of texts, that `corpus.exclude` names.

The hash of a text is the SHA-256 of its words, with single spaces between them, in UTF-8. A document is
excluded if it has the hash of an entry, as it was read or after cleaning, or, for entries that are texts, if
it is nearly a duplicate of one: both have the same hashes in a bucket of their MinHash signatures.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t5smith.base.errors import T5smithError
from t5smith.base.progress import info
from t5smith.base.wrapping import pluralize
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.text.cleaning.minhash import MinHasher, minhasher
from t5smith.text.compression import open_stream
from t5smith.text.corpus import CorpusFiles
from t5smith.text.document import Document
from t5smith.text.documents import read_documents
from t5smith.text.locations import Location, RowRange
from t5smith.text.recognition import first_bytes
from t5smith.text.skipped_records import SkippedRecords

STEP = "exclude"
"""The name under which excluded documents are counted, beside the cleaning steps."""
FILE = "exclusions.npz"
_HASH = re.compile(r"[0-9A-Fa-f]{64}")


def text_hash(text: str) -> bytes:
    """The SHA-256 by which a text is excluded: equal for texts that differ only in white space."""
    return hashlib.sha256(" ".join(text.split()).encode()).digest()


@dataclass(frozen=True)
class Exclusions:
    """The entries of all files, numbered across them, in order.

    Attributes:
      names: of the files, as people read them.
      owner: int64 (entries,); the number of the file of each.
      digests: uint8 (entries, 32); the hash of each.
      texts: int64 (texts,); the entries with a signature.
      signatures: uint64 (texts, buckets, 2).
      skipped: records of each file that could not be read, by kind.
      hasher: makes the signatures of documents; None: near matches are not looked for.
    """

    names: Sequence[str]
    owner: NDArray[np.int64]
    digests: NDArray[np.uint8]
    texts: NDArray[np.int64]
    signatures: NDArray[np.uint64]
    skipped: Sequence[Mapping[str, int]]
    hasher: MinHasher | None
    _exact: _Index = field(init=False, repr=False, compare=False)
    _near: Sequence[_Index] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        entries = np.arange(len(self.owner))
        object.__setattr__(self, "_exact", _Index.of(self.digests, entries))
        buckets = range(self.signatures.shape[1] if len(self.texts) else 0)
        near = [_Index.of(self.signatures[:, bucket], self.texts) for bucket in buckets]
        object.__setattr__(self, "_near", near)

    @classmethod
    def read(cls, recipe: Recipe, files: CorpusFiles) -> Exclusions | None:
        """Read the files that a recipe excludes; None if it names none.

        Raises:
          T5smithError: a file cannot be read or has no entry, or a line is no hash.
        """
        if not files.exclude:
            return None
        wanted = recipe.corpus.exclude_near_matches
        hasher: MinHasher | None = None
        digests, owner = list[bytes](), list[int]()
        texts, signatures, skipped = list[int](), list[NDArray[np.uint64]](), list[Mapping[str, int]]()
        for number, file in enumerate(files.exclude):
            records = SkippedRecords(recipe.corpus.strict)
            before = len(digests)
            for digest, text in _entries(recipe.corpus, file, records):
                if text is not None and wanted:
                    hasher = hasher or minhasher(recipe)
                    if (signature := hasher.signature(text)).any():
                        texts.append(len(digests))
                        signatures.append(signature)
                digests.append(digest)
                owner.append(number)
            records.report()
            skipped.append(dict(records.counts))
            if len(digests) == before:
                expected = "hashes, one per line, or texts in any format of a corpus"
                raise T5smithError("it has no text and no hash", where=str(file), expected=expected)
        return cls(
            _names(files.exclude),
            np.array(owner, np.int64),
            np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
            np.array(texts, np.int64),
            np.array(signatures, np.uint64).reshape(len(texts), hasher.buckets if hasher else 0, 2),
            skipped,
            hasher,
        )

    def save(self, folder: Path) -> None:
        """Write a file that tasks :meth:`load`."""
        about = json.dumps({"names": self.names, "skipped": self.skipped})
        arrays = {name: getattr(self, name) for name in ("owner", "digests", "texts", "signatures")}
        with (folder / FILE).open("wb") as file:
            np.savez(file, about=np.array(about), **arrays)

    @classmethod
    def load(cls, folder: Path, recipe: Recipe) -> Exclusions | None:
        """What :meth:`save` wrote into a folder; None if there is nothing."""
        if not (folder / FILE).is_file():
            return None
        with np.load(folder / FILE) as found:
            about = json.loads(str(found["about"]))
            hasher = minhasher(recipe) if len(found["texts"]) else None
            owner, digests, texts, signatures = (
                found[name] for name in ("owner", "digests", "texts", "signatures")
            )
        return cls(about["names"], owner, digests, texts, signatures, about["skipped"], hasher)

    def match(self, raw: str, text: str) -> tuple[int, str] | None:
        """The entry that excludes a document, and the reason to be counted; None: it is not excluded.

        Args:
          raw: the document as it was read.
          text: the document after cleaning.
        """
        for own in (text,) if raw == text else (text, raw):
            if (entry := self._exact.find(text_hash(own))) is not None:
                return entry, f"in {self.names[self.owner[entry]]}"
        if self.hasher is None:
            return None
        signature = self.hasher.signature(text)
        if not signature.any():
            return None
        found = [index.find(key.tobytes()) for index, key in zip(self._near, signature, strict=True)]
        entry = min((entry for entry in found if entry is not None), default=None)
        return None if entry is None else (entry, f"nearly in {self.names[self.owner[entry]]}")

    def facts(self, dropped: Counter[str], found: Iterable[int]) -> dict[str, dict[str, Any]]:
        """Of each file the entries, how many of them were found, and the documents that they excluded.

        Args:
          dropped: documents by the reasons of :meth:`match`.
          found: entries that :meth:`match` returned. Entries with the same hash are found with them.
        """
        _, same = np.unique(_bytes_of(self.digests), return_inverse=True)
        met = np.isin(same, same[np.array(sorted(found), np.int64)])
        tree: dict[str, dict[str, Any]] = {}
        for number, name in enumerate(self.names):
            own = self.owner == number
            tree[name] = {
                "entries": int(own.sum()),
                "found": int(met[own].sum()),
                "documents": dropped[f"in {name}"],
                "near_matches": dropped[f"nearly in {name}"],
                **({"skipped": dict(self.skipped[number])} if self.skipped[number] else {}),
            }
        return tree


def report_excluded(files: Mapping[str, Mapping[str, Any]]) -> None:
    """Print for each file of exclusions how many of its texts were found, and what that dropped."""
    for name, own in files.items():
        dropped = pluralize(own["documents"] + own["near_matches"], "document")
        near = f" ({own['near_matches']:,} as near matches)" if own["near_matches"] else ""
        entries = pluralize(own["entries"], "text")
        info(f"prepare   {name}: found {own['found']:,} of its {entries}; {dropped} excluded{near}")


@dataclass(frozen=True)
class _Index:
    """Sorted keys of a fixed length, and the entry of each."""

    keys: NDArray[np.bytes_]
    entries: NDArray[np.int64]

    @classmethod
    def of(cls, rows: NDArray[Any], entries: NDArray[np.int64]) -> _Index:
        """The index of keys, one per row; rows of an earlier entry come first."""
        keys = _bytes_of(rows)
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], entries[order])

    def find(self, key: bytes) -> int | None:
        """The first entry with a key."""
        key = key.rstrip(b"\0")  # as numpy has them
        at = int(np.searchsorted(self.keys, np.bytes_(key)))
        return int(self.entries[at]) if at < len(self.keys) and self.keys[at] == key else None


def _bytes_of(rows: NDArray[Any]) -> NDArray[np.bytes_]:
    """Each row of numbers as one string of bytes."""
    rows = np.ascontiguousarray(rows).reshape(len(rows), -1)
    return rows.view(f"S{rows.shape[1] * rows.itemsize}").reshape(-1)


def _entries(
    settings: CorpusSettings, file: Location, records: SkippedRecords
) -> Iterator[tuple[bytes, str | None]]:
    """The hash of each entry of a file, and its text if the file has texts. Empty texts are no entries."""
    if _is_list_of_hashes(file):
        lines = settings.model_copy(update={"format": "text", "document": "line"})
        for line in read_documents(lines, [file], skipped=records):
            if not line.text.lstrip().startswith("#"):
                yield _hash_in(line), None
        return
    for document in read_documents(settings.model_copy(update={"format": "auto"}), [file], skipped=records):
        if document.text.strip():
            yield text_hash(document.text), document.text


def _is_list_of_hashes(file: Location) -> bool:
    """Whether the first line that is no comment is a hash."""
    if isinstance(file, RowRange):
        return False
    with open_stream(str(file)) as (_, stream):
        # A line of a file of texts may be as long as the file.
        head = first_bytes(stream).removeprefix(b"\xef\xbb\xbf").splitlines()
    first = next((line.split()[0] for line in head if line.strip() and not line.startswith(b"#")), b"")
    return bool(_HASH.fullmatch(first.decode("latin-1")))


def _hash_in(line: Document) -> bytes:
    """The hash that begins a line; what follows is ignored, as the name that `sha256sum` prints."""
    word = line.text.split()[0]
    if not _HASH.fullmatch(word):
        expected = "64 hexadecimal digits, as in the lines before"
        raise T5smithError(f"{word[:40]!a} is no hash", where=line.where, expected=expected)
    return bytes.fromhex(word)


def _names(files: Sequence[Location]) -> list[str]:
    """The names of files for people, with their folders only where two have the same name."""
    short = [re.split(r"[/\\]", str(file))[-1] for file in files]
    return [name if short.count(name) == 1 else str(file) for name, file in zip(short, files, strict=True)]
