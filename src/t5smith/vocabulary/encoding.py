"""How text becomes ids: by pieces, or byte by byte.

A control word typed in text is text: `</s>` in a web page must not end a document. The tokenizers library
maps such words to control ids, so text goes through a second tokenizer that has the same pieces under the
same ids, but whose control pieces carry a space in their names, which no pre-tokenised text contains.
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
from t5smith.vocabulary.sentencepiece_charsmap import of_tree
from t5smith.vocabulary.tokenizer_json import Tree, metaspace
from t5smith.vocabulary.word_cache import Words

BYTE_BY_BYTE = {
    "type": "Split",
    "pattern": {"Regex": r"[\s\S]"},
    "behavior": "Isolated",
    "invert": False,
}
"""The pre-tokenizer of a vocabulary of bytes: characters apart, so that no byte's name is ever met."""
OPENING = r"\A"
"""Begins the pattern of a normaliser's step that works on the beginning of a whole text alone."""

# White space as the tokenizers library sees it: unlike Python's it leaves out four ASCII separators.
_FIRST_WORD = re.compile(r"[\S\x1c-\x1f]*")


class Table(Protocol):
    """Gives the ids of much text as bytes, see :class:`t5smith.vocabulary.word_cache.Words`."""

    cut: int

    @property
    def by_words(self) -> bool:
        """Whether words are looked up."""
        ...

    def encode(self, text: str) -> bytes:
        """The ids of a text as the bytes of an array."""
        ...


class Pieces:
    """Text to ids with the pieces of a tokenizer.json.

    Attributes:
      strips_left: a sentinel takes the white space before it along.
    """

    strips_left = True

    def __init__(self, tree: Tree, pieces: Sequence[str], control: set[int], source: object) -> None:
        if metaspace(tree.get("pre_tokenizer")) is None:
            raise T5smithError(
                "no Metaspace pre-tokenizer", where=source, expected=f"one that writes spaces as {SPACE}"
            )
        self._map, normalizer = of_tree(tree.get("normalizer"), source)
        self._raw = normalizes_each_word(json.dumps(tree.get("normalizer")))
        self.tokenizer = text_tokenizer(tree | {"normalizer": normalizer}, pieces, control, source)

    def _mapped(self, text: str) -> str:
        return self._map(text) if self._map else text

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without `</s>`."""
        return self.tokenizer.encode(self._mapped(text), add_special_tokens=False).ids

    def batch(self, texts: Sequence[str]) -> list[Encoding]:
        """What the tokenizers library makes of texts on all cores."""
        return self.tokenizer.encode_batch_fast(list(map(self._mapped, texts)), add_special_tokens=False)

    def bulk_encoder(self, dtype: np.dtype[np.unsignedinteger]) -> Table:
        """A table for much text."""
        return Words(self.tokenizer, dtype, raw=self._raw, before=self._map)

    @functools.cached_property
    def _without_opening(self) -> Tokenizer:
        """The tokenizer without what it does to the beginning of a whole text, but for the first `▁`."""
        tree = json.loads(self.tokenizer.to_str())
        normalizer = tree["normalizer"]
        if normalizer and normalizer["type"] == "Sequence":
            normalizer["normalizers"] = [
                step
                for step in normalizer["normalizers"]
                if not str(step.get("pattern", {}).get("Regex", "")).startswith(OPENING)
            ]
        return Tokenizer.from_str(json.dumps(tree))

    @functools.cached_property
    def _inside_word(self) -> Tokenizer:
        """The same without a `▁` before a text that has no space there."""
        tree = json.loads(self._without_opening.to_str())
        cast(dict[str, Any], metaspace(tree["pre_tokenizer"]))["prepend_scheme"] = "never"
        return Tokenizer.from_str(json.dumps(tree))

    def encode_continuation(self, text: str) -> list[int]:
        """Ids of a text that stands behind a sentinel: it opens a word only if it begins with white space."""
        text = self._mapped(text)
        word = cast(re.Match[str], _FIRST_WORD.match(text))[0]
        glued = self._inside_word.encode(word, add_special_tokens=False).ids if word else []
        return glued + self._without_opening.encode(text[len(word) :], add_special_tokens=False).ids


class Bytes:
    """Text to ids byte by byte: nothing is normalised, and no white space is dropped."""

    strips_left = False

    def __init__(
        self, tree: Tree, pieces: Sequence[str], control: set[int], ids: Mapping[int, int], source: object
    ) -> None:
        self.tokenizer = text_tokenizer(tree, pieces, control, source)
        self._ids = np.zeros(256, np.int32)
        for number, byte in ids.items():
            self._ids[byte] = number

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without `</s>`."""
        return self._ids[np.frombuffer(text.encode(), np.uint8)].tolist()

    encode_continuation = encode

    def batch(self, texts: Sequence[str]) -> list[Encoding]:
        """What the tokenizers library makes of texts on all cores."""
        return self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)

    def bulk_encoder(self, dtype: np.dtype[np.unsignedinteger]) -> Table:
        """For much text."""
        return _ByteTable(self._ids.astype(dtype))


class _ByteTable:
    """The id of each byte as the bytes that are stored."""

    cut = 0
    by_words = False

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids

    def encode(self, text: str) -> bytes:
        return self._ids[np.frombuffer(text.encode(), np.uint8)].tobytes()


def is_byte_level(tree: Tree, bytes_: Mapping[int, int], is_text: np.ndarray, unk_id: int) -> bool:
    """Whether a vocabulary is all 256 bytes and no other text, and nothing is done to the text before."""
    bare = tree.get("normalizer") is None and tree.get("pre_tokenizer") == BYTE_BY_BYTE
    others = set(np.flatnonzero(is_text).tolist()) - {unk_id}
    return bare and others == set(bytes_) and len(bytes_) == 256


def text_tokenizer(tree: Tree, pieces: Sequence[str], control: set[int], source: object) -> Tokenizer:
    """The tokenizer without its control words: same ids, but nothing in a text matches a control piece."""
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
