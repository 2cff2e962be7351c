"""HTML builders: text is escaped unless it is :class:`Html`."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files

SPAN_COLOURS = 6
"""Number of colours of masked spans, on pages and on the terminal."""


class Html(str):
    """A piece of finished HTML."""

    __slots__ = ()


def tag(element: str, *children: str | None, **attributes: str | None) -> Html:
    """An element with its children; text is escaped, None is skipped.

    `class_` is written as `class`; underscores in other names become dashes.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{element}{written}>{join(children)}</{element}>")


def join(parts: Iterable[str | None], between: str = "") -> Html:
    """Parts in order; text is escaped, None is skipped."""
    ready = (part if isinstance(part, Html) else escape(part) for part in parts if part is not None)
    return Html(escape(between).join(ready))


def stylesheet(package: str, name: str) -> str:
    """A stylesheet in the folder of a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def document(title: str, body: Html, styles: Iterable[str]) -> str:
    """A whole page that needs nothing else, and whose own policy allows it to load nothing."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{tag('title', title)}<style>{''.join(styles)}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>{body}</main></body></html>\n'
