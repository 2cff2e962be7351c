"""A row as input or target: the value of a column, or a template with columns in braces."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from t5smith.base.errors import T5smithError
from t5smith.finetuning.rows import Row


@dataclass(frozen=True)
class Template:
    """A column, or text with columns in braces; `{{` and `}}` are braces.

    Attributes:
      parts: text, and the column that follows it; None at the end.
      setting: where it is set, for messages.
    """

    parts: tuple[tuple[str, str | None], ...]
    setting: str

    @classmethod
    def parse(cls, text: str, setting: str) -> Template:
        """Read a setting; without braces it is the name of a column.

        Raises:
          T5smithError: braces that do not match, or nothing in them.
        """
        if "{" not in text and "}" not in text:
            return cls((("", text),), setting)
        try:
            found = [(before, name) for before, name, _, _ in string.Formatter().parse(text)]
        except ValueError as error:
            fix = "write {{ and }} for braces that are text"
            raise T5smithError(
                f"{text!r}: {error}", where=setting, expected="columns in braces", fix=fix
            ) from None
        if any(name == "" for _, name in found) or all(name is None for _, name in found):
            raise T5smithError(
                f"{text!r} names no column", where=setting, expected='such as "translate: {nb}"'
            )
        return cls(tuple(found), setting)

    @property
    def fields(self) -> list[str]:
        """The columns that it needs."""
        return [name for _, name in self.parts if name is not None]

    def missing(self, row: Row) -> str | None:
        """The first of its columns that a row does not have; None: it has all."""
        return next((name for name in self.fields if row.value(name) is None), None)

    def texts(self, row: Row) -> list[str]:
        """The texts for a row: several if it is one column with a list, else one."""
        if len(self.parts) == 1 and not self.parts[0][0]:
            value = row.value(cast("str", self.parts[0][1]))
            if isinstance(value, Sequence) and not isinstance(value, str):
                return [_text(one) for one in cast("Sequence[Any]", value)]
        return [
            "".join(before + ("" if name is None else _text(row.value(name))) for before, name in self.parts)
        ]


def _text(value: Any) -> str:
    """A value as text: of a list its parts with spaces between them."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence):
        return " ".join(_text(one) for one in cast("Sequence[Any]", value))
    return str(value)
