"""What the symbols of a vocabulary may be called, which are pieces by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from t5smith.base.errors import T5smithError

SENTINELS = 100
"""T5 has one hundred sentinels, `<extra_id_0>` to `<extra_id_99>`."""

CONTROL_WORD = re.compile(r"</s>|<pad>|<unk>|<extra_id_[0-9]+>")
"""Names of pieces that are in every vocabulary."""
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def check_symbols(control: Sequence[str], user: Sequence[str]) -> None:
    """See that each name can be a piece of its own.

    Raises:
      T5smithError: one cannot, or is there twice.
    """
    for where, names in (("vocab.control_symbols", control), ("vocab.user_symbols", user)):
        for number, name in enumerate(names):
            expected = _lacks(name)
            if expected is None and names is control and len(name) == 1:
                # No text would turn into this character any more.
                expected = "more than one character, as [R]"
            if expected:
                raise T5smithError(f"{name!r} cannot be used", where=where, expected=expected)
            if name in names[:number]:
                raise T5smithError(f"{name!r} is named twice", where=where, expected="each once")
    if both := [name for name in user if name in control]:
        raise T5smithError(
            f"{both[0]!r} is also in vocab.control_symbols",
            where="vocab.user_symbols",
            expected="each in one of them: either text turns into it or not",
        )


def _lacks(name: str) -> str | None:
    """What a name would have to be, or None if it can be one."""
    if not name or any(character.isspace() or character == "▁" for character in name):
        return "text without spaces"
    if CONTROL_WORD.fullmatch(name):
        return "another name than </s>, <pad>, <unk> and <extra_id_0>, which are there anyway"
    if _BYTE.fullmatch(name):
        return "another name than that of a byte"
    return None
