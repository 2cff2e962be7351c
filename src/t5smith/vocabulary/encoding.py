"""Encoding text as ids: in pieces, or byte by byte, with the two byte-level vocabularies.

A control word typed in a text is text: `</s>` in a web page must not end a document. The tokenizers library
maps such words to control ids. So text goes through a second tokenizer with the same pieces under the same
ids, whose control pieces have a space in their names, which no pre-tokenized text contains.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
from tokenizers import Encoding, Tokenizer

from t5smith.base.errors import T5smithError
from t5smith.vocabulary.normalizers import SPACE, normalizes_each_word
from t5smith.vocabulary.sentencepiece_charsmap import split_character_map
from t5smith.vocabulary.tokenizer_json import (
    CONTROL,
    UNK,
    TokenizerTree,
    control_token,
    metaspace,
    unknown_words,
)
from t5smith.vocabulary.white_space import keeps_white_space, raw_units
from t5smith.vocabulary.word_cache import UnitCache, WordCache

BYTE_BY_BYTE = {
    "type": "Split",
    "pattern": {"Regex": r"[\s\S]"},
    "behavior": "Isolated",
    "invert": False,
}
"""The pre-tokenizer of a byte-level vocabulary: it splits characters, so that no byte's name is matched."""
IN_UTF8 = 0xF5
"""No byte from this one on occurs in UTF-8."""
BYTE_SENTINELS = 125
"""Sentinels of ByT5, as in transformers' ByT5Tokenizer; `<extra_id_i>` has the same id, 259 + i."""
TEXT_START = r"\A"
"""Starts the pattern of a normalizer step that changes only the beginning of a whole text."""

# White space as the tokenizers library sees it: unlike Python's it leaves out four ASCII separators.
_LEADING_WORD = re.compile(r"[\S\x1c-\x1f]*")


class BulkEncoder(Protocol):
    """Encodes much text as bytes, see :class:`t5smith.vocabulary.word_cache.WordCache`."""

    cut: int

    @property
    def caches_words(self) -> bool:
        """Whether ids of words are cached."""
        ...

    def encode(self, text: str) -> bytes:
        """Ids of a text as the bytes of an array."""
        ...


class PieceEncoder:
    """Encodes text in the pieces of a tokenizer.json.

    Attributes:
      strips_left: whether a sentinel strips the white space before it. If not, normalization drops one space.
    """

    def __init__(self, tree: TokenizerTree, pieces: Sequence[str], control: set[int], source: object) -> None:
        if metaspace(tree.get("pre_tokenizer")) is None:
            raise T5smithError(
                "no Metaspace pre-tokenizer", where=source, expected=f"one that writes spaces as {SPACE}"
            )
        self._map, normalizer = split_character_map(tree.get("normalizer"), source)
        self.strips_left = not keeps_white_space(tree)
        self._settings = normalizes_each_word(json.dumps(tree.get("normalizer")))
        self._unknown = unknown_words(tree)
        self.tokenizer = without_control_words(tree | {"normalizer": normalizer}, pieces, control, source)

    def _premapped(self, text: str) -> str:
        return self._map(text) if self._map else text

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without `</s>`."""
        return self.tokenizer.encode(self._premapped(text), add_special_tokens=False).ids

    def batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Texts as the tokenizers library encodes them, on all cores."""
        return self.tokenizer.encode_batch_fast(list(map(self._premapped, texts)), add_special_tokens=False)

    def spell(self, piece: str) -> list[int]:
        """Ids of a piece of another vocabulary, without the steps that normalise and split a text."""
        return [token.id for token in self.tokenizer.model.tokenize(piece)]

    def bulk_encoder(self, dtype: np.dtype[np.unsignedinteger]) -> BulkEncoder:
        """An encoder for much text."""
        own = self._settings
        if own is None or not own.keep_whitespace:
            return WordCache(self.tokenizer, dtype, raw=own is not None, preprocess=self._map)
        if self.strips_left:  # the normalizer is ours, the cut is not
            return WordCache(self.tokenizer, dtype, raw=False)
        units = raw_units(marks=own.normalization == "nfkc", words=self._unknown)
        return UnitCache(self.tokenizer, dtype, units)

    @functools.cached_property
    def _for_continuation(self) -> Tokenizer:
        """The tokenizer without the steps that change the beginning of a text; it still prepends `▁`."""
        tree = json.loads(self.tokenizer.to_str())
        normalizer = tree["normalizer"]
        if normalizer and normalizer["type"] == "Sequence":
            normalizer["normalizers"] = [
                step
                for step in normalizer["normalizers"]
                if not str(step.get("pattern", {}).get("Regex", "")).startswith(TEXT_START)
            ]
        return Tokenizer.from_str(json.dumps(tree))

    @functools.cached_property
    def _inside_word(self) -> Tokenizer:
        """The same, but it does not prepend `▁`."""
        tree = json.loads(self._for_continuation.to_str())
        cast(dict[str, Any], metaspace(tree["pre_tokenizer"]))["prepend_scheme"] = "never"
        return Tokenizer.from_str(json.dumps(tree))

    def encode_continuation(self, text: str) -> list[int]:
        """Ids of text after a sentinel, which starts a new word only if it begins with white space."""
        if not self.strips_left:
            return self.encode(text)
        text = self._premapped(text)
        word = cast(re.Match[str], _LEADING_WORD.match(text))[0]
        start = self._inside_word.encode(word, add_special_tokens=False).ids if word else []
        return start + self._for_continuation.encode(text[len(word) :], add_special_tokens=False).ids


class ByteEncoder:
    """Encodes text byte by byte: nothing is normalized and no white space is stripped."""

    strips_left = False

    def __init__(
        self,
        tree: TokenizerTree,
        pieces: Sequence[str],
        control: set[int],
        ids: Mapping[int, int],
        source: object,
    ) -> None:
        self.tokenizer = without_control_words(tree, pieces, control, source)
        self._ids = np.zeros(256, np.int32)
        for number, byte in ids.items():
            self._ids[byte] = number

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without `</s>`."""
        return self._ids[np.frombuffer(text.encode(), np.uint8)].tolist()

    encode_continuation = encode

    def batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Texts as the tokenizers library encodes them, on all cores."""
        return self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)

    def spell(self, piece: str) -> list[int]:
        """Ids of the bytes of a piece of another vocabulary."""
        return self.encode(piece.replace(SPACE, " "))

    def bulk_encoder(self, dtype: np.dtype[np.unsignedinteger]) -> BulkEncoder:
        """An encoder for much text."""
        return _BulkByteEncoder(self._ids.astype(dtype))


class _BulkByteEncoder:
    """Encodes text as the bytes of an array with the id of each byte."""

    cut = 0
    caches_words = False

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids

    def encode(self, text: str) -> bytes:
        return self._ids[np.frombuffer(text.encode(), np.uint8)].tobytes()


def is_byte_level(tree: TokenizerTree, bytes_: Mapping[int, int], is_text: np.ndarray, unk_id: int) -> bool:
    """Whether a vocabulary has the bytes of UTF-8 as text pieces, no others, and leaves text unchanged."""
    unchanged = tree.get("normalizer") is None and tree.get("pre_tokenizer") == BYTE_BY_BYTE
    text_ids = set(np.flatnonzero(is_text).tolist()) - {unk_id}
    return unchanged and text_ids == set(bytes_) and set(range(IN_UTF8)) <= set(bytes_.values())


def without_control_words(
    tree: TokenizerTree, pieces: Sequence[str], control: set[int], source: object
) -> Tokenizer:
    """The tokenizer with the same ids, but no text matches a control piece."""
    tree = json.loads(json.dumps(tree))
    table = tree["model"]["vocab"]
    for number in control:
        if number < len(table):
            # Metaspace turns every space into ▁, so a piece with a space in it can never be matched.
            table[number][0] = f" {number} {pieces[number]}"
    tree["added_tokens"] = [t for t in tree.get("added_tokens") or [] if t["id"] not in control]
    tree["post_processor"] = tree["truncation"] = tree["padding"] = None
    try:
        return Tokenizer.from_str(json.dumps(tree))
    except Exception as error:  # the library raises bare Exception
        raise T5smithError(f"not a usable tokenizer.json ({error})", where=source) from None


def byte_tokenizer() -> TokenizerTree:
    """Bytes, then 125 sentinels from 259 upward: the ids of transformers' ByT5Tokenizer."""
    return _byte_tree(256, [f"<extra_id_{i}>" for i in range(BYTE_SENTINELS)])


def google_byte_tokenizer() -> TokenizerTree:
    """Bytes with the sentinels that Google's ByT5 was trained with: `<extra_id_i>` is the id 258 - i.

    There seqio counts sentinels down from the last id of its 259, so they are ids of bytes. Of these only the
    11 that never occur in UTF-8 are sentinels here, 0xF5 to 0xFF, and no id has two meanings: Google's
    inputs of 1,024 bytes, with spans of 20, have at most 9. (seqio's ByteVocabulary, t5's
    preprocessors.sentinel_id; transformers' page on ByT5 masks with 258, 257 and 256 too)
    """
    return _byte_tree(IN_UTF8, [f"<extra_id_{i}>" for i in reversed(range(256 - IN_UTF8))])


def _byte_tree(bytes_: int, sentinels: list[str]) -> TokenizerTree:
    """A tokenizer.json of the first bytes, then sentinels; no `▁` is prepended."""
    names = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(bytes_)), *sentinels]
    special = [number for number, name in enumerate(names) if name in CONTROL or name in sentinels]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [control_token(number, names[number]) for number in special],
        "normalizer": None,
        "pre_tokenizer": BYTE_BY_BYTE,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "Unigram",
            "unk_id": CONTROL.index(UNK),
            "vocab": [[name, 0.0] for name in names],
            "byte_fallback": True,
        },
    }
