"""Tables, and cards with a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from t5smith.pages.facts import number
from t5smith.pages.markup import Html, tag


def table(cells: Sequence[Sequence[str]], head: Sequence[str] = (), *, numbers: bool = False) -> Html | None:
    """Rows whose first cell is their name; None if there are none. `numbers`: the other cells are numbers."""
    if not cells:
        return None
    kind = "number" if numbers else None
    top = None
    if head:
        names = [tag("th", head[0]), *(tag("th", name, class_=kind) for name in head[1:])]
        top = tag("thead", tag("tr", *names))
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell, class_=kind) for cell in row[1:]))
        for row in cells
    ]
    return tag("div", tag("table", top, tag("tbody", *body)), class_="scroll")


def card(name: str, value: float | None, words: Any, about: str | Html | None) -> Html | None:
    """A prominent figure; None if it is unknown.

    Args:
      name: what it is.
      value: the figure.
      words: converts it to text.
      about: the line below it.
    """
    if value is None or number({"": value}, "") is None:
        return None
    return tag(
        "div",
        tag("div", name, class_="name"),
        tag("div", words(value), class_="value"),
        tag("div", about or "", class_="about"),
        class_="card",
    )


def cards(found: Sequence[Html | None]) -> Html | None:
    """Cards side by side."""
    return tag("div", *found, class_="cards") if any(found) else None
