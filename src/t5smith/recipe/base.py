"""The base class of all tables of a recipe: frozen, strict, and with errors in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from t5smith.base.errors import T5smithError
from t5smith.recipe.allowed import allowed

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]

# TOML has neither tuples nor paths; strict settings reject lists and texts in their place.
Strings = Annotated[tuple[str, ...], Field(strict=False)]
Folder = Annotated[Path, Field(strict=False)]

OrNone = BeforeValidator(lambda value: None if value == "none" else value)
"""Lets a setting that can be None be "none": TOML has no null, and a missing key means the default."""

UNUSUAL = {
    "finite_number": "a finite number",
    "model_type": "a table of settings",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-', beginning with a letter or a digit",
}
"""What is expected, by the type of pydantic's error, where the type of the setting does not say it."""
RANGES = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


class Settings(BaseModel):
    """One table of a recipe. Frozen; unknown keys, wrong types and values out of range are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    section: ClassVar[str] = ""

    @model_validator(mode="wrap")
    @classmethod
    def _report_errors_our_way(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise rejected(cls.model_fields, error, cls.section) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name nearest to an unknown one, to be put before the list of all; "" if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def rejected(fields: Mapping[str, FieldInfo], error: ValidationError, section: str) -> T5smithError:
    """The first of pydantic's errors about the settings of a table, in one line: field, value, expected."""
    first = error.errors(include_url=False)[0]
    # A union's parts are in the path too: ("batch_size", "constrained-int").
    path = [str(part) for n, part in enumerate(first["loc"]) if n == 0 or isinstance(part, int)]
    place = ".".join(filter(None, [section, *path]))
    setting = fields.get(path[0]) if path else None
    if first["type"] == "extra_forbidden":
        table = f"in [{section}]" if section else "at the top level"
        expected = f"one of {', '.join(fields)} {table}"
        what = f"unknown key{did_you_mean(path[0], fields)}"
        return T5smithError(what, where=place, expected=expected)
    if first["type"] == "missing":
        return T5smithError("missing", where=place, expected="a value")
    value, expected, near = first["input"], UNUSUAL.get(first["type"]), ""
    if expected is None and setting is not None:
        accepted = allowed(setting)
        accepted.many &= len(path) == 1
        if first["type"] in RANGES and not accepted.choices:
            expected = accepted.range
        else:
            expected = accepted.describe(quote=True, limits=first["type"] in RANGES)
        near = did_you_mean(value, accepted.choices) if isinstance(value, str) else ""
    return T5smithError(
        f"{spelled(value)} cannot be used{near}", where=place, expected=expected or first["msg"]
    )


def spelled(value: object) -> str:
    """A value as it is written in a recipe file."""
    return str(value).lower() if isinstance(value, bool) else repr(value)
