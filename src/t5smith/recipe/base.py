"""The ground that recipes stand on: tables of settings, frozen and strict, whose complaints are ours."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from t5smith.base.errors import T5smithError

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]

# Strict settings refuse a list for a tuple and text for a path, which is how TOML says them.
Strings = Annotated[tuple[str, ...], Field(strict=False)]
Folder = Annotated[Path, Field(strict=False)]

ALLOWED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list of texts",
    "path_type": "a path",
    "model_type": "a table of settings",
    "finite_number": "a finite number",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-', beginning with a letter or a digit",
}
"""What pydantic's errors mean to somebody who writes a recipe."""


class Settings(BaseModel):
    """One table of a recipe. Frozen; unknown keys, wrong types and values out of range are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    section: ClassVar[str] = ""

    @model_validator(mode="wrap")
    @classmethod
    def _say_it_our_way(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise refused(cls, error) from None


def did_you_mean(name: str, known: Sequence[str]) -> str | None:
    """What to do about a name that there is none of, if it is close to one that there is."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else None


def refused(settings: type[Settings], error: ValidationError) -> T5smithError:
    """The first complaint of pydantic as one line of ours: the field, the value, what is allowed."""
    first = error.errors(include_url=False)[0]
    field = ".".join(filter(None, [settings.section, *(str(part) for part in first["loc"])]))
    if first["type"] == "extra_forbidden":
        known = list(settings.model_fields)
        fix = did_you_mean(str(first["loc"][-1]), known)
        table = f"in [{settings.section}]" if settings.section else "at the top level"
        return T5smithError(
            "unknown key", where=field, expected=f"one of {', '.join(known)} {table}", fix=fix
        )
    if first["type"] == "missing":
        return T5smithError("missing", where=field, expected="a value")
    message = first["msg"][0].lower() + first["msg"][1:]
    expected = ALLOWED.get(first["type"], message.removeprefix("input should be "))
    return T5smithError(f"{first['input']!r} cannot be used", where=field, expected=expected)
