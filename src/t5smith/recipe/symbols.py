"""Which names control symbols and user symbols of a vocabulary may have."""

from __future__ import annotations

import re
from collections.abc import Sequence

from t5smith.base.errors import T5smithError

SENTINELS = 100
"""T5 has one hundred sentinels, `<extra_id_0>` to `<extra_id_99>`."""

CONTROL_WORD = re.compile(r"</s>|<pad>|<unk>|<extra_id_[0-9]+>")
"""Names of pieces that are in every vocabulary."""
KNOWN_CONTROL_WORD = re.compile(CONTROL_WORD.pattern.replace("<unk>|", ""))
"""The same without `<unk>`, for text in which that means "unknown"."""
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def check_symbols(control: Sequence[str], user: Sequence[str]) -> None:
    """Check that each name can be a piece of its own.

    Raises:
      T5smithError: a name cannot be a piece, or is listed twice.
    """
    for where, names in (("vocab.control_symbols", control), ("vocab.user_symbols", user)):
        for number, name in enumerate(names):
            expected = _lacks(name)
            if expected is None and names is control and len(name) == 1:
                # The character in a text would no longer be encoded as this piece.
                expected = "more than one character, such as [R]"
            if expected:
                raise T5smithError(f"{name!r} cannot be used", where=where, expected=expected)
            if name in names[:number]:
                raise T5smithError(f"{name!r} is listed twice", where=where, expected="each name once")
    if both := [name for name in user if name in control]:
        raise T5smithError(
            f"{both[0]!r} is also in vocab.control_symbols",
            where="vocab.user_symbols",
            expected="each name in one of the two lists",
        )


def check_unknown_words(words: Sequence[str], symbols: Sequence[str]) -> None:
    """Check that each word can become the unknown id.

    Args:
      words: of `vocab.unknown_words`.
      symbols: names of control symbols and user symbols.

    Raises:
      T5smithError: a word has a meaning of its own, or white space, or is listed twice.
    """
    for number, word in enumerate(words):
        expected = None if word == "<unk>" else _lacks(word)
        if word in symbols:
            expected = "a word that is neither a control symbol nor a user symbol"
        if word in words[:number]:
            expected = "each word once"
        if expected:
            raise T5smithError(f"{word!r} cannot be used", where="vocab.unknown_words", expected=expected)


def _lacks(name: str) -> str | None:
    """What is expected instead of a name; None if it can be used."""
    if not name or any(character.isspace() or character == "▁" for character in name):
        return "text without spaces"
    if CONTROL_WORD.fullmatch(name):
        return "a name other than </s>, <pad>, <unk> and <extra_id_0>, which every vocabulary has"
    if _BYTE.fullmatch(name):
        return "a name other than that of a byte"
    return None
