"""What a file is: its compression, and its format by its first bytes and its name.

First bytes that only one kind of file has go before the name. The name goes before what first lines look
like, so a .csv file is CSV. A file whose name says nothing, as `part-00000` or `wiki_00`, is what its first
lines look like.
"""

from __future__ import annotations

import codecs
import functools
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.archives.first_bytes import application, archive_kind
from t5smith.text.compression import compression_of, compression_suffix, open_stream, starts_compressed
from t5smith.text.decompression import is_archive_damage
from t5smith.text.formats.html import is_web_page, markup_start, root_element
from t5smith.text.formats.jsonl import is_json
from t5smith.text.formats.wikiextractor import BEGIN
from t5smith.text.locations import is_url

HEAD_BYTES = 1 << 16
"""Decompressed bytes at the beginning of a file that show its format."""

ARCHIVES = {"zip": "a zip archive", "tar": "a tar archive"}
"""Formats whose members are files."""

RANDOM_ACCESS = ("parquet", "arrow", "zip")
"""Formats that are not read from beginning to end."""

_BY_LINE = ("jsonl", "mediawiki", "wikiextractor")
"""Formats in which lines show where a document begins, beside text."""

_ENDINGS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".warc": "warc",
    ".wet": "warc",
    ".zip": "zip",
    ".tar": "tar",
    **dict.fromkeys((".tgz", ".tbz2", ".txz", ".tzst"), "tar"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
}
_READ = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}
"""First bytes of formats that are read."""
_BINARY = ("parquet", "arrow", "warc")
_WARC = re.compile(rb"WARC/\d\.\d\r?\n")
_REFUSED = {
    b"%PDF-": "a PDF file",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x1f\x9d": "a file of `compress` (.Z)",
    b"\x04\x22\x4d\x18": "an LZ4 archive",
    b"\x5d\x00\x00": "an LZMA archive without a container (.lzma)",
    b"LZIP": "an lzip archive",
    b"SQLite format 3\0": "an SQLite database",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Word or Excel document",
    b"{\\rtf": "an RTF document",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x7fELF": "a program",
    b"\x80\x02": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
}
"""First bytes of what is not read."""
_OF_TEXT = (b"%PDF-", b"{\\rtf")
"""Those that may be followed by text alone. With the others, a text such as ORCA is none of these files."""
_LFS = b"version https://git-lfs.github.com/spec/"
_MEDIAWIKI = re.compile(rb"<mediawiki[\s>]")
_TEXT_CONTROLS = frozenset(b"\t\n\v\f\r\x1b")


class UnreadableFileError(T5smithError):
    """A file is of a format that cannot be read, so it is no text, or not the file but a pointer to it."""


def file_format(corpus: CorpusSettings, name: str) -> str:
    """The format of a file, one of those of `corpus.format`.

    An archive is `zip` or `tar`, whatever the settings say of its members.

    Raises:
      UnreadableFileError: it is of a format that cannot be read.
      T5smithError: it is missing.
    """
    kind = recognized(name)
    if kind in ARCHIVES:
        return kind
    return chosen_format(corpus, kind, name)


def chosen_format(corpus: CorpusSettings, kind: str, name: str) -> str:
    """The format that a file is read as: the one that is set, or the one that was recognized.

    Raises:
      T5smithError: it is XML of an unknown kind, and no format is set.
    """
    if corpus.format != "auto":
        return corpus.format
    if kind.startswith("<"):
        fix = 'convert it to text or JSON lines, or set corpus.format = "text" to read it as it is'
        raise UnreadableFileError(f"this is XML with the root element {kind}", where=name, fix=fix)
    return kind


def readable_format(corpus: CorpusSettings, name: str) -> str:
    """The format of a file as :func:`file_format`; "": it cannot be read."""
    try:
        return file_format(corpus, name)
    except UnreadableFileError:
        return ""


def is_splittable(corpus: CorpusSettings, name: str) -> bool:
    """Whether reading may start at any byte: not compressed, and lines show where a document begins."""
    kind = file_format(corpus, name)
    by_line = kind in _BY_LINE or (kind == "text" and corpus.document != "file")
    return by_line and not compression_of(name)


def one_document_per_file(corpus: CorpusSettings, kind: str) -> bool:
    """Whether a file of a format is one record: then one that cannot be used does not mean another format."""
    return kind == "html" or (kind == "text" and corpus.document == "file")


def recognized(name: str) -> str:
    """The format of a file by its first bytes and its name, as :func:`file_format` without settings.

    XML of an unknown kind is known by its root element, as `<TEI>`.
    """
    by_name = format_by_name(name)
    if is_url(name):
        # Looking into each of thousands of files takes a request each.
        return by_name or _by_content(name, "", None)
    try:
        status = os.stat(name)
    except OSError:
        return by_name or "text"  # opening it has the error
    return _by_content(name, by_name, (status.st_size, status.st_mtime_ns))


def format_by_name(name: str) -> str:
    """The format that the ending of a name stands for, a compression's apart; "": none."""
    return _ENDINGS.get(Path(name.lower().removesuffix(compression_suffix(name))).suffix, "")


@functools.lru_cache(maxsize=1 << 16)
def _by_content(name: str, by_name: str, _stamp: object) -> str:
    with open_stream(name) as (raw, stream):
        return _of_stream(name, by_name, raw, stream)


def format_of_stream(name: str, raw: IO[bytes], stream: IO[bytes]) -> str:
    """The format of a file that is open, as :func:`recognized`.

    Args:
      name: of the file.
      raw: as it is stored; only peeked into.
      stream: its decompressed bytes, of which the first are read.
    """
    return _of_stream(name, format_by_name(name), raw, stream)


def _of_stream(name: str, by_name: str, raw: IO[bytes], stream: IO[bytes]) -> str:
    # The name may claim a compression that it has not.
    stored = cast(io.BufferedReader, raw).peek(HEAD_BYTES)
    what = _unreadable(stored)
    head = stored if what else first_bytes(stream)
    if what := what or _unreadable(head):
        raise _refusal(name, what)
    if starts_compressed(head):
        raise _refusal(name, "compressed twice", "unpack it once, and name that file")
    if archive := archive_kind(head):
        return archive
    if by_name in ARCHIVES:
        if not _is_plain(head):
            return by_name  # damaged at its beginning
        by_name = ""
    if _WARC.match(head):
        return "warc"
    for magic, kind in _READ.items():
        if head.startswith(magic) and not _is_plain(head):
            return kind
    # Readers of binary formats say better what is wrong with a damaged file.
    if by_name not in _BINARY and _is_binary(head if by_name else head[:4096]):
        raise _refusal(name, "a binary file of an unknown format")
    if by_name or (by_name := next((kind for kind, fits in _LINES.items() if fits(head)), "")):
        return by_name
    return f"<{root}>" if (root := root_element(head, name)) else "text"


_AGAIN = "download or export it again, or name the right file"
_POINTER = "a pointer of Git LFS, not the file"
_PULL = "in its repository run `git lfs install` and `git lfs pull`"
_FIX = "convert it to text, JSON lines or Parquet, or name the other files only; see docs/corpora.md"


def refusal(name: object, head: bytes) -> T5smithError | None:
    """The error for a file whose first bytes show that it is something else than text; None: they do not."""
    if not head:
        return T5smithError("this file is empty (0 bytes)", where=name, fix=_AGAIN)
    if is_web_page(head):
        fix = "download the file itself: on the Hugging Face Hub its link has /resolve/ and not /blob/ in it"
        return T5smithError("this is a web page, not the file", where=name, fix=fix)
    what = _unreadable(head) or ARCHIVES.get(archive_kind(head), "")
    return _refusal(name, what, _AGAIN) if what else None


def check_first_bytes(name: str, raw: IO[bytes]) -> None:
    """Raise an UnreadableFileError if the next bytes of a file, which are not consumed, are of one."""
    if what := _unreadable(cast(io.BufferedReader, raw).peek(HEAD_BYTES)):
        raise _refusal(name, what)


def _refusal(name: object, what: str, fix: str = _FIX) -> UnreadableFileError:
    return UnreadableFileError(f"this is {what}", where=name, fix=_PULL if what == _POINTER else fix)


def first_bytes(stream: IO[bytes]) -> bytes:
    """The first bytes, as many as can be unpacked."""
    head = b""
    try:
        while len(head) < HEAD_BYTES and (more := stream.read1(HEAD_BYTES - len(head))):  # type: ignore[attr-defined]
            head += more
    except Exception as error:
        if not is_archive_damage(error):
            raise
    return head


def _unreadable(head: bytes) -> str:
    """What a file is that cannot be read; "" if its first bytes do not show that."""
    for magic, what in _REFUSED.items():
        if head.startswith(magic) and (magic in _OF_TEXT or not _is_plain(head)):
            return what
    if head.startswith(_LFS):
        return _POINTER
    return application(head)


def _is_plain(head: bytes) -> bool:
    """Whether bytes are ASCII or UTF-8 text without control characters."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text)


def _is_binary(head: bytes) -> bool:
    """Whether bytes are neither UTF-8 nor a text in another encoding.

    Of arbitrary bytes every tenth is a control character, of a text hardly any.
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        controls = sum(byte < 32 and byte not in _TEXT_CONTROLS for byte in head)
        wide = head[:2] in (b"\xff\xfe", b"\xfe\xff") or head.count(0) * 3 > len(head)
        return not wide and controls * 30 > len(head)
    return False


_LINES: dict[str, Callable[[bytes], bool]] = {
    "jsonl": lambda head: is_json(head, len(head) < HEAD_BYTES),
    "mediawiki": lambda head: bool(_MEDIAWIKI.match(head, markup_start(head))),
    "wikiextractor": lambda head: bool(BEGIN.match(head, markup_start(head))),
    "html": is_web_page,
}
"""What first lines look like in each format that has no ending of its own, or is often without it."""
