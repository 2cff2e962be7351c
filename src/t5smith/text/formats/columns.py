"""Which column of a table, or field of a JSON line, is the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from t5smith.base.errors import T5smithError

USUAL = ("text", "content", "body", "document", "article", "raw_content", "sentence")
"""Usual names of text columns in data sets on the Hub, the likeliest first."""
SHOWN = 60
"""Characters of a name in a message."""
MOST_SHOWN = 30
"""Number of names in a message."""


def named_column(columns: Sequence[str], field: str) -> str:
    """The column named `field` or, if `field` is empty, the likeliest usual one; "" if there is none."""
    return next((name for name in ((field,) if field else USUAL) if name in columns), "")


def shown(names: Sequence[str]) -> str:
    """Names for a message, shortened: a wrong header may be a whole text."""
    some = [repr(name if len(name) <= SHOWN else f"{name[: SHOWN - 1]}…") for name in names[:MOST_SHOWN]]
    return ", ".join([*some, "…"] if len(names) > MOST_SHOWN else some)


def nested_value(row: Mapping[str, Any], field: str) -> Any:
    """The value of a field, or of `c` in `b` in `a` if the field is `a.b.c`; None: it is missing.

    A field whose own name has dots goes before.
    """
    if field in row or "." not in field:
        return row.get(field)
    value: Any = row
    for name in field.split("."):
        value = cast("Mapping[str, Any]", value).get(name) if isinstance(value, Mapping) else None
    return value


def text_column(
    columns: Sequence[str], texts: Sequence[str], field: str, where: object, more: Sequence[str] = ()
) -> str:
    """The column named `field` or, if `field` is empty, one with a usual name or the only one with text.

    Args:
      columns: all columns.
      texts: the columns that hold text.
      field: `corpus.text_field`; "": find one.
      where: the file and line, for the message.
      more: fields within other fields, and what else the message should list.

    Raises:
      T5smithError: the named column is missing or holds no text, several columns have its name, or it is
        open which one is meant.
    """
    fix = f"set corpus.text_field to the field with the text; there are {shown([*columns, *more]) or 'none'}"
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
        raise T5smithError(what, where=where, fix="rename or remove all but one of them")
    return found
