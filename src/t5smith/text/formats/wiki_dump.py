"""The pages of a MediaWiki XML dump, found by their tags and parsed one by one.

What lies between is not parsed, nor are pages of other readers' blocks; each page is parsed by expat on its
own. So a damaged page costs that page alone, memory follows the longest revision, and no declaration of
entities reaches the parser: it would stand before the first page.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import IO, cast
from xml.parsers import expat

from t5smith.text.decompression import is_archive_damage
from t5smith.text.document import BlockSelection, lines_before

BEGIN, END, LAST = b"<page>", b"</page>", b"</mediawiki>"
CHUNK_BYTES = 1 << 14
_FIELDS = {
    (2, "title"): "title",
    (2, "ns"): "ns",
    (3, "text"): "text",
    (3, "model"): "model",
}
"""Elements that are used, by their depth within a page."""


class Page:
    """A page, and the fields of it that are used.

    Attributes:
      position: its first byte in the decompressed dump.
      line: the line that it begins in, counted from where reading began.
      ours: whether it is in a block that is read here.
      redirect: whether it only refers to another page.
      too_long: whether its last revision is.
      fault: what is wrong with its XML; "": nothing.
    """

    def __init__(self, position: int, line: int, ours: bool, longest: int) -> None:
        self.position, self.line, self.ours, self.longest = position, line, ours, longest
        self.redirect = self.too_long = False
        self.fault = ""
        if not ours:
            return
        self._depth = self._size = 0
        self._texts: dict[str, list[str]] = {}
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.buffer_size = 1 << 16
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    def feed(self, data: bytes, last: bool = False) -> None:
        """Parse some more of the page."""
        if self.ours and not self.fault:
            try:
                self._parser.Parse(data, last)
            except expat.ExpatError as error:
                self.fault = f"not well-formed ({expat.errors.messages[error.code]})"

    def field(self, name: str) -> str:
        """The content of an element; of the last, if it occurs several times."""
        return "".join(self._texts.get(name, ()))

    def _start(self, name: str, _: object) -> None:
        self._depth += 1
        field = _FIELDS.get((self._depth, name))
        if field is not None:
            self._size, self.too_long = 0, False
            self._texts[field] = held = []
            self._parser.CharacterDataHandler = functools.partial(self._hold, held)
        elif self._depth == 2 and name == "revision":
            self._texts.pop("text", None)
            self._texts.pop("model", None)
        elif self._depth == 2 and name == "redirect":
            self.redirect = True

    def _hold(self, held: list[str], text: str) -> None:
        self._size += len(text)
        if self._size <= self.longest:
            held.append(text)
        else:
            self.too_long = True
            held.clear()

    def _end(self, _: str) -> None:
        self._depth -= 1
        self._parser.CharacterDataHandler = None


class Pages:
    """Finds the pages of a dump.

    Attributes:
      start: the byte from which lines are counted.
      line: the line that reading is at.
      last: the last byte read, the same for all readers that reach the end.
      lost: why the rest of the dump is not there; "": it is whole.
      lost_at: where the rest begins.
    """

    def __init__(self, name: str, stream: IO[bytes], blocks: BlockSelection, longest: int) -> None:
        # Somewhat earlier: the end of the dump may be there.
        self.start = self._base = max(blocks.start - len(LAST), 0)
        self.line = 1
        self.lost = ""
        self.lost_at = self.last = 0
        self._name, self._stream, self._blocks, self._longest = name, stream, blocks, longest

    def where(self, line: int) -> str:
        """A line, counted from where reading began, as `file:line`."""
        return f"{self._name}:{line + (lines_before(self._name, self.start) if self.start else 0)}"

    def read(self) -> Iterator[Page]:
        """The pages that begin in the blocks, also those that another reader parses."""
        stop = self._blocks.stop
        page: Page | None = None
        data, complete = b"", False
        for chunk in self._chunks():
            data += chunk
            place = counted = fed = 0
            while True:
                if page is None:
                    begin = data.find(BEGIN, place)
                    if begin < 0:
                        complete = complete or LAST in data[place:]
                        place = max(place, len(data) - len(LAST) + 1)
                        break
                    fed, place, complete = begin, begin + len(BEGIN), False
                    position = self._base + begin
                    if position < self._blocks.start:
                        continue
                    if stop is not None and position >= stop:
                        return
                    self.line += data.count(b"\n", counted, begin)
                    counted = begin
                    ours = self._blocks.includes(self._blocks.block_of(position))
                    page = Page(position, self.line, ours, self._longest)
                end = data.find(END, place)
                other = data.find(BEGIN, place, None if end < 0 else end)
                if other < 0 and end < 0:
                    place = max(place, len(data) - len(END) + 1)
                    page.feed(data[fed:place])
                    break
                if other >= 0:
                    place, page.fault = other, "without its end"
                else:
                    place = end + len(END)
                    page.feed(data[fed:place], last=True)
                yield page
                page = None
            self.line += data.count(b"\n", counted, place)
            data = data[place:]
            self._base += place
            self.last = max(self._base + len(data) - 1, 0)
            if page is None and stop is not None and self._base >= stop:
                return
        if page is not None:
            self.lost = self.lost or "the dump is cut short within a page"
            self.lost_at, self.line = page.position, page.line
        elif not complete and not (self.start and self._ends_in_page()):
            self.lost = self.lost or "the dump is cut short: it does not end in </mediawiki>"
            self.lost_at = self.last

    def _ends_in_page(self) -> bool:
        """Whether a plain dump ends within a page, which may have begun before this reader's blocks."""
        place, data = self.last + 1, b""
        while place > 0:
            size = min(CHUNK_BYTES, place)
            place -= size
            self._stream.seek(place)
            data = self._stream.read(size) + data[: len(END)]
            begin, end = data.rfind(BEGIN), data.rfind(END)
            if max(begin, end) >= 0:
                return begin > end
        return False

    def _chunks(self) -> Iterator[bytes]:
        if self.start:
            self._stream.seek(self.start)
        try:
            while chunk := cast(io.BufferedReader, self._stream).read1(CHUNK_BYTES):
                yield chunk
        except Exception as error:
            if not is_archive_damage(error):
                raise
            self.lost = f"the archive is cut short or damaged ({error or type(error).__name__})"
