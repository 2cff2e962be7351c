"""The documents of an archive: those of its members, one after the other.

Each member is read by the reader of its own format. A document's position in the archive is that of its
member and its own within it, so an archive has blocks, and several tasks can read it, as any other file.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import IO

from t5smith.base.errors import T5smithError
from t5smith.base.wrapping import pluralize
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.archives.member import Cursor, Member, Rereadable
from t5smith.text.archives.tar_members import tar_members
from t5smith.text.archives.zip_members import zip_members
from t5smith.text.compression import copy_to_disk, decompressed, is_compressed
from t5smith.text.decompression import is_archive_damage
from t5smith.text.document import BlockSelection, Document, MemberSelection
from t5smith.text.folders.side_files import side_file, side_folder
from t5smith.text.formats.jsonl import json_field
from t5smith.text.formats.plain import Positioned
from t5smith.text.recognition import (
    ARCHIVES,
    RANDOM_ACCESS,
    chosen_format,
    format_of_stream,
    one_document_per_file,
)
from t5smith.text.skipped_records import (
    DAMAGED_ARCHIVE,
    EMPTY_MEMBERS,
    ENCRYPTED,
    MAX_REPORTED,
    NESTED,
    SIDE_MEMBERS,
    UNREADABLE,
    FileRecords,
)

PACKED_RATIO = 4
"""Positions of a compressed member that count as one of the archive's: headers state its stored size."""
_BUFFER = 1 << 18
_FIXES = {
    DAMAGED_ARCHIVE: "fetch or pack the archive again",
    ENCRYPTED: "unpack it with its password, and name the files",
    UNREADABLE: "unpack it with the program that made it, and name the files",
}

ReadFormat = Callable[..., Iterator[Positioned]]
"""The readers of all formats; see `documents._format_reader`."""


def archive_documents(
    corpus: CorpusSettings,
    kind: str,
    name: str,
    stream: IO[bytes],
    blocks: BlockSelection,
    records: FileRecords,
    read_format: ReadFormat,
) -> Iterator[Positioned]:
    """The documents of an archive's members, in the order of the archive.

    Args:
      corpus: settings that say what a document is and which field holds its text.
      kind: `zip` or `tar`.
      name: of the archive.
      stream: its decompressed bytes; those of a zip archive can be read from any position.
      blocks: which blocks are read.
      records: counts members that are not read, and records.
      read_format: reads a member.

    Raises:
      T5smithError: strict, and a member cannot be read; a package is missing, or the disk is full.
    """
    last, known = 0, len(records.skipped.members)
    for member in list_members(kind, stream):
        last = max(last, member.base + member.span - 1)
        own = MemberSelection(
            blocks.block_bytes,
            reader=blocks.reader,
            readers=blocks.readers,
            finished=blocks.finished,
            base=member.base,
            span=member.span,
        )
        if own.any:
            yield member.base, None
            yield from _Reader(corpus, name, member, own, records, read_format).documents()
    if records.whole and not records.usable and len(found := records.skipped.members) > known:
        shown = (member.removeprefix(f"{name}/") for member in found[known:][:MAX_REPORTED])
        names = ", ".join(shown) + ", …" * (len(found) > known + MAX_REPORTED)
        what = f"nothing in it but {pluralize(len(found) - known, 'member')} without text ({names})"
        fix = "if they are the text, unpack it and name the files"
        records.first_error = records.first_error or T5smithError(what, where=name, fix=fix)
    yield last, None


def list_members(kind: str, stream: IO[bytes]) -> Iterator[Member]:
    """The members of a `zip` or `tar` archive; those of a tar may be read until the next one is asked for."""
    return zip_members(stream) if kind == "zip" else tar_members(stream)


class _Reader:
    """Reads a member, or counts it."""

    def __init__(
        self,
        corpus: CorpusSettings,
        archive: str,
        member: Member,
        blocks: MemberSelection,
        records: FileRecords,
        read_format: ReadFormat,
    ) -> None:
        self.corpus, self.archive, self.member, self.blocks, self.records = (
            corpus,
            archive,
            member,
            blocks,
            records,
        )
        self._read_format = read_format
        self._where = f"{archive}/{member.name}" if member.name else archive
        # What counts the member as a whole belongs to the block in which it begins.
        self._first = blocks.includes(blocks.block_of(0))

    def documents(self) -> Iterator[Positioned]:
        """Its documents, with their positions in the archive."""
        member, skipped = self.member, self.records.skipped
        if member.fault:
            if self._first:
                self._count(*member.fault)
        elif side_member(member.name) or member.empty:
            if self._first:
                skipped.leave_out(EMPTY_MEMBERS if member.empty else SIDE_MEMBERS, self._where)
        else:
            try:
                yield from self._read()
            except T5smithError as error:
                self._refuse(error)
            except Exception as error:
                if not is_archive_damage(error):
                    raise
                self._count_damage(error, self._first)

    def _refuse(self, error: T5smithError) -> None:
        if self.records.skipped.strict or _is_of_this_machine(error):
            raise error
        if self._first:
            self.records.skip(UNREADABLE, error)

    def _count_damage(self, error: Exception, ours: bool) -> None:
        self.member.damaged = True
        if ours:
            self._count(DAMAGED_ARCHIVE, str(error) or type(error).__name__)

    def _count(self, kind: str, what: str) -> None:
        if kind == DAMAGED_ARCHIVE:
            what = f"the archive is cut short or damaged ({what})"
        if kind == SIDE_MEMBERS:
            self.records.skipped.leave_out(kind, self._where)
            return
        fix = _FIXES.get(kind, f"unpack {self.archive}, and name what is in it")
        self.records.skip(kind, T5smithError(what, where=self._where, fix=fix))

    def _read(self) -> Iterator[Positioned]:
        with ExitStack() as stack:
            stored: IO[bytes] = io.BufferedReader(self.member.open(), _BUFFER)
            packed = is_compressed(self._where, stored)
            if packed and not self.member.seekable:
                # Reading around damage goes back in what is stored.
                stored = stack.enter_context(_on_disk(stored))
            stream = decompressed(self._where, stored)
            source = stack.enter_context(closing(Rereadable(stream)))
            with source.again() as begin:
                kind = format_of_stream(self._where, stored, begin)
            if kind in ARCHIVES:
                if self._first:
                    self._count(NESTED, f"this member is {ARCHIVES[kind]}")
                return
            kind = chosen_format(self.corpus, kind, self._where)
            # What is not read from beginning to end, and a file that is one document, are of one block.
            whole = kind in RANDOM_ACCESS or one_document_per_file(self.corpus, kind)
            ratio = PACKED_RATIO if packed else 1
            own = replace(self.blocks, span=1 if whole else self.blocks.span, ratio=ratio)
            if own.any:
                yield from self._documents(kind, source, own)

    def _documents(self, kind: str, source: Rereadable, own: MemberSelection) -> Iterator[Positioned]:
        records, before, found = self.records, self._number_of_records(), 0
        cursor = source.cursor()
        try:
            for position, document in self._records_of(kind, source, cursor, own):
                source.settle()
                if document is not None:
                    found += 1
                    document = Document(document.text, self.archive, document.line, member=self.member.name)
                yield own.place(position), document
        except T5smithError as error:
            self._refuse(error)
        end = own.span * own.ratio
        try:
            # What a reader leaves may be damaged too.
            while not cursor.failed and cursor.read(_BUFFER):
                pass
            self.member.damaged = cursor.failed
        except Exception as error:
            if not is_archive_damage(error):
                raise
            yield own.place(end), None
            self._count_damage(error, own.includes(own.block_of(end)))
        in_one_block = own.block_of(0) == own.block_of(end)
        if not found and in_one_block and self._number_of_records() == before:
            records.skipped.leave_out(EMPTY_MEMBERS, self._where)

    def _records_of(
        self, kind: str, source: Rereadable, cursor: Cursor, own: MemberSelection
    ) -> Iterator[Positioned]:
        field = json_field(self._where, self.corpus, source.again) if kind == "jsonl" else ""
        stream: IO[bytes] = io.BufferedReader(cursor, _BUFFER)
        with ExitStack() as stack:
            if kind in RANDOM_ACCESS:
                source.settle()
                on_disk = stack.enter_context(tempfile.TemporaryFile())
                copy_to_disk(stream, on_disk)
                stream = on_disk
            yield from self._read_format(
                self.corpus, kind, field, self._where, stream, own, self.records, source.again
            )

    def _number_of_records(self) -> int:
        return self.records.skipped.counts.total()


@contextmanager
def _on_disk(stream: IO[bytes]) -> Generator[IO[bytes]]:
    """The bytes of a stream, as far as they are there, as a stream that can be read from any position."""
    with tempfile.TemporaryFile() as copy:
        try:
            copy_to_disk(stream, copy)
        except Exception as error:
            if not is_archive_damage(error):
                raise
            copy.seek(0)
        yield copy


def side_member(name: str) -> bool:
    """Whether a member is what :mod:`t5smith.text.folders.side_files` skips in folders."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")] or [""]
    return bool(side_file(parts[-1]) or any(map(side_folder, parts[:-1])))


def _is_of_this_machine(error: T5smithError) -> bool:
    """Whether an error is not of the member: a package is missing, or the disk is full."""
    cause = error.__context__
    return isinstance(cause, ImportError) or (isinstance(cause, OSError) and cause.errno is not None)
