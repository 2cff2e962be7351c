"""Documents of web archives: records of text (WET), or the text of pages (WARC)."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable, Generator
from typing import IO, Any, cast

from t5smith.base.errors import T5smithError
from t5smith.text.decompression import is_archive_damage
from t5smith.text.document import BlockSelection, Document
from t5smith.text.formats.html import decoded_page, page_text
from t5smith.text.formats.plain import Positioned
from t5smith.text.skipped_records import DAMAGED_ARCHIVE, FileRecords

MAX_HEADER_LINE = 1 << 16
"""Bytes of a line of a record's headers that are read."""
_SHOWN = 200
"""Characters of warcio's messages, which may have such a line in them."""


def web_archive(
    name: str, stream: IO[bytes], blocks: BlockSelection, records: FileRecords, longest: int
) -> Generator[Positioned]:
    """Records of a WARC file that hold text (WET), or pages whose text trafilatura finds.

    The position of a document is its record number times 1,000: archives are compressed record by record.

    Args:
      name: of the file.
      stream: its bytes.
      blocks: which blocks are read.
      records: counts records that are dropped or cannot be used.
      longest: maximum size of a text or page, in bytes.

    Raises:
      T5smithError: a package is missing, or the file is not a web archive.
    """
    source = _Source(stream)
    archive, archive_error = _opened(name, source)
    number, lost, why = 0, 0, ""
    try:
        for record in archive:
            number += 1
            if not _says_its_length(record, first=number == 1):
                lost, why = number, "a record does not say how long it is"
                break
            position = number * 1000
            data, kind = None, record.rec_type
            yield position, None
            ours = blocks.includes(blocks.block_of(position))
            if ours and kind in ("conversion", "response"):
                data = _content(record, archive.loader, longest)
            if not _is_whole(record):
                lost, why = number, "a record ends before its time"
                break
            text = "" if data is None else _text_of(data, record, f"{name}:{number}", records, longest)
            if text:
                yield position, Document(text, name, number)
            elif ours and text is not None:
                reason = "records without a page" if data is None else "pages without text"
                records.skip(reason, T5smithError(reason, where=f"{name}:{number}"))
    except archive_error as error:
        lost, why = number + 1, str(error)[:_SHOWN]
    if source.damage is not None:
        lost, why = lost or number + 1, str(source.damage) or type(source.damage).__name__
    elif lost == 1 and not source.begins_as_warc:
        what = "damaged, or not what its name says"
        raise T5smithError(what, where=name, expected="a web archive, which begins with WARC/1.0")
    if lost:
        yield lost * 1000, None
        if blocks.includes(blocks.block_of(lost * 1000)):
            what = f"the archive is cut short or damaged ({why})"
            records.skip(
                DAMAGED_ARCHIVE, T5smithError(what, where=f"{name}:{lost}", fix="fetch the file again")
            )
    yield max(number, lost) * 1000, None


def _opened(name: str, source: _Source) -> tuple[Any, type[Exception]]:
    """The records of an archive, and what is raised if one cannot be found.

    Raises:
      T5smithError: warcio is not installed.
    """
    try:
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError:
        what, fix = "warcio is not installed", "run `pip install 't5smith[web]'`"
        raise T5smithError(what, where=name, fix=fix) from None
    # Headers of pages are read by `_content`: warcio would take a truncated one for the end of the archive.
    archive: Any = ArchiveIterator(source, no_record_parse=True)
    archive.reader.set_decomp(None)
    read = archive.reader.readline
    # It joins the pieces of a line without end one by one, which would take hours.
    archive.reader.readline = lambda length=None: read(min(length or MAX_HEADER_LINE, MAX_HEADER_LINE))
    return archive, ArchiveLoadFailed


def _text_of(data: bytes, record: Any, where: str, records: FileRecords, longest: int) -> str | None:
    """The text of a record's content, "" without any; None: it cannot be used, which is counted."""
    if len(data) > longest:
        what, expected = "a record is longer than allowed", f"at most {longest:,} bytes"
        error = T5smithError(what, where=where, expected=expected, fix="raise corpus.longest_document")
        records.skip("too long", error)
        return None
    page = record.rec_type == "response"
    if page:
        found = _CHARSET.search(record.http_headers.get_header("Content-Type") or "")
        text = decoded_page(data, found[1] if found else "")
    else:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = None
    if text is None:
        error = T5smithError("invalid UTF-8", where=where, expected="text in UTF-8")
        records.skip("not UTF-8", error)
        return None
    return page_text(text, where.rpartition(":")[0]) if page else text


_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w-]+)", re.IGNORECASE)


class _Source:
    """The bytes of an archive up to the first damage.

    warcio takes an exception for the end of the archive in some places and raises it in others.

    Attributes:
      damage: the exception that reading raised.
      begins_as_warc: whether the first bytes are those of a WARC file.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.damage: Exception | None = None
        self._stream = cast(io.BufferedReader, stream)
        # The name of a compressed file does not always show it.
        if self._tried(lambda: self._stream.peek(2))[:2] == b"\x1f\x8b":
            self._stream = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stream)))
        self.begins_as_warc = self._tried(lambda: self._stream.peek(5))[:5] == b"WARC/"

    def read(self, size: int) -> bytes:
        """Some of the bytes that follow, none at the end."""
        return b"" if self.damage else self._tried(lambda: self._stream.read1(size))

    def _tried(self, read: Callable[[], bytes]) -> bytes:
        try:
            return read()
        except Exception as error:
            if not is_archive_damage(error):
                raise
            self.damage = error
            return b""


def _says_its_length(record: Any, first: bool) -> bool:
    """Whether a record states its length."""
    if record.format == "arc" and first and record.rec_type != "arc_header":
        return False  # warcio takes any line of five words for a record of an ARC file
    length = record.rec_headers.get_header("length" if record.format == "arc" else "Content-Length")
    return (length or "").strip().isdecimal()


def _is_whole(record: Any) -> bool:
    """Skip the rest of a record; whether it has as many bytes as it states."""
    while record.raw_stream.read(1 << 16):
        pass
    return not record.raw_stream.limit


def _content(record: Any, loader: Any, longest: int) -> bytes | None:
    """The content of a record, of a page without HTTP headers; None: it is neither text nor a page.

    Of one that is too long it is one byte more than is allowed.
    """
    if record.rec_type == "response":
        address = "uri" if record.format == "arc" else "WARC-Target-URI"
        uri = record.rec_headers.get_header(address) or ""
        try:
            headers = loader.load_http_headers("response", uri, record.raw_stream, record.length)
        except EOFError:
            return None
        if headers is None or "html" not in (headers.get_header("Content-Type") or "").lower():
            return None
        record.http_headers = headers
    stream, data = record.content_stream(), bytearray()
    while len(data) <= longest and (more := stream.read(longest + 1 - len(data))):
        data += more
    return bytes(data)
