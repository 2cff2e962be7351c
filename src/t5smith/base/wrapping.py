"""Lines for people: wrapped with a hanging indent on a terminal, left whole in a pipe."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator

from rich.console import Console
from rich.text import Text

_LABEL = re.compile(r" *(?:\S+ {2,}|warning: |· )?")
"""The label that a line may begin with; the lines below are indented by its width."""


def hanging_indent(text: Text, console: Console, indent: int | None = None) -> Text:
    """Wrap a text to the width of a terminal, and indent all lines but the first; unchanged in a pipe.

    Args:
      text: one line.
      console: where it will be printed, with `soft_wrap`.
      indent: of all lines but the first. Default: the width of the label that the text begins with.
    """
    if not console.is_terminal or text.cell_len <= console.width:
        return text
    if indent is None:
        label = _LABEL.match(text.plain)
        indent = len(label[0]) if label else 0
    # On a narrow terminal a long label would leave no room.
    indent = min(indent, console.width // 2)
    head, rest = text.divide([indent])
    lines = rest.wrap(console, console.width - indent)
    for line in lines:
        line.rstrip()
    return head + Text("\n" + " " * indent).join(lines)


@contextlib.contextmanager
def unpadded(console: Console) -> Generator[None]:
    """Print what the body prints, in a pipe without the spaces with which rich fills up lines."""
    if console.is_terminal:
        yield
        return
    with console.capture() as captured:
        yield
    lines = captured.get().split("\n")
    console.file.write("\n".join(line.rstrip() for line in lines))


def pluralize(number: int, what: str) -> str:
    """A number with a noun whose plural ends in s: 1 document, 2,000 documents."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
