"""Masks chosen by hand: the tokens that contain given parts of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.base.wrapping import pluralize
from t5smith.vocabulary.vocabulary import Vocabulary
from t5smith.vocabulary.white_space import visible


@dataclass(frozen=True)
class Surface:
    """The normalised text of some tokens, and the character at which each token ends.

    Pieces write a space as `▁`. The space that the tokenizer puts before the first word is removed. A
    vocabulary that keeps white space puts none there, and has its new lines and tabs written as escapes.
    """

    text: str
    ends: tuple[int, ...]
    incomplete: tuple[bool, ...]
    """Tokens that are the beginning of a character."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, ids: Sequence[int] | np.ndarray) -> Surface:
        """The surface of the tokens of a text."""
        words = vocabulary.decode_each(ids)
        if vocabulary.keeps_whitespace:
            words = list(map(visible, words))
        joined = "".join(words)
        shift = 0 if vocabulary.keeps_whitespace else len(joined) - len(joined.lstrip(" "))
        ends = tuple(max(0, end - shift) for end in accumulate(map(len, words)))
        return cls(joined[shift:], ends, tuple(not word for word in words))

    def covering(self, start: int, stop: int) -> tuple[int, int]:
        """The range of tokens that contains the characters from `start` to `stop`."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        while first and self.incomplete[first - 1]:
            first -= 1
        last = int(np.searchsorted(self.ends, stop, side="left"))
        return first, last + 1

    def between(self, start: int, stop: int) -> str:
        """The text of the tokens from `start` to `stop`, without surrounding spaces."""
        return self.text[self.ends[start - 1] if start else 0 : self.ends[stop - 1]].strip()


def mask_texts(surface: Surface, texts: Sequence[str], typed: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The mask of the tokens that contain some texts, and notes where more is masked than was requested.

    Args:
      surface: the whole text.
      texts: the parts to mask, normalised.
      typed: the same parts as the user wrote them.
    """
    mask = np.zeros(len(surface.ends), bool)
    taken: list[tuple[int, int]] = []
    firsts: list[int] = []
    notes: list[str] = []
    for word, as_typed in zip(texts, typed, strict=True):
        place = _place(surface.text, word, taken, as_typed)
        taken.append(place)
        first, stop = surface.covering(*place)
        firsts.append(first)
        mask[first:stop] = True
        if (masked := surface.between(first, stop)) != word.strip():
            notes.append(f"{as_typed!r} is only part of a token: {masked!r} is masked")
    for start, stop in runs(mask):
        parts = [repr(t) for at, t in sorted(zip(firsts, typed, strict=True)) if start <= at < stop]
        if len(parts) > 1:
            span = surface.between(start, stop)
            notes.append(f"{' and '.join(parts)} touch or overlap: they become one span, {span!r}")
    return mask, notes


def _place(text: str, word: str, taken: Sequence[tuple[int, int]], typed: str) -> tuple[int, int]:
    """Where a text is masked: if possible apart from the places taken, and if possible as a whole word."""
    found = [(m.start(), m.start() + len(word)) for m in re.finditer(f"(?={re.escape(word)})", text)]
    if not word or not found:
        raise T5smithError(
            f"{typed!r} does not occur in {text!r}", where="noise", expected="a part of the text"
        )
    places = [place for place in found if place not in taken]
    if not places:
        raise T5smithError(
            f"{typed!r} is listed more often than it occurs in {text!r}",
            where="noise",
            expected=f"at most {pluralize(len(found), 'time')}",
        )
    free = [(a, b) for a, b in places if all(b <= c or d <= a for c, d in taken)] or places
    return next((place for place in free if _is_word(text, *place)), free[0])


def _is_word(text: str, start: int, stop: int) -> bool:
    """Whether no letter or digit precedes or follows."""
    return not (text[max(0, start - 1) : start].isalnum() or text[stop : stop + 1].isalnum())


def runs(mask: np.ndarray) -> Iterator[tuple[int, int]]:
    """The spans of a mask, each as its first position and the position after its last."""
    edges = np.flatnonzero(np.diff(np.pad(mask.astype(np.int8), 1)))
    yield from ((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))
