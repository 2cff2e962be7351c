"""Files that are one web page each: the text that trafilatura finds there. And how markup begins."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import IO
from xml.parsers import expat

from t5smith.base.errors import T5smithError
from t5smith.text.decompression import is_archive_damage
from t5smith.text.document import Document
from t5smith.text.formats.plain import Positioned
from t5smith.text.skipped_records import DAMAGED_ARCHIVE, FileRecords

_PROLOGUE = re.compile(rb"(?:\xef\xbb\xbf)?(?>\s+|<\?[^>]*>|<!--.*?-->)*", re.DOTALL)
"""What may come before the type and the root element of a document."""
_PAGE = re.compile(rb"<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE)
_TYPE = re.compile(rb"<!DOCTYPE\s[^\[>]*(?:\[.*?\]\s*)?>", re.DOTALL)
_ROOT = re.compile(rb"<([A-Za-z_][\w.:-]*)(?=[\s/>])([^>]*)")
_CHARSET = re.compile(
    rb"<meta\s[^>]*?charset\s*=\s*[\"']?\s*([\w-]+)|<\?xml\s[^>]*?encoding=[\"']([\w-]+)", re.I
)
_CHARSET_BYTES = 4096
"""Bytes at the beginning of a page that may name its encoding; the standard of HTML has 1,024."""
_LATIN = {"iso-8859-1", "iso8859-1", "latin1", "latin-1", "ascii", "us-ascii"}
"""Names that the standard of HTML reads as windows-1252."""


def web_page(name: str, stream: IO[bytes], records: FileRecords, longest: int) -> Iterator[Positioned]:
    """The text of a page, as one document; a page without text is counted.

    Args:
      name: of the file.
      stream: its decompressed bytes.
      records: counts a page that has no text or cannot be used.
      longest: maximum size of the page, in bytes.

    Raises:
      T5smithError: trafilatura is not installed.
    """
    try:
        data = stream.read(longest + 1)
    except Exception as error:
        if not is_archive_damage(error):
            raise
        what = f"the archive is cut short or damaged ({error or type(error).__name__})"
        fix = "fetch or compress the file again"
        records.skip(DAMAGED_ARCHIVE, T5smithError(what, where=f"{name}:1", fix=fix))
        return
    if not data or data.isspace():
        return
    if len(data) > longest:
        what, expected = "a web page is longer than allowed", f"at most {longest:,} bytes"
        fault = T5smithError(what, where=f"{name}:1", expected=expected, fix="raise corpus.longest_document")
        records.skip("too long", fault)
    elif (page := decoded_page(data)) is None:
        what, expected = "invalid UTF-8, and no other encoding that fits is declared", "a page in UTF-8"
        fix = "save the page as UTF-8 (`iconv -f latin1 -t utf-8` if it is Latin-1)"
        records.skip("not UTF-8", T5smithError(what, where=f"{name}:1", expected=expected, fix=fix))
    elif text := page_text(page, name):
        yield 0, Document(text, name, 1)
    else:
        records.skip("pages without text", T5smithError("a page without text", where=f"{name}:1"))


def decoded_page(data: bytes, declared: str = "") -> str | None:
    """A page as text: in UTF-8, or in the encoding that it declares; None: in neither.

    Args:
      data: the page.
      declared: its encoding by the headers of HTTP, which go before what it declares itself; "": none.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        names = ["utf-16"]
    else:
        found = _CHARSET.search(data[:_CHARSET_BYTES])
        own = (found[1] or found[2]).decode() if found else ""
        names = ["utf-8-sig", *("cp1252" if name.lower() in _LATIN else name for name in (declared, own))]
    for name in filter(None, names):
        try:
            return data.decode(name)
        except (LookupError, ValueError):
            continue
    return None


def page_text(page: str, name: str) -> str:
    """The main text of a web page, as trafilatura finds it; "": none.

    Args:
      page: its HTML.
      name: of the file, for the message.

    Raises:
      T5smithError: trafilatura is not installed.
    """
    try:
        from trafilatura import extract  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise T5smithError(
            "trafilatura, which extracts the text of pages, is not installed",
            where=name,
            fix="run `pip install 't5smith[web]'`; instead of WARC files, WET files hold text",
        ) from None
    return extract(page, include_comments=False) or ""


def is_web_page(head: bytes) -> bool:
    """Whether a file begins as an HTML page."""
    return _PAGE.match(head, markup_start(head)) is not None


def root_element(head: bytes, name: str) -> str:
    """The name of the root element, if a file is XML; "": it is text, which may begin with `<` too.

    A file is XML if it says so (a declaration, a document type, a namespace, its ending), or if its beginning
    is without fault as XML and an element within the root has ended.

    Args:
      head: the first bytes of the file.
      name: its name.
    """
    end = markup_start(head)
    kind = _TYPE.match(head, end)
    if not (root := _ROOT.match(head, markup_start(head, kind.end()) if kind else end)):
        return ""
    declared = kind or b"<?xml" in head[:end] or b"xmlns" in root[2] or ".xml" in name.lower()
    return root[1].decode("latin-1") if declared or _has_elements(head) else ""


def markup_start(head: bytes, start: int = 0) -> int:
    """Where the type or the root element begins: after white space, declarations and comments."""
    found = _PROLOGUE.match(head, start)
    return found.end() if found else start


def _has_elements(head: bytes) -> bool:
    """Whether bytes are the beginning of XML with an element that ended within another."""
    depth, ended = 0, False

    def start(*_: object) -> None:
        nonlocal depth
        depth += 1

    def end(*_: object) -> None:
        nonlocal depth, ended
        depth -= 1
        ended |= depth > 0

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler, parser.EndElementHandler = start, end
    try:
        parser.Parse(head)
    except expat.ExpatError:
        return False
    return ended
