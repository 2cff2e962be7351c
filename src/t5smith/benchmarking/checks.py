"""Checks of the flags of `t5smith bench`."""

from __future__ import annotations

from collections.abc import Iterable

from t5smith.base.errors import T5smithError


def check_at_least_one(**counts: int) -> None:
    """Raise T5smithError for a count below 1, with the name of its flag."""
    for name, value in counts.items():
        if value < 1:
            raise T5smithError(f"{value} cannot be used", where=_flag(name), expected="1 or more")


def check_divides(batch: int, **counts: int) -> None:
    """Raise T5smithError for a count that does not divide the batch, with the name of its flag."""
    for name, value in counts.items():
        if value < 1 or batch % value:
            expected = f"a divisor of the batch of {batch}"
            raise T5smithError(f"{value} cannot be used", where=_flag(name), expected=expected)


def check_one_of(known: Iterable[str], **values: str) -> None:
    """Raise T5smithError for a value that is not among the known ones."""
    for name, value in values.items():
        if value not in (names := tuple(known)):
            raise T5smithError(
                f"{value!r} cannot be used", where=_flag(name), expected=f"one of {', '.join(names)}"
            )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
