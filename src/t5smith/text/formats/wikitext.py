"""Wikitext to the prose that a reader of the page sees.

Templates, tables, references and other elements without prose are cut out first, in one pass whose time grows
with the length of the page alone. What is left are lines. Links, entities and quotes in them are replaced
here; a line with tags or with brackets that do not match is parsed by mwparserfromhell. Both give the same
text where both apply (tests/text/test_wikitext.py).
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterator
from typing import Any

import mwparserfromhell  # pyright: ignore[reportMissingImports]
from mwparserfromhell import nodes  # pyright: ignore[reportMissingImports]

from t5smith.text.formats.wiki_elements import without_elements

MAX_PARSE_COST = 1_000_000
"""Limit of a page's parsing by mwparserfromhell: the sum over lines of their brackets squared, which its time
grows with. Ordinary pages need a few hundredths of it; at the limit it takes about a second."""
MAX_NESTED_LINKS = 10
"""Links within captions of images, this many deep."""
MAX_JOINED_LINES = 20
"""A caption may have several lines, this many."""

_HEADING = re.compile(r"(={1,6})(.+?)\1\s*$")
_MARKERS = re.compile(r"(?:[*#:;]+|-{4,})[ \t]*")
_MARKUP = re.compile(r"[\[\]<>&{}]|''|__")
_LINK = re.compile(r"\[\[([^\[\]|{}<>\n]+)(?:\|([^\[\]]*))?\]\]")
_EXTERNAL = re.compile(
    r"\[(?:(?:https?:|ftps?:|irc:|news:)?//|mailto:)[^\s\[\]<>\"]+(?:[ \t]+([^\[\]]*))?\]", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_QUOTES = re.compile(r"'{2,}")
_MAGIC_WORD = re.compile(r"__[^\W\d_a-z]+__")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]{2,10})*|simple")
_MEDIA = re.compile(
    r"\.(?:jpe?g|png|svg|gif|tiff?|webp|xcf|og[gvam]|oga|webm|wav|mp3|flac|midi?|pdf|djvu)$", re.IGNORECASE
)
_HOLE = re.compile(r"[ \t](?:[ \t,)]|\.(?!\.))|\([\s,;:)]")
_FILLED = (
    (re.compile(r"\([\s,;:]*\)"), ""),
    (re.compile(r"\((?:[ \t]*[,;])+[ \t]*"), "("),
    (re.compile(r"[ \t]+([,)]|\.(?!\.))"), r"\1"),
    (re.compile(r"[ \t]{2,}"), " "),
)
"""What templates leave behind, and what is made of it."""


class TooMuchMarkupError(Exception):
    """A page would take too long to parse."""


class Wikitext:
    """Makes plain text of the pages of one wiki."""

    def __init__(self, unseen: Collection[str] = ()) -> None:
        """Args: names of the wiki's namespaces of media and of categories, beside the English ones."""
        self._unseen = {name.lower() for name in ("File", "Image", "Media", "Category", *unseen)}
        self._cost = 0

    def plain_text(self, source: str) -> str:
        """The prose of a page: a line for each paragraph, list item and heading of a section with text.

        Raises:
          TooMuchMarkupError: it has more tags and brackets than :data:`MAX_PARSE_COST` allows.
        """
        self._cost = 0
        lines: list[str] = []
        headings: list[tuple[int, str]] = []
        for line in _logical_lines(without_elements(source)):
            if line[0] == "=" and (heading := _HEADING.match(line)):
                level = len(heading[1])
                while headings and headings[-1][0] >= level:
                    headings.pop()
                if title := self._inline(heading[2]).strip():
                    headings.append((level, title))
                continue
            if line[0] == "|" or line.startswith("{|"):
                continue  # of a table that has no end, or is made by templates
            if line[0] in "*#:;-" and (marker := _MARKERS.match(line)):
                line = line[marker.end() :]
            if text := self._inline(line).strip():
                lines += [title for _, title in headings]
                headings.clear()
                lines.append(text)
        return "\n".join(lines)

    def _inline(self, line: str) -> str:
        """A line without links, tags, entities and quotes."""
        if _MARKUP.search(line):
            if "''" in line:
                line = _QUOTES.sub(_apostrophes, line)
            line = self._parsed(line) if "<" in line else self._replaced(line)
        if _HOLE.search(line):
            for hole, filled in _FILLED:
                line = hole.sub(filled, line)
        return line

    def _replaced(self, line: str) -> str:
        """A line without tags."""
        source = line
        for _ in range(MAX_NESTED_LINKS):
            line, links = _LINK.subn(self._link, line)
            if not links:
                break
        if "[" in line:
            line = _EXTERNAL.sub(lambda found: found[1] or "", line)
            if "[[" in line:
                return self._parsed(source)
        return _characters(line)

    def _link(self, found: re.Match[str]) -> str:
        return self._shown(found[1], found[2] or None)

    def _shown(self, target: str, label: str | None) -> str:
        """What a reader sees of a link, which may be nothing."""
        prefix, colon, _ = target.partition(":")
        if colon and prefix:
            prefix = prefix.strip()
            if (
                prefix.lower() in self._unseen
                or _LANGUAGE.fullmatch(prefix)
                or _MEDIA.search(target.rstrip())
            ):
                return ""
        return target.removeprefix(":") if label is None else label

    def _parsed(self, line: str) -> str:
        brackets = line.count("<") + line.count("[") + line.count("{")
        self._cost += brackets * brackets
        if self._cost > MAX_PARSE_COST:
            raise TooMuchMarkupError
        # What a line begins with is no list any more.
        return "".join(self._texts(mwparserfromhell.parse(f" {line}", skip_style_tags=True)))

    def _texts(self, code: Any) -> Iterator[str]:
        for node in code.nodes if code is not None else ():
            if isinstance(node, nodes.Text):
                yield _characters(_TAG.sub("", node.value))
            elif isinstance(node, nodes.Wikilink):
                label = "".join(self._texts(node.text)) if node.text else None
                yield self._shown(str(node.title), label)
            elif isinstance(node, nodes.HTMLEntity):
                yield html.unescape(str(node))
            elif isinstance(node, nodes.ExternalLink):
                yield from self._texts(node.title if node.brackets else node.url)
            elif isinstance(node, nodes.Tag):
                if str(node.tag).strip().lower() == "br":
                    yield "\n"
                yield from self._texts(node.contents)


def _characters(text: str) -> str:
    """Text with its entities as characters, without magic words."""
    if "__" in text:
        text = _MAGIC_WORD.sub("", text)
    if "{{" in text or "}}" in text:
        text = text.replace("{{", "").replace("}}", "")
    return _ENTITY.sub(lambda found: html.unescape(found[0]), text) if "&" in text else text


def _apostrophes(found: re.Match[str]) -> str:
    """The apostrophes of a run that are text: one of four, and those beyond five."""
    length = len(found[0])
    return "'" * (1 if length == 4 else max(length - 5, 0))


def _logical_lines(text: str) -> Iterator[str]:
    """Lines that are not blank; the lines of a link that has several are one."""
    lines = iter(text.split("\n"))
    for line in lines:
        if "[[" in line and (missing := line.count("[[") - line.count("]]")) > 0:
            more: list[str] = []
            for other in lines:
                more.append(other)
                missing += other.count("[[") - other.count("]]")
                if missing <= 0 or len(more) == MAX_JOINED_LINES:
                    break
            if missing <= 0:
                line = " ".join((line, *more))
            else:
                yield line.strip()
                yield from filter(None, map(str.strip, more))
                continue
        if line := line.strip():
            yield line
