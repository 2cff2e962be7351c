"""Changes of a recipe, generated from the types of its settings: other values for every setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_origin

from t5smith.recipe.allowed import allowed
from t5smith.recipe.base import Settings
from t5smith.recipe.recipe import Recipe

PLACES = {"name", "run_dir"}
"""Settings that name the run folder: with another value it is another run."""


def other_values(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Every setting of a recipe by its dotted name, each with other values that its type accepts."""
    for name, value in _leaves(recipe):
        if name not in PLACES:
            for other in _others(recipe, name, value):
                if other != value:
                    yield name, other


def _leaves(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _others(recipe: Recipe, dotted: str, value: Any) -> list[Any]:
    *tables, name = dotted.split(".")
    settings: Any = recipe
    for table in tables:
        settings = getattr(settings, table)
    accepts = allowed(type(settings).model_fields[name])
    found: list[Any] = []
    if accepts.optional and value is not None:
        found.append(None)
    if accepts.many:
        return [*found, () if value else ("x",)]
    if accepts.base is bool:
        return [not value]
    if accepts.base in (int, float):
        number = value if isinstance(value, int | float) else 1
        bigger, smaller = number * 2 or 1, number / 2
        found += [accepts.base(bigger), accepts.base(smaller)]
    elif isinstance(accepts.base, type) and get_origin(accepts.base) is None:  # not tables of tables
        found.append(accepts.base(f"{value or ''}x"))
    others = [choice for choice in accepts.choices if choice != value]
    return [*found, *others[:1]]
