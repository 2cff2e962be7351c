"""Which column of a table, or field of a JSON line, is the text."""

from __future__ import annotations

from collections.abc import Sequence

from t5smith.base.errors import T5smithError

USUAL = ("text", "content", "body", "document", "article", "raw_content", "sentence")
"""Names that columns of text have in data sets on the Hub, the likeliest first."""
SHOWN = 60
"""Characters of a name in a message."""


def named_column(columns: Sequence[str], field: str) -> str:
    """The column with the name given or, if none is, the likeliest usual one; nothing: there is none."""
    return next((name for name in ((field,) if field else USUAL) if name in columns), "")


def shown(names: Sequence[str]) -> str:
    """Names as a message has them; what was taken for one may be a whole text."""
    return ", ".join(repr(name if len(name) <= SHOWN else f"{name[: SHOWN - 1]}…") for name in names)


def text_column(columns: Sequence[str], texts: Sequence[str], field: str, where: object) -> str:
    """The column that is named or, if none is, found: one with a usual name, or the only one of text.

    Args:
      columns: all there are.
      texts: those that hold text.
      field: the name given; nothing: find one.
      where: the file and line, for the message.

    Raises:
      T5smithError: the one named is not there or holds no text, several have its name, or none can be told
        from the rest.
    """
    fix = f"set corpus.text_field to the field with the text; there are {shown(columns) or 'none'}"
    if field and field not in columns:
        raise T5smithError(f"no field {field!r}", where=where, fix=fix)
    named = named_column(columns, field)
    if named and named not in texts:
        raise T5smithError(f"the field {named!r} is not text", where=where, fix=fix)
    if not named and len(texts) != 1:
        many = f"{len(texts)} fields hold text, and none is called {USUAL[0]!r}"
        raise T5smithError(many if texts else "no field holds text", where=where, fix=fix)
    found = named or texts[0]
    if (number := columns.count(found)) > 1:
        what = f"{number} fields are called {found!r}"
        raise T5smithError(what, where=where, fix="rename all but one of them, or leave them out")
    return found
