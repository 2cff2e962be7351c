"""From files to documents, one after another, without holding a file in memory.

A file is plain text, JSON lines, a table (CSV, Parquet, Arrow), a web page or archive, a MediaWiki dump or
WikiExtractor's text of one, or an archive (zip, tar) of such files, and may be compressed with gzip, xz, zstd
or bzip2. Records that cannot be used are counted with file and line, or rejected.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.archives.reading import archive_documents
from t5smith.text.compression import OpenAgain, open_stream
from t5smith.text.corpus import CorpusFiles, SplitName
from t5smith.text.document import WHOLE_FILE, BlockSelection, Document
from t5smith.text.fingerprints import bytes_to_read, file_size
from t5smith.text.formats.csv import csv_rows
from t5smith.text.formats.html import web_page
from t5smith.text.formats.jsonl import json_field, json_lines
from t5smith.text.formats.mediawiki import wiki_pages
from t5smith.text.formats.parquet_arrow import arrow_rows, parquet_rows
from t5smith.text.formats.plain import Lines, Positioned, text_blocks, text_file, text_lines
from t5smith.text.formats.warc import web_archive
from t5smith.text.formats.wikiextractor import wiki_documents
from t5smith.text.locations import Location, is_url, split_row_range
from t5smith.text.read_bytes import ReadBytes, bytes_read
from t5smith.text.recognition import (
    ARCHIVES,
    RANDOM_ACCESS,
    UnreadableFileError,
    check_first_bytes,
    file_format,
    one_document_per_file,
    readable_format,
)
from t5smith.text.skipped_records import FileRecords, SkippedRecords

MOST_ENDINGS = 32
"""Endings of files of which a check before the start reads a document."""
PROGRESS_BYTES = 1 << 16
"""Progress is reported each time this many more bytes have been read."""


def read_documents(
    corpus: CorpusSettings,
    files: Iterable[Location],
    on_bytes: Callable[[int], Any] | None = None,
    skipped: SkippedRecords | None = None,
) -> Iterator[Document]:
    """The documents of files, in order.

    Args:
      corpus: settings that say what a document is and which field holds its text.
      files: as `find_files` returns them.
      on_bytes: called with the number of bytes read since the last call, as stored, for progress; they add
        up to :func:`t5smith.text.fingerprints.bytes_to_read`.
      skipped: where records that cannot be used are counted.

    Raises:
      T5smithError: with `file:line`: a file is missing, cannot be read or has nothing usable in it; with
        `corpus.strict`, the first record that cannot be used.
    """
    skipped = skipped or SkippedRecords(corpus.strict)
    files = list(files)
    for file in files:
        read = ReadBytes(bytes_to_read(file), on_bytes) if on_bytes else None
        placed = positioned_documents(
            corpus, str(file), WHOLE_FILE, skipped, read and read.add, alone=len(files) == 1
        )
        for _, document in placed:
            if document is not None:
                yield document
        if read:
            read.finish()


def positioned_documents(
    corpus: CorpusSettings,
    name: str,
    blocks: BlockSelection,
    skipped: SkippedRecords,
    on_bytes: Callable[[int], Any] | None = None,
    alone: bool = False,
) -> Iterator[Positioned]:
    """The documents of some blocks of a file, with their positions; None where a block begins.

    Args:
      corpus: as for :func:`read_documents`.
      name: of a file, or of some of its rows.
      blocks: which blocks are read.
      skipped: where records that cannot be used are counted.
      on_bytes: called with the number of bytes read since the last call, as stored.
      alone: whether there is no other file: then one of a format that cannot be read, or that is a single
        unusable document, is an error.

    Raises:
      T5smithError: as :func:`read_documents`.
    """
    try:
        yield from _documents(corpus, name, blocks, skipped, on_bytes, alone)
    except UnreadableFileError as error:
        if alone:
            raise
        # It may have been planned as several blocks, by its name.
        if not blocks.start and blocks.includes(0):
            skipped.add_file(split_row_range(name)[0], error)


def _documents(
    corpus: CorpusSettings,
    name: str,
    blocks: BlockSelection,
    skipped: SkippedRecords,
    on_bytes: Callable[[int], Any] | None,
    alone: bool,
) -> Iterator[Positioned]:
    name, rows = split_row_range(name)
    assert rows is None or blocks == WHOLE_FILE
    # If some blocks are finished, what is left cannot show whether the file is usable.
    from_start = not blocks.start and not blocks.reader and not blocks.finished
    whole = from_start and blocks.stop is None and blocks.readers == 1
    # Found before the file is opened: some file systems share one position among all readers of a file.
    kind = file_format(corpus, name)
    # The first members of an archive do not show what the others are.
    records = FileRecords(skipped, from_start and kind not in ARCHIVES, whole, rows)
    field = json_field(name, corpus) if kind == "jsonl" else ""
    with open_stream(name, seekable=kind in RANDOM_ACCESS) as (raw, stream):
        if is_url(name):
            check_first_bytes(name, raw)  # its format was known by its name
        so_far = bytes_read(kind, raw, stream, blocks, records)
        read = 0
        for position, document in _format_reader(corpus, kind, field, name, stream, blocks, records):
            # From the second block on, other readers may have read records in between.
            records.from_start = records.from_start and not blocks.block_of(position)
            if document is not None and document.bytes > corpus.longest_document:
                records.skip("too long", _too_long(document, corpus.longest_document))
                continue
            requested = document is None or records.accept()
            if on_bytes and (now := so_far()) - read >= PROGRESS_BYTES:
                on_bytes(now - read)
                read = now
            if requested:
                yield position, document
            if records.finished:
                break
        if on_bytes:
            on_bytes(max(so_far() - read, 0))
    # What other files have is enough beside one document, or an archive whose members are counted.
    if alone or not (kind in ARCHIVES or one_document_per_file(corpus, kind)):
        records.end()


def _too_long(document: Document, longest: int) -> T5smithError:
    return T5smithError(
        f"a document of {document.bytes:,} bytes is longer than allowed",
        where=document.where,
        expected=f"at most {longest:,} bytes",
        fix="raise corpus.longest_document",
    )


def _format_reader(
    corpus: CorpusSettings,
    kind: str,
    field: str,
    name: str,
    stream: IO[bytes],
    blocks: BlockSelection,
    records: FileRecords,
    again: OpenAgain | None = None,
) -> Iterator[Positioned]:
    if kind in RANDOM_ACCESS:
        if not stream.seek(0, os.SEEK_END):
            return iter(())  # empty, as any other file may be
        stream.seek(0)
    if kind in ARCHIVES:
        return archive_documents(corpus, kind, name, stream, blocks, records, _format_reader)
    if kind == "parquet":
        return parquet_rows(name, stream, corpus, blocks, records)
    if kind == "arrow":
        return arrow_rows(name, stream, corpus, blocks, records)
    if kind == "warc":
        return web_archive(name, stream, blocks, records, corpus.longest_document)
    if kind == "mediawiki":
        return wiki_pages(name, stream, blocks, records, corpus.longest_document, again)
    if kind == "html":
        return web_page(name, stream, records, corpus.longest_document)
    lines = Lines(name, stream, blocks, records, corpus.longest_document)
    if kind == "wikiextractor":
        return wiki_documents(lines)
    if kind == "jsonl":
        return json_lines(lines, field)
    if kind == "csv":
        return csv_rows(lines, corpus, again)
    return {"line": text_lines, "file": text_file, "block": text_blocks}[corpus.document](lines)


def is_held_out(text: str, fraction: float) -> bool:
    """Whether a document is held out, by a hash of its raw text alone, so that copies stay together."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def split_documents(
    corpus: CorpusFiles,
    split: SplitName,
    on_bytes: Callable[[int], Any] | None = None,
    skipped: SkippedRecords | None = None,
) -> Iterator[Document]:
    """The documents of one split: of the files named for it, or those that the hash puts there.

    Args:
      corpus: the files of a recipe.
      split: `train` or `valid`.
      on_bytes: as for :func:`read_documents`.
      skipped: where records that cannot be used are counted.

    Raises:
      T5smithError: as :func:`read_documents`.
    """
    settings = corpus.settings
    if settings.valid:
        yield from read_documents(settings.of_split(split), corpus.files(split), on_bytes, skipped)
        return
    for document in read_documents(settings, corpus.files("train"), on_bytes, skipped):
        if is_held_out(document.text, settings.held_out_fraction) == (split == "valid"):
            yield document


def smaller_documents(settings: CorpusSettings, plain: bool) -> str:
    """How one single document can be split into a training and a held-out part, as a fix.

    Args:
      settings: of the corpus.
      plain: whether the document is of plain text, so that `corpus.document` matters.
    """
    fix = "name held-out text in corpus.valid"
    smaller = {"file": 'corpus.document = "block" or "line"', "block": 'corpus.document = "line"'}
    if plain and settings.document in smaller:
        fix += f", or make documents smaller: {smaller[settings.document]}"
    return fix


def no_training_text(corpus: CorpusFiles) -> T5smithError:
    """The error for a text without a training document: there is none, or all of them are held out."""
    files, settings = corpus.files("train"), corpus.settings
    found = list(itertools.islice(read_documents(settings, files), 2))
    if not found:
        return T5smithError(_no_text(files), where="corpus.train", fix="name files with text")
    fix = "lower corpus.held_out_fraction"
    what = "all documents are held out"
    if len(found) == 1:
        what = "the text is a single document, and it is held out"
        fix = smaller_documents(settings, readable_format(settings, str(files[0])) == "text")
    return T5smithError(what, where="corpus.train", fix=fix)


def _no_text(files: Sequence[Location]) -> str:
    """What is wrong with files that have no document."""
    if len(files) == 1:
        size = "is empty (0 bytes)" if not file_size(files[0]) else "has no text"
        return f"the text is empty: {files[0]} {size}"
    return f"the text is empty: none of {len(files):,} files has any, {files[0]} is the first"


def check_first_documents(corpus: CorpusFiles) -> None:
    """Read the first document of each corpus, and of each ending of its files, up to MOST_ENDINGS.

    Raises:
      T5smithError: a corpus has no document, or as :func:`read_documents`.
    """
    for split, corpora in (("train", corpus.train), ("valid", corpus.valid)):
        settings = corpus.settings.of_split(split)
        for name, files in corpora.items():
            if next(iter(read_documents(settings, files)), None) is None:
                what = f"the corpus {name} has no text: " if name else ""
                what += _no_text(files)
                raise T5smithError(what, where=f"corpus.{split}", fix="name files with text")
            first = {os.path.splitext(str(file))[1]: file for file in reversed(files)}
            # Parts named a.0001, a.0002 have an ending each.
            for file in itertools.islice(reversed(first.values()), MOST_ENDINGS):
                # Not alone: of all files of a corpus, some may be unreadable.
                skipped = SkippedRecords(settings.strict)
                placed = positioned_documents(settings, str(file), WHOLE_FILE, skipped)
                next((document for _, document in placed if document is not None), None)
