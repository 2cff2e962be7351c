"""What a setting may hold, read from its type; errors and help describe it in the same words."""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

NOUNS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a string",
    Path: "a path",
}
LISTS: dict[type, str] = {str: "a list of strings", float: "a list of numbers"}


@dataclass
class Allowed:
    """The values that a setting accepts.

    Attributes:
      base: int, float, bool, str or Path; None if only `choices` are accepted.
      many: whether the setting is a list of `base`.
      optional: whether it can be None. That is written as "none", except for texts and paths, where "none" is
        a text or a path.
      choices: texts that are accepted.
      bounds: limits of a number: `ge`, `gt`, `le`, `lt`.
    """

    base: type | None = None
    many: bool = False
    optional: bool = False
    choices: tuple[str, ...] = ()
    bounds: dict[str, float] = field(default_factory=dict)

    @property
    def range(self) -> str:
        """The limits of a number: "1 or more", "from 1 to 64"; empty if it has none."""
        limits = dict(self.bounds)
        if self.base is int and "lt" in limits:
            limits["le"] = limits.pop("lt") - 1
        if limits.keys() == {"ge", "le"}:
            return f"from {_number(limits['ge'])} to {_number(limits['le'])}"
        words = {"ge": "{} or more", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}
        return " and ".join(
            text.format(_number(limits[name])) for name, text in words.items() if name in limits
        )

    def describe(self, *, quote: bool, limits: bool) -> str:
        """All that is accepted: "a number, or none", "float32 or bfloat16", "a whole number, 1 or more".

        Args:
          quote: whether texts stand in quotes, as they do in a recipe file.
          limits: whether the limits of a number are included.
        """
        mark = "'" if quote else ""
        words = [f"{mark}{choice}{mark}" for choice in self.choices]
        if self.optional and self.base not in (str, Path):
            words.append(f"{mark}none{mark}")
        if self.base is None:
            return _either(words)
        noun = (LISTS if self.many else NOUNS)[self.base]
        if limits and self.range:
            noun = f"{noun}, {self.range}"
        return f"{noun}, or {_either(words)}" if words else noun


def allowed(setting: FieldInfo) -> Allowed:
    """What a setting accepts, from its annotation."""
    found = Allowed()
    _add(found, setting.annotation)
    _add_bounds(found, setting.metadata)
    return found


def _add(found: Allowed, annotation: Any) -> None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        _add(found, arguments[0])
        for extra in arguments[1:]:
            _add_bounds(found, extra.metadata if isinstance(extra, FieldInfo) else [extra])
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            _add(found, argument)
    elif origin is Literal:
        found.choices += arguments
    elif origin is tuple:
        found.many = True
        _add(found, arguments[0])
    elif annotation is type(None):
        found.optional = True
    else:
        found.base = annotation


def _add_bounds(found: Allowed, metadata: Iterable[object]) -> None:
    for limit in metadata:
        for name in ("ge", "gt", "le", "lt"):
            if hasattr(limit, name):
                found.bounds[name] = getattr(limit, name)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
