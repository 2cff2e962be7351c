"""The characters of a text, each of which a vocabulary needs as a piece."""

from __future__ import annotations

from collections.abc import Iterable

from t5smith.base.errors import T5smithError
from t5smith.recipe.vocab import VocabSettings
from t5smith.vocabulary.normalizers import SPACE, normalizer

BYTE_NAMES = "<0x123456789ABCDEF>"
"""The characters of the names of bytes: they are pieces too, so that a name in a text is never the byte."""


def alphabet(text: Iterable[str], settings: VocabSettings) -> set[str]:
    """The different characters of a text once it is normalised; a space counts as `▁`."""
    normal = normalizer(settings)
    found = {SPACE, *(BYTE_NAMES if settings.byte_fallback else ())}
    for stretch in text:
        found.update(normal.normalize_str(stretch))
    return found - {" "}


def too_small(text: Iterable[str], settings: VocabSettings) -> T5smithError:
    """The error of a size that has no room for the characters of a text: it names the smallest that has."""
    characters = len(alphabet(text, settings))
    parts = [(characters, "different characters"), (3, "control pieces")]
    parts += [(256, "bytes")] if settings.byte_fallback else []
    parts += [(count, "user symbols")] if (count := len(settings.user_symbols)) else []
    needed = sum(number for number, _ in parts)
    told = ", ".join(f"{number:,} {what}" for number, what in parts)
    return T5smithError(
        f"{settings.size:,} pieces are too few: each different character of the text needs one",
        where="vocab.size",
        expected=f"{needed:,} or more: {told}",
        fix="raise vocab.size, or take out text in foreign scripts, or leave out the rarest characters with "
        "vocab.character_coverage = 0.9995, which vocab.byte_fallback then writes as bytes",
    )
