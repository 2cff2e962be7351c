"""HTML without mistakes: what is not :class:`Html` is text, and text is escaped.

The inspector's page and the run's report are put together from these few functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files

SPAN_COLOURS = 6
"""Masked spans take turns with so many colours, on paper and on the terminal."""


class Html(str):
    """A piece of finished HTML."""

    __slots__ = ()


def tag(element: str, *children: str | None, **attributes: str | None) -> Html:
    """An element with its children, which are escaped unless they are Html; None is left out.

    `class_` is written as `class`, and other names with dashes for underscores.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{element}{written}>{join(children)}</{element}>")


def join(parts: Iterable[str | None], between: str = "") -> Html:
    """Parts one after the other, escaped unless they are Html; None is left out."""
    ready = (part if isinstance(part, Html) else escape(part) for part in parts if part is not None)
    return Html(escape(between).join(ready))


def stylesheet(package: str, name: str) -> str:
    """A stylesheet that lies beside a package's modules."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def document(title: str, body: Html, styles: Iterable[str]) -> str:
    """A whole page that needs nothing from outside, and by its own policy may fetch nothing."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{tag('title', title)}<style>{''.join(styles)}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>{body}</main></body></html>\n'
