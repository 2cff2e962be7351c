"""Facts of a run as text: labels, numbers with units, changed settings.

Missing values (None, NaN, an absent key) are not shown.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from typing import Any

from t5smith.base.progress import count, duration
from t5smith.recipe.recipe import Recipe, plain

Facts = Mapping[str, Any]
"""What a stage reports, by name; values are numbers, strings, lists and tables of these, or None."""
_LABELS = {
    "seconds": "Time",
    "ln_vocab": "ln V",
    "nll": "NLL",
    "unigram_nll": "Unigram baseline NLL",
    "last_loss": "Mean loss of the last 20 steps",
}


def number(facts: Facts, *path: str) -> float | None:
    """The finite number at a path of keys, or None."""
    value: Any = facts
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def percent(value: float) -> str:
    """A share of one: 12.3 %, 0.020 %, 0 %. Below 1 % it has two significant digits."""
    share = float(f"{100 * value:.2g}") if abs(value) < 0.01 else 100 * value
    if share == 0:
        return "0 %"
    digits = 1 if abs(share) >= 1 else 1 - math.floor(math.log10(abs(share)))
    return f"{share:.{digits}f} %"


def size(value: float) -> str:
    """Bytes: 950 B, 12.3 kB, 4.56 MB."""
    short = count(value)
    return f"{short[:-1]} {short[-1]}B" if short[-1].isalpha() else f"{short} B"


def label(key: str) -> str:
    """A name such as `held_out_tokens` as words."""
    if key in _LABELS:
        return _LABELS[key]
    words = key.replace("_", " ").replace(".", ", ")
    return words[:1].upper() + words[1:]


_UNITS = {
    "seconds": duration,
    "bytes": size,
    "rate": percent,
    "share": percent,
    "accuracy": percent,
    "fraction": percent,
}


def in_words(key: str, value: Any) -> str | None:
    """A value with the unit that the end of its key implies; None if there is no value."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        for ending, words in _UNITS.items():
            if key == ending or key.endswith(f"_{ending}"):
                return words(value)
        return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        parts = [in_words("", part) for part in value]
        return ", ".join(part for part in parts if part) or None
    return str(value) or None


def rows(facts: Facts, prefix: str = "") -> list[tuple[str, str]]:
    """Every fact as a label and its value; nested tables are flattened."""
    found: list[tuple[str, str]] = []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            found += rows(value, f"{prefix}{key}.")
        elif (words := in_words(key, value)) is not None:
            found.append((label(f"{prefix}{key}"), words))
    return found


def changed_settings(recipe: str) -> list[tuple[str, str, str]]:
    """The settings of a recipe that differ from the defaults: dotted name, value, default.

    The list is empty if the recipe is not TOML.
    """
    try:
        settings = _flat(tomllib.loads(recipe))
    except tomllib.TOMLDecodeError:
        return []
    defaults = _flat(plain(Recipe()))
    return [
        (key, _setting(value), _setting(defaults.get(key)))
        for key, value in settings.items()
        if value != defaults.get(key)
    ]


def _flat(tree: Facts, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _setting(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
