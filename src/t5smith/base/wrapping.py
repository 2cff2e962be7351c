"""Lines for people: broken at words below where they began on a terminal, left whole on a pipe."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator

from rich.console import Console
from rich.text import Text

_LABEL = re.compile(r" *(?:\S+ {2,}|warning: |· )?")
"""What a line may begin with, and its further lines leave room for."""


def hanging_indent(text: Text, console: Console, indent: int | None = None) -> Text:
    """The text in lines that fit a terminal, those after the first indented; on a pipe as it is.

    Args:
      text: one line.
      console: what it is for; print it there with `soft_wrap`.
      indent: of further lines; left out: as wide as the label that the text begins with.
    """
    if not console.is_terminal or text.cell_len <= console.width:
        return text
    if indent is None:
        label = _LABEL.match(text.plain)
        indent = len(label[0]) if label else 0
    # A label that takes most of a narrow terminal leaves no room below it.
    indent = min(indent, console.width // 2)
    head, rest = text.divide([indent])
    lines = rest.wrap(console, console.width - indent)
    for line in lines:
        line.rstrip()
    return head + Text("\n" + " " * indent).join(lines)


@contextlib.contextmanager
def unpadded(console: Console) -> Generator[None]:
    """Print what the body prints; on a pipe without the spaces that fill up rich's lines."""
    if console.is_terminal:
        yield
        return
    with console.capture() as captured:
        yield
    lines = captured.get().split("\n")
    console.file.write("\n".join(line.rstrip() for line in lines))


def pluralize(number: int, what: str) -> str:
    """So many of something, whose plural ends in s: 1 document, 2,000 documents."""
    return f"{number:,} {what}{'s' * (number != 1)}"
