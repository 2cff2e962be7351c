"""Checks that a page is well-formed and loads nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "source"}


class Balanced(HTMLParser):
    """Fails on an element that is closed by the tag of another."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(page: str) -> Balanced:
    """The elements of a page, which must be well-formed and load nothing."""
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert parser.seen[0] == "html"
    assert all(value.startswith("data:image/png;base64,") for value in parser.fetched)
    assert not re.search(r"https?:|@import|url\(|<script|<link", page)
    return parser
