"""Documents of MediaWiki XML dumps: the articles, as plain text."""

from __future__ import annotations

import functools
import io
import os
import re
from collections.abc import Generator, Mapping
from typing import IO, TYPE_CHECKING, cast

from t5smith.base.errors import T5smithError
from t5smith.text.compression import OpenAgain, open_stream
from t5smith.text.decompression import is_archive_damage
from t5smith.text.document import BlockSelection, Document
from t5smith.text.formats.plain import Positioned
from t5smith.text.formats.wiki_dump import BEGIN, CHUNK_BYTES, Page, Pages
from t5smith.text.locations import is_url
from t5smith.text.skipped_records import DAMAGED_ARCHIVE, FileRecords

if TYPE_CHECKING:
    from t5smith.text.formats.wikitext import Wikitext

MAX_HEAD_BYTES = 1 << 20
"""The names of the wiki's namespaces are within so many first bytes."""
_NAMESPACE = re.compile(r'<namespace key="(-?\d{1,9})"[^<>]*>([^<>]+)</namespace>')
_MEDIA, _FILE, _CATEGORY = -2, 6, 14


def wiki_pages(
    name: str,
    stream: IO[bytes],
    blocks: BlockSelection,
    records: FileRecords,
    longest: int,
    again: OpenAgain | None = None,
) -> Generator[Positioned]:
    """The pages of the main namespace: title, blank line, and the text of the last revision.

    The position of a page is its first byte in the decompressed dump. Redirects, pages of other namespaces
    and pages without text are counted and dropped.

    Args:
      name: of the file.
      stream: its decompressed bytes.
      blocks: which blocks are read.
      records: counts pages that are dropped or cannot be used.
      longest: maximum size of a revision, in characters.
      again: opens the file, if it is a member of an archive.

    Raises:
      T5smithError: mwparserfromhell is not installed, or this is not a MediaWiki dump.
    """
    try:
        from t5smith.text.formats.wikitext import Wikitext
    except ImportError:
        what = "mwparserfromhell, which parses the pages of MediaWiki dumps, is not installed"
        raise T5smithError(what, where=name, fix="run `pip install 't5smith[web]'`") from None
    if again is None:
        stamp = None if is_url(name) or not os.path.exists(name) else os.stat(name).st_mtime_ns
        namespaces = _namespaces_of_file(name, stamp)
    else:
        with again() as begin:
            namespaces = _namespaces(name, begin)
    unseen = [namespaces[key] for key in (_MEDIA, _FILE, _CATEGORY) if key in namespaces]
    wikitext = Wikitext(unseen)
    pages = Pages(name, stream, blocks, longest)
    block = -1
    for page in pages.read():
        if block != (block := blocks.block_of(page.position)):
            yield page.position, None
        if not page.ours:
            continue
        try:
            text = _article(page, wikitext, namespaces)
        except _PageError as fault:
            where = pages.where(page.line) if fault.what else ""
            records.skip(fault.kind, T5smithError(fault.what, where=where, fix=fault.fix))
        else:
            yield page.position, Document(text, name, page.line, pages.start)
    if pages.lost and (blocks.stop is None or pages.lost_at < blocks.stop):
        yield pages.lost_at, None
        if blocks.includes(blocks.block_of(pages.lost_at)):
            where = pages.where(pages.line)
            records.skip(DAMAGED_ARCHIVE, T5smithError(pages.lost, where=where, fix="fetch the file again"))
    yield max(pages.last, blocks.start), None


class _PageError(Exception):
    """A page that is dropped, or cannot be used: its kind, and what is wrong with it."""

    def __init__(self, kind: str, what: str = "", fix: str = "") -> None:
        self.kind, self.what, self.fix = kind, what, fix


def _article(page: Page, wikitext: Wikitext, namespaces: Mapping[int, str]) -> str:
    """The text of an article."""
    from t5smith.text.formats.wikitext import TooMuchMarkupError

    if page.fault:
        raise _PageError("broken XML", f"a page that is {page.fault}", "fetch the dump again")
    title = page.field("title").strip()
    namespace = _namespace_of(page.field("ns"), title, namespaces)
    if namespace:
        raise _PageError("talk pages" if namespace > 0 and namespace % 2 else "pages of other namespaces")
    if page.redirect:
        raise _PageError("redirects")
    if page.field("model") not in ("", "wikitext"):
        raise _PageError("pages that are not wikitext")
    if page.too_long:
        what = f"the page {title!r} has more than {page.longest:,} characters"
        raise _PageError("too long", what, "raise corpus.longest_document")
    try:
        text = wikitext.plain_text(page.field("text"))
    except TooMuchMarkupError:
        what = f"the page {title!r} has too many tags or brackets without a partner"
        raise _PageError("too much markup", what) from None
    if not text:
        raise _PageError("empty pages")
    return f"{title}\n\n{text}" if title else text


def _namespace_of(number: str, title: str, namespaces: Mapping[int, str]) -> int:
    """The namespace of a page; dumps before 2012 show it in the title alone."""
    if re.fullmatch(r"-?\d{1,9}", number.strip()):
        return int(number)
    prefix, colon, _ = title.partition(":")
    return next((key for key, name in namespaces.items() if colon and name == prefix), 0)


@functools.lru_cache(maxsize=1 << 10)
def _namespaces_of_file(name: str, _stamp: object) -> dict[int, str]:
    with open_stream(name) as (_, stream):
        return _namespaces(name, stream)


def _namespaces(name: str, stream: IO[bytes]) -> dict[int, str]:
    """The names of a wiki's namespaces by their numbers, from the beginning of its dump.

    Raises:
      T5smithError: it is not a MediaWiki dump.
    """
    head = b""
    try:
        while len(head) < MAX_HEAD_BYTES and BEGIN not in head:
            if not (more := cast(io.BufferedReader, stream).read1(CHUNK_BYTES)):
                break
            head += more
    except Exception as error:
        if not is_archive_damage(error):
            raise
    if head and b"<mediawiki" not in head and BEGIN not in head:
        what = "not a MediaWiki dump"
        raise T5smithError(what, where=name, expected="XML that begins with <mediawiki")
    return {int(key): value for key, value in _NAMESPACE.findall(head.decode("utf-8", "replace"))}
