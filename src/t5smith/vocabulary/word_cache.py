"""Ids of much text, several times faster than the tokenizers library gives them: words repeat.

A Unigram tokenizer with Metaspace cuts normalised text at its spaces before it does anything else. So the ids
of a text are those of its words in a row, and a table of words that have been met has most of them. What is
not in it goes through the library, whose answer is kept as the bytes that stand in the token store.

Where normalisation cannot reach across white space, as with t5smith's own, words are taken from the raw text;
elsewhere the library normalises the whole text first. A tokenizer that does not take texts apart in
this way is found out by trying, and gets no table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from tokenizers import Tokenizer

from t5smith.vocabulary.normalizers import SPACE

WORDS = 1 << 19
"""Words that are kept; when there are more the table begins anew. About 200 bytes each."""
LONGEST_KEPT = 48
"""Characters of the longest word that is kept: longer ones hardly come twice."""
STRETCH = 1 << 20
"""Characters taken at once, cut at white space: the words of a very long text would not fit."""
LONGEST_WORD = 1 << 22
"""Longer stretches without white space are cut, for the library's memory grows with them."""

_NO_SPACE_TO_RUST = "\x1c\x1d\x1e\x1f"
_PROBES = (
    "",
    " ",
    "det er  dag",
    " Det er\tdag \n\n nå. ",
    "a\u00a0b\u3000c\u2028d\x1ce",
    "¨a ´ b¸ ½ ﬁ ﷺ",
    "▁a ▁ b▁c▁ ▁▁d",
    "e\u0301 \u0301e I\u0307 각",
    "你好 世界。 שלום עולם",
    "123 45,6 </s> <extra_id_0> x<pad>",
    "\u200b\u200c \u200d\ufeff\u00ad",
)


class Words:
    """The table of one vocabulary.

    Attributes:
      cut: stretches without white space that were too long and were cut.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dtype: np.dtype[np.unsignedinteger],
        *,
        raw: bool,
        before: Callable[[str], str] | None = None,
    ) -> None:
        """Make an empty table.

        Args:
          tokenizer: gives the ids of a text, without special tokens.
          dtype: of the ids.
          raw: its normaliser works on each word alone, see :func:`t5smith.vocabulary.train.normalizer`.
          before: what a text goes through before the tokenizer has it.
        """
        self.dtype = dtype
        self.cut = 0
        self._tokenizer = tokenizer
        self._before = before
        self._normalise = None if raw else _normalise(tokenizer)
        self._table = _Table(tokenizer if raw else _without_normalizer(tokenizer), dtype)
        self._encode: Callable[[str], bytes] = self._by_words
        if _crosses_spaces(tokenizer) or any(
            self._by_words(probe) != self._whole(probe) for probe in _PROBES
        ):
            self._encode = self._whole

    @property
    def by_words(self) -> bool:
        """Whether the table is used."""
        return self._encode != self._whole

    def encode(self, text: str) -> bytes:
        """The ids of a text as the bytes of an array of `dtype`, without `</s>`. Control words are text."""
        if len(text) <= STRETCH:
            return self._encode(text)
        return b"".join(map(self._encode, self._stretches(text)))

    def _stretches(self, text: str) -> Iterator[str]:
        """A long text in parts, each of which but the first begins with white space."""
        start = 0
        while len(text) - start > STRETCH:
            within = range(start + 1, start + STRETCH)
            end = _before_space(
                text, start, max(text.rfind(space, within.start, within.stop) for space in " \n")
            )
            if end <= start:
                ends = (text.find(space, within.stop, start + LONGEST_WORD) for space in " \n")
                end = _before_space(text, start, min((end for end in ends if end >= 0), default=-1))
            if end <= start:
                end = min(start + LONGEST_WORD, len(text))
                self.cut += end < len(text)
            yield text[start:end]
            start = end
        yield text[start:]

    def _whole(self, text: str) -> bytes:
        text = self._before(text) if self._before else text
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, self.dtype).tobytes()

    def _by_words(self, text: str) -> bytes:
        if self._normalise is None:
            if any(separator in text for separator in _NO_SPACE_TO_RUST):
                # Python would cut here and the library would not.
                return self._whole(text)
            words = text.split()
        else:
            # Some normalisers write the sign for a space themselves; Metaspace takes one for the other.
            text = self._before(text) if self._before else text
            words = self._normalise(text).replace(SPACE, " ").split(" ")
            if not words[0]:
                # A space that opens the text is the one that would be put there.
                del words[0]
        return b"".join(map(self._table.__getitem__, words))


class _Table(dict[str, bytes]):
    """Word to ids; asks the tokenizer for what it does not have."""

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype[np.unsignedinteger]) -> None:
        super().__init__()
        self._tokenizer, self._dtype = tokenizer, dtype

    def __missing__(self, word: str) -> bytes:
        ids = self._tokenizer.encode(f" {word}", add_special_tokens=False).ids
        data = np.array(ids, self._dtype).tobytes()
        if len(word) <= LONGEST_KEPT:
            if len(self) >= WORDS:
                self.clear()
            self[word] = data
        return data


def _before_space(text: str, start: int, end: int) -> int:
    """Where the white space begins that goes up to a place: some normalisers make one sign of a run."""
    while end > start and text[end - 1].isspace():
        end -= 1
    return end


def _crosses_spaces(tokenizer: Tokenizer) -> bool:
    """Whether a piece may go on over a space, as where the pre-tokenizer does not cut there."""
    cuts = '"split":false' not in tokenizer.to_str().replace(" ", "")
    return not cuts and any(SPACE in piece[1:] for piece in tokenizer.get_vocab())


def _normalise(tokenizer: Tokenizer) -> Callable[[str], str]:
    return tokenizer.normalizer.normalize_str if tokenizer.normalizer else lambda text: text


def _without_normalizer(tokenizer: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.normalizer = None  # pyright: ignore[reportAttributeAccessIssue]  # the stub does not know of None
    return copy
