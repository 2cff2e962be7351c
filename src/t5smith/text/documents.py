"""From the files of a recipe to documents, one after another, without holding a file in memory.

A file is plain text, JSON lines, a table (CSV, Parquet, Arrow) or a web archive, and may be compressed with
gzip, xz, zstd or bzip2. What cannot be read is counted with its file and line, or refused.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, Literal

from t5smith.base.artifact import file_hash
from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.text.compression import compression, opened, reading
from t5smith.text.document import WHOLE, Document, Part
from t5smith.text.files import corpora, resolve
from t5smith.text.formats import parquet_arrow as tables
from t5smith.text.formats.csv import csv_rows
from t5smith.text.formats.jsonl import json_field, json_lines
from t5smith.text.formats.plain import Lines, Placed, text_blocks, text_file, text_lines
from t5smith.text.formats.warc import webarchive
from t5smith.text.locations import Place, Remote, Rows, without_rows
from t5smith.text.skipped_records import FileRecords, SkippedRecords

HASHED_BYTES = 64 << 20
"""Files up to this size are known by a hash of their content, larger ones by size and time of change."""
TOLD_BYTES = 1 << 16
"""Progress is told about as often as this many bytes were read."""

_FORMATS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".warc": "warc",
    ".wet": "warc",
}

TABLES = ("parquet", "arrow")
"""Formats that are not read from the beginning to the end."""

SplitName = Literal["train", "valid"]


def format_of(corpus: CorpusSettings, name: str) -> str:
    """How a file is read: `text`, `jsonl`, `csv`, `parquet`, `arrow` or `warc`."""
    if corpus.format != "auto":
        return corpus.format
    name = name.lower()
    name = name.removesuffix(compression(name))
    return next((kind for ending, kind in _FORMATS.items() if name.endswith(ending)), "text")


def splits_anywhere(corpus: CorpusSettings, name: str) -> bool:
    """Whether reading may begin at any byte: the file is plain, and lines show where a document begins."""
    kind = format_of(corpus, name)
    return not compression(name) and (kind == "jsonl" or (kind == "text" and corpus.document != "file"))


def documents(
    corpus: CorpusSettings,
    files: Iterable[Place],
    on_bytes: Callable[[int], Any] | None = None,
    skipped: SkippedRecords | None = None,
) -> Iterator[Document]:
    """The documents of files, in order.

    Args:
      corpus: says what a document is and which field holds it.
      files: as `resolve` gives them.
      on_bytes: told how many more bytes of the files were read, as they lie on disk, for progress.
      skipped: where records that cannot be used are counted.

    Raises:
      T5smithError: with `file:line`: not there, not readable, nothing in it is of use, or, if
        `corpus.strict`, the first record that is not.
    """
    skipped = skipped or SkippedRecords(corpus.strict)
    for path in files:
        for _, document in placed_documents(corpus, str(path), WHOLE, skipped, on_bytes):
            if document is not None:
                yield document


def placed_documents(
    corpus: CorpusSettings,
    name: str,
    part: Part,
    skipped: SkippedRecords,
    on_bytes: Callable[[int], Any] | None = None,
) -> Iterator[Placed]:
    """The documents of a part of a file, with their places; also places whose documents are not asked for."""
    name, rows = without_rows(name)
    assert rows is None or part == WHOLE
    # What was read before is not read again, so that it cannot show whether the file is of any use.
    begins = not part.start and not part.turn and not part.done
    records = FileRecords(skipped, begins, whole=begins and part.stop is None and part.turns == 1, rows=rows)
    # Before the file is open: some file systems know one place in a file, whoever reads it.
    field = json_field(name, corpus) if format_of(corpus, name) == "jsonl" else ""
    with reading(name, anywhere=format_of(corpus, name) in TABLES) as (raw, stream):
        read = part.start
        for placed in _placed(corpus, field, name, stream, part, records):
            # Beyond the first block others may have read what lies between.
            records.from_start = records.from_start and not part.block(placed[0])
            if placed[1] is not None and placed[1].bytes > corpus.longest_document:
                error = T5smithError(
                    f"a document of {placed[1].bytes:,} bytes is longer than it may be",
                    where=placed[1].place,
                    expected=f"at most {corpus.longest_document:,} bytes",
                    fix="raise corpus.longest_document",
                )
                records.skip("too long", error)
                continue
            asked = placed[1] is None or records.accept()
            if on_bytes and (place := raw.tell()) - read >= TOLD_BYTES:
                on_bytes(place - read)
                read = place
            if asked:
                yield placed
            if records.finished:
                break
        if on_bytes:
            on_bytes(max(raw.tell() - read, 0))
    records.end()


def _placed(
    corpus: CorpusSettings, field: str, name: str, stream: IO[bytes], part: Part, records: FileRecords
) -> Iterator[Placed]:
    kind = format_of(corpus, name)
    if kind == "parquet":
        return tables.parquet_rows(name, stream, corpus, part, records)
    if kind == "arrow":
        return tables.arrow_rows(name, stream, corpus, part, records)
    if kind == "warc":
        return webarchive(name, stream, part, records)
    lines = Lines(name, stream, part, records, corpus.longest_document)
    if kind == "jsonl":
        return json_lines(lines, field)
    if kind == "csv":
        return csv_rows(lines, corpus)
    return {"line": text_lines, "file": text_file, "block": text_blocks}[corpus.document](lines)


def file_bytes(file: Place) -> int:
    """Bytes of a file as it lies there.

    Raises:
      T5smithError: it is not there, or may not be read.
    """
    if isinstance(file, Rows):
        return file_bytes(file.file)
    if isinstance(file, Remote):
        return file.bytes
    with opened(str(file)):
        return file.stat().st_size


def fingerprint_files(files: Iterable[Place]) -> list[dict[str, Any]]:
    """What tells that the text is the same as before: each file's name and size, and its content's hash.

    Files too large to read twice are known by the time they were changed instead.
    """
    prints: list[dict[str, Any]] = []
    for place in files:
        rows: dict[str, Any] = {}
        if isinstance(place, Rows):
            rows = {"rows": [place.start, place.stop]}
            place = place.file
        if isinstance(place, Remote):
            prints.append({"name": place.url, "bytes": place.bytes, "stamp": place.stamp, **rows})
            continue
        with opened(str(place)):
            status = place.stat()
            print_: dict[str, Any] = {"name": place.name, "bytes": status.st_size, **rows}
            if status.st_size <= HASHED_BYTES:
                print_["sha256"] = file_hash(place)
            else:
                print_["changed_ns"] = status.st_mtime_ns
            prints.append(print_)
    return prints


def is_held_out(text: str, fraction: float) -> bool:
    """Whether a document is held out. That goes by its raw text alone, so copies stay together."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def corpus_inputs(corpus: CorpusSettings) -> dict[str, Any]:
    """All that decides which documents there are and in which split; a part of the keys of artifacts."""
    train = corpora(corpus.train, "corpus.train")
    inputs: dict[str, Any] = {
        "train": fingerprint_files(itertools.chain.from_iterable(train.values())),
        "format": corpus.format,
        "document": corpus.document,
        "text_field": corpus.text_field,
        "longest_document": corpus.longest_document,
    }
    # Which files are of which corpus, in order: a fingerprint does not see in what order names are given.
    if any(train):
        inputs["corpora"] = [[name, len(files)] for name, files in train.items()]
    if corpus.valid:
        valid = corpora(corpus.valid, "corpus.valid")
        inputs["valid"] = fingerprint_files(itertools.chain.from_iterable(valid.values()))
        if any(valid):
            inputs["valid_corpora"] = [[name, len(files)] for name, files in valid.items()]
    else:
        inputs["held_out_fraction"] = corpus.held_out_fraction
    return inputs


def labelled_documents(
    corpus: CorpusSettings,
    on_bytes: Callable[[int], Any] | None = None,
    only: SplitName | None = None,
    skipped: SkippedRecords | None = None,
) -> Iterator[tuple[SplitName, Document]]:
    """Every document with its split, each file read once; `only` leaves out files of the other split."""
    if corpus.valid:
        if only != "valid":
            for document in documents(corpus, resolve(corpus.train, "corpus.train"), on_bytes, skipped):
                yield "train", document
        if only != "train":
            for document in documents(corpus, resolve(corpus.valid, "corpus.valid"), on_bytes, skipped):
                yield "valid", document
        return
    for document in documents(corpus, resolve(corpus.train, "corpus.train"), on_bytes, skipped):
        yield ("valid" if is_held_out(document.text, corpus.held_out_fraction) else "train"), document


def split_documents(
    recipe: Recipe,
    split: SplitName,
    on_bytes: Callable[[int], Any] | None = None,
    skipped: SkippedRecords | None = None,
) -> Iterator[Document]:
    """The documents of one split: the files given for it, or those the hash puts there."""
    return (
        document
        for name, document in labelled_documents(recipe.corpus, on_bytes, split, skipped)
        if name == split
    )
