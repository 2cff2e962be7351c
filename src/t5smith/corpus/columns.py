"""Which column of a table, or field of a JSON line, is the text."""

from __future__ import annotations

from collections.abc import Sequence

from t5smith.errors import T5smithError

USUAL = ("text", "content", "body", "document", "article", "raw_content", "sentence")
"""Names that columns of text have in data sets on the Hub, the likeliest first."""


def text_column(columns: Sequence[str], texts: Sequence[str], field: str, where: object) -> str:
    """The column that is named or, if none is, found: one with a usual name, or the only one of text.

    Args:
      columns: all there are.
      texts: those that hold text.
      field: the name given; nothing: find one.
      where: the file and line, for the message.

    Raises:
      T5smithError: the one named is not there or holds no text, or none can be told from the rest.
    """
    has = ", ".join(map(repr, columns)) or "none"
    fix = f"set corpus.text_field to the field with the text; there are {has}"
    named = field or next((name for name in USUAL if name in columns), "")
    if named and named not in columns:
        raise T5smithError(f"no field {named!r}", where=where, fix=fix)
    if named and named not in texts:
        raise T5smithError(f"the field {named!r} is not text", where=where, fix=fix)
    if named or len(texts) == 1:
        return named or texts[0]
    what = (
        f"{len(texts)} fields hold text, and none is called {USUAL[0]!r}" if texts else "no field holds text"
    )
    raise T5smithError(what, where=where, fix=fix)
