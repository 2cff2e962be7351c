"""Encoding much text several times faster than the tokenizers library does, by caching the ids of words.

A Unigram tokenizer with Metaspace first cuts normalized text at its spaces. So the ids of a text are the
concatenated ids of its words, and a cache of the words seen so far has most of them. Other words go through
the library, and their ids are cached as the bytes that the token store holds.

If normalization cannot reach across white space, as in t5smith's own vocabularies, words are cut from the
raw text; otherwise the library normalizes the whole text first. Tokenizers that do not cut text in this way
are detected by encoding a few probes, and are used without a cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
from tokenizers import Tokenizer

from t5smith.vocabulary import white_space
from t5smith.vocabulary.white_space import SPACE

MAX_CACHED_WORDS = 1 << 19
"""When the cache has this many words it is emptied. A word takes about 200 bytes."""
MAX_CACHED_LENGTH = 48
"""Words of more characters are not cached: they rarely occur twice."""
MAX_PART = 1 << 20
"""Longer texts are encoded in parts of about this many characters, cut at white space, to bound memory."""
MAX_UNBROKEN = 1 << 22
"""Longer runs of characters without white space are cut, since the library's memory grows with them."""

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


class _InParts:
    """Encodes long texts in parts.

    Attributes:
      cut: number of runs without white space that were too long and were cut.
    """

    cut = 0
    is_white = staticmethod(str.isspace)
    _encode: Callable[[str], bytes]

    def encode(self, text: str) -> bytes:
        """Ids of a text as the bytes of an array of `dtype`, without `</s>`. Control words in it are text."""
        if len(text) <= MAX_PART:
            return self._encode(text)
        return b"".join(map(self._encode, self._parts(text)))

    def _parts(self, text: str) -> Iterator[str]:
        """Cut a long text; where possible at white space, which then begins the next part."""
        start = 0
        while len(text) - start > MAX_PART:
            limit = start + MAX_PART
            end = self._before_space(text, start, max(text.rfind(space, start + 1, limit) for space in " \n"))
            if end <= start:
                ends = (text.find(space, limit, start + MAX_UNBROKEN) for space in " \n")
                end = self._before_space(text, start, min((end for end in ends if end >= 0), default=-1))
            if end <= start:
                end = min(start + MAX_UNBROKEN, len(text))
                self.cut += end < len(text)
            yield text[start:end]
            start = end
        yield text[start:]

    def _before_space(self, text: str, start: int, end: int) -> int:
        """The start of the white space that ends at `end`: some normalizers make one character of a run."""
        while end > start and self.is_white(text[end - 1]):
            end -= 1
        return end


class UnitCache(_InParts):
    """Encodes text with a tokenizer of ours that keeps white space, caching units of raw text."""

    caches_words = True
    is_white = staticmethod(white_space.is_white)

    def __init__(
        self, tokenizer: Tokenizer, dtype: np.dtype[np.unsignedinteger], units: re.Pattern[str]
    ) -> None:
        """Start with an empty cache.

        Args:
          tokenizer: encodes text without special tokens.
          dtype: of the ids.
          units: see :func:`t5smith.vocabulary.white_space.raw_units`.
        """
        self.dtype = dtype
        self._words = _WordIds(white_space.keeping_last_space(tokenizer), dtype, before="")
        self._cut = units.findall

    def encode(self, text: str) -> bytes:
        """Ids of a text as the bytes of an array, without `</s>`."""
        return super().encode(white_space.without_last_space(text))

    def _encode(self, text: str) -> bytes:
        return b"".join(map(self._words.__getitem__, self._cut(text)))


class WordCache(_InParts):
    """Encodes text with one tokenizer, caching words."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        dtype: np.dtype[np.unsignedinteger],
        *,
        raw: bool,
        preprocess: Callable[[str], str] | None = None,
    ) -> None:
        """Start with an empty cache.

        Args:
          tokenizer: encodes text without special tokens.
          dtype: of the ids.
          raw: its normalizer works on each word alone, see
            :func:`t5smith.vocabulary.normalizers.normalizes_each_word`.
          preprocess: applied to text before the tokenizer.
        """
        self.dtype = dtype
        self._tokenizer = tokenizer
        self._preprocess = preprocess
        self._normalize = None if raw else _normalize(tokenizer)
        self._words = _WordIds(tokenizer if raw else _without_normalizer(tokenizer), dtype)
        # No `▁` is prepended to a text that begins with a piece that the library finds first.
        self._starts = any(token.normalized for token in tokenizer.get_added_tokens_decoder().values())
        self._encode: Callable[[str], bytes] = self._encode_words
        if _crosses_spaces(tokenizer) or any(
            self._encode_words(probe) != self._encode_whole(probe) for probe in _PROBES
        ):
            self._encode = self._encode_whole

    @property
    def caches_words(self) -> bool:
        """Whether words are cached; if not, the library encodes whole texts."""
        return self._encode != self._encode_whole

    def _encode_whole(self, text: str) -> bytes:
        text = self._preprocess(text) if self._preprocess else text
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, self.dtype).tobytes()

    def _encode_words(self, text: str) -> bytes:
        if self._normalize is None:
            if any(separator in text for separator in _NO_SPACE_TO_RUST):
                # Python would split here, the library does not.
                return self._encode_whole(text)
            words = text.split()
            starts_a_word = not text[:1].isspace()
        else:
            # Some normalizers write `▁` themselves; to Metaspace it is the same as a space.
            text = self._preprocess(text) if self._preprocess else text
            words = self._normalize(text).replace(SPACE, " ").split(" ")
            if not (starts_a_word := bool(words[0])):
                # Metaspace adds no space to a text that begins with one.
                del words[0]
        if self._starts and words and starts_a_word:
            start = self._words.ids(words[0])
            return start + b"".join(map(self._words.__getitem__, words[1:]))
        return b"".join(map(self._words.__getitem__, words))


class _WordIds(dict[str, bytes]):
    """Ids by word; missing words are encoded and kept."""

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype[np.unsignedinteger], before: str = " ") -> None:
        """`before` is put before a word that is encoded."""
        super().__init__()
        self._tokenizer, self._dtype, self._before = tokenizer, dtype, before

    def ids(self, text: str) -> bytes:
        """Ids of a text without the cache."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, self._dtype).tobytes()

    def __missing__(self, word: str) -> bytes:
        data = self.ids(self._before + word)
        if len(word) <= MAX_CACHED_LENGTH:
            if len(self) >= MAX_CACHED_WORDS:
                self.clear()
            self[word] = data
        return data


def _crosses_spaces(tokenizer: Tokenizer) -> bool:
    """Whether a piece may contain a space: the pre-tokenizer does not cut there."""
    cuts = '"split":false' not in tokenizer.to_str().replace(" ", "")
    return not cuts and any(SPACE in piece[1:] for piece in tokenizer.get_vocab())


def _normalize(tokenizer: Tokenizer) -> Callable[[str], str]:
    return tokenizer.normalizer.normalize_str if tokenizer.normalizer else lambda text: text


def _without_normalizer(tokenizer: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.normalizer = None  # pyright: ignore[reportAttributeAccessIssue]  # None is missing in the stub
    return copy
