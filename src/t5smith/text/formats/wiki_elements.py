"""Elements of wikitext without prose, cut out: templates, tables, references, formulas, comments.

One pass with a stack, whose time grows with the length of the page alone, however its brackets are nested.
(mwparserfromhell tries each bracket that has no partner again and again.)
"""

from __future__ import annotations

import re

_LITERAL = ("nowiki", "pre")
_DROPPED = (
    "categorytree",
    "ce",
    "chem",
    "gallery",
    "graph",
    "hiero",
    "imagemap",
    "includeonly",
    "indicator",
    "inputbox",
    "mapframe",
    "maplink",
    "math",
    "ref",
    "references",
    "score",
    "section",
    "source",
    "syntaxhighlight",
    "templatedata",
    "templatestyles",
    "timeline",
)
"""Tags whose content is not prose, or not wikitext."""

_COMMENT = re.compile(r"<!--(?:.*?-->|.*)", re.DOTALL)
_TOKEN = re.compile(
    r"\{\{+|\}\}+|\{\||\|\}(?!\})|<((?i:" + "|".join((*_LITERAL, *_DROPPED)) + r"))(?=[\s/>])[^<>]*>"
)
_END_TAGS = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in (*_LITERAL, *_DROPPED)}
_REF = re.compile(r"<ref(?=[\s>])[^<>]*(?<!/)>", re.IGNORECASE)

_SPECIAL = re.compile(r"&#?\w+;|[\[\]{}<>'_|=*#:;-]")
"""Characters that are markup, at least where a line begins, and entities."""
_INDENT = 100
"""A table begins within so many characters of its line."""


def without_elements(source: str) -> str:
    """Wikitext without elements that have no prose; what <nowiki> and <pre> enclose is written as entities.

    A template or reference that has no end is cut out up to the end of its line, of a table that has none the
    first line.
    """
    if "<!--" in source:
        source = _COMMENT.sub("", source)
    cuts = _Cuts(source)
    for token in _TOKEN.finditer(source):
        if token.start() >= cuts.next:
            cuts.add(token)
    return cuts.rest()


class _Cuts:
    """The stretches of a page that are cut out.

    Attributes:
      next: where the last element that was cut out whole ends.
    """

    def __init__(self, source: str) -> None:
        self.next = 0
        self._source = source
        # Beginning, end and replacement of each stretch, in order; none is within another.
        self._cut: list[tuple[int, int, str]] = []
        # Elements that have begun: where, and how many braces; a table has 0.
        self._open: list[tuple[int, int]] = []
        self._tables = 0
        self._ends: dict[str, tuple[int, int]] = {}
        self._line_end = -1

    def add(self, token: re.Match[str]) -> None:
        """The next token of the page."""
        what, start, end = token[0], token.start(), token.end()
        if what[0] == "<":
            self._tag(token)
        elif what == "{|":
            if self._begins_line(start):
                self._open.append((start, 0))
                self._tables += 1
        elif what == "|}":
            if self._tables and self._begins_line(start):
                while self._open[-1][1]:
                    self._open.pop()
                self._tables -= 1
                self._cut_out(self._open.pop()[0], end)
        elif what[0] == "{":
            self._open.append((start, end - start))
        else:
            self._close_braces(end - start, start)

    def rest(self) -> str:
        """The page without what was cut out."""
        for start, _ in self._open:
            self._cut.append((start, self._end_of_line(start), ""))
        parts: list[str] = []
        place = 0
        for start, end, replacement in sorted(self._cut):
            if end > place:
                parts += [self._source[place:start], replacement]
                place = end
        parts.append(self._source[place:])
        return "".join(parts)

    def _close_braces(self, left: int, place: int) -> None:
        while left >= 2 and len(self._open) > self._tables:
            start, braces = self._open.pop()
            if not braces:  # a table that has no end within a template
                self._tables -= 1
                continue
            pairs = 3 if braces >= 3 and left >= 3 else 2
            left, place, braces = left - pairs, place + pairs, braces - pairs
            self._cut_out(start + braces, place)
            if braces >= 2:
                self._open.append((start, braces))

    def _tag(self, token: re.Match[str]) -> None:
        name, end = token[1].lower(), token.end()
        if token[0].endswith("/>"):
            self._cut_out(token.start(), end)
            return
        closed = self._end_tag(name, end)
        if closed is None or (name == "ref" and _REF.search(self._source, end, closed[0])):
            self._cut_out(token.start(), end if name in _LITERAL else self._end_of_line(end))
            return
        inside = self._source[end : closed[0]] if name in _LITERAL else ""
        self.next = closed[1]
        self._cut_out(token.start(), self.next, _SPECIAL.sub(_as_entity, inside))

    def _cut_out(self, start: int, end: int, replacement: str = "") -> None:
        while self._cut and self._cut[-1][0] >= start:
            self._cut.pop()
        self._cut.append((start, end, replacement))

    def _end_tag(self, name: str, place: int) -> tuple[int, int] | None:
        """The next end tag of an element, from where to where; each is looked for once."""
        known = self._ends.get(name)
        if known is None or -1 < known[0] < place:
            found = _END_TAGS[name].search(self._source, place)
            known = self._ends[name] = found.span() if found else (-1, -1)
        return None if known[0] < 0 else known

    def _end_of_line(self, place: int) -> int:
        if self._line_end < place:
            found = self._source.find("\n", place)
            self._line_end = len(self._source) if found < 0 else found
        return self._line_end

    def _begins_line(self, place: int) -> bool:
        first = max(place - _INDENT, 0)
        before = self._source[first:place]
        _, newline, indent = before.rpartition("\n")
        return bool(newline or not first) and not indent.strip(" \t:")


def _as_entity(found: re.Match[str]) -> str:
    return found[0] if len(found[0]) > 1 else f"&#{ord(found[0])};"
