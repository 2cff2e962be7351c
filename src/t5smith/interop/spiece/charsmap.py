"""SentencePiece's character map (`precompiled_charsmap`) that does what one of our normalizers does.

A map replaces stretches of characters, the longest match first. So it has an entry for each character that is
changed; for letters and marks that are composed, in each way of writing them; and for marks that are put in
order, in runs of two, or of three Hebrew or Arabic points. Longer runs in an unusual order stay as they are.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tokenizers import normalizers

from t5smith.interop.spiece.double_array import serialized
from t5smith.recipe.vocab import VocabSettings
from t5smith.vocabulary.normalizers import normalizer

_FENCE = "\u2603"
"""Stands around a text that is normalized, so that its spaces stay. It composes with nothing."""
_CHANGED = (range(0x3400), range(0xA000, 0xAC00), range(0xF900, 0x20000), range(0x2F800, 0x2FA20))
"""All but ideographs, Hangul syllables, surrogates and private use, which no normalizer changes."""
_POINTS = (range(0x5B0, 0x5C3), (*range(0x64B, 0x656), 0x670))
"""Hebrew and Arabic points, which are often typed in another order than Unicode's."""
_MARKS = (range(0x300, 0x370), range(0x591, 0x5C8), range(0x610, 0x671))
"""Marks that are put in order: those of Latin, Greek and Cyrillic, of Hebrew, of Arabic."""


@functools.cache
def charsmap(normalization: str, lowercase: bool) -> bytes:
    """The character map of the normalizer with these settings, as a SentencePiece model stores it."""
    settings = VocabSettings.model_validate({"normalization": normalization, "lowercase": lowercase})
    return serialized(entries(settings))


def entries(settings: VocabSettings) -> dict[str, str]:
    """What the map replaces, and by what."""
    normal = normalizer(settings)
    found: dict[str, str] = {}
    found.update(_differing(map(chr, itertools.chain(*_CHANGED)), normal, found))
    if settings.normalization == "none":
        return found
    letters = _Compositions.create(found)
    longer = list(letters.pairs())
    while longer:
        found.update(_differing(longer, normal, found))
        longer = [more for text in longer for more in letters.continued(text)]
    found.update(_differing(letters.disordered(), normal, found))
    found.update(_differing((a + b for part in _MARKS for a, b in _pairs_of_marks(part)), normal, found))
    for points in _POINTS:
        texts = itertools.product(map(chr, points), repeat=3)
        found.update(_differing(map("".join, texts), normal, found))
    return found


def _differing(
    texts: Iterable[str], normal: normalizers.Normalizer, found: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """The texts that the entries found so far do not normalize."""
    given = [text for text in texts if _FENCE not in text and "\0" not in text]
    results = _each(given, normal)
    # Compared before any is added: an entry is longer than those that it is made of.
    return iter([(a, b) for a, b in zip(given, results, strict=True) if _replaced(a, found) != b])


def _each(texts: Iterable[str], normal: normalizers.Normalizer) -> list[str]:
    """Each text normalized, within a longer text."""
    joined = _FENCE + _FENCE.join(texts) + _FENCE
    return normal.normalize_str(joined).split(_FENCE)[1:-1]


def _replaced(text: str, found: Mapping[str, str]) -> str:
    """A short text by the entries, the longest match first."""
    parts: list[str] = []
    start = 0
    while start < len(text):
        stop = next((stop for stop in range(len(text), start, -1) if text[start:stop] in found), start + 1)
        parts.append(found.get(text[start:stop], text[start:stop]))
        start = stop
    return "".join(parts)


@dataclass(frozen=True)
class _Compositions:
    """Letters and marks that Unicode composes.

    Attributes:
      composed: the letter of each two characters.
      written: the characters that NFKC turns into a character.
      marks: those of `composed`.
    """

    composed: dict[tuple[str, str], str]
    written: dict[str, list[str]]
    marks: list[str]

    @classmethod
    def create(cls, changed: Iterable[str]) -> _Compositions:
        """The compositions of the tokenizers library; `changed`: characters that normalization changes."""
        composed: dict[tuple[str, str], str] = {}
        letters = list(map(chr, (*itertools.chain(*_CHANGED), *range(0xAC00, 0xD7A4))))
        letters = [letter for letter in letters if letter != _FENCE]
        parts = _each(letters, normalizers.NFD())
        several = [(letter, part) for letter, part in zip(letters, parts, strict=True) if len(part) > 1]
        begins = _each((part[:-1] for _, part in several), normalizers.NFC())
        again = _each((part for _, part in several), normalizers.NFC())
        for (letter, part), begin, whole in zip(several, begins, again, strict=True):
            if len(begin) == 1 and whole == letter:
                composed[begin, part[-1]] = letter
        written: dict[str, list[str]] = defaultdict(list)
        changed = [one for one in changed if len(one) == 1]
        for one, result in zip(changed, _each(changed, normalizers.NFKC()), strict=True):
            if len(result) == 1 and result != one:
                written[result].append(one)
        marks = sorted({mark for _, mark in composed if unicodedata.combining(mark)})
        return cls(composed, written, marks)

    def pairs(self) -> Iterator[str]:
        """Two characters that are composed, in each way of writing them."""
        for a, b in self.composed:
            for first in (a, *self.written.get(a, ())):
                for second in (b, *self.written.get(b, ())):
                    yield first + second

    @functools.cached_property
    def _seconds(self) -> dict[str, list[str]]:
        seconds: dict[str, list[str]] = defaultdict(list)
        for a, b in self.composed:
            seconds[a].append(b)
        return seconds

    def continued(self, text: str) -> Iterator[str]:
        """A text that becomes one letter, with what that letter is composed with."""
        letter = text[0]
        for following in text[1:]:
            letter = self.composed.get((letter, following), "")
        return (text + mark for mark in self._seconds.get(letter, ()))

    def disordered(self) -> Iterator[str]:
        """A letter and two marks of which the second is composed with it, or a letter with a mark in it."""
        for a, b in self.composed:
            if not unicodedata.combining(b):
                continue
            for mark in self.marks:
                if unicodedata.combining(mark) != unicodedata.combining(b):
                    yield a + mark + b
                    if letter := self.composed.get((a, mark)):
                        yield letter + b


def _pairs_of_marks(part: Iterable[int]) -> Iterator[tuple[str, str]]:
    """Two marks that normalization puts in order."""
    marks = [chr(number) for number in part if unicodedata.combining(chr(number))]
    for a, b in itertools.product(marks, marks):
        if unicodedata.combining(a) > unicodedata.combining(b):
            yield a, b
