"""A vocabulary: it encodes text as ids and decodes ids, and knows the sentinels by name."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from t5smith.base.errors import T5smithError
from t5smith.vocabulary import tokenizer_json
from t5smith.vocabulary.encoding import BulkEncoder, ByteEncoder, PieceEncoder, is_byte_level
from t5smith.vocabulary.normalizers import BUNDLED, SPACE
from t5smith.vocabulary.tokenizer_files import (
    TOKENIZER_CONFIG,
    TOKENIZER_FILES,
    decompressed,
    parse_tokenizer_file,
    read_tokenizer_file,
    tokenizer_file,
    with_own_sentinels,
)
from t5smith.vocabulary.tokenizer_json import EOS, PAD, UNK
from t5smith.vocabulary.white_space import BREAKS, keeps_white_space, visible

__all__ = ["BUNDLED", "EOS", "PAD", "SPACE", "TOKENIZER_FILES", "UNK", "Vocabulary"]


# White space as the tokenizers library defines it: unlike Python, without four ASCII separators.
_TYPED_SENTINEL = re.compile(r"([^\S\x1c-\x1f]*)<extra_id_(0|[1-9][0-9]*)>")


class Vocabulary:
    """A vocabulary of pieces or bytes, with `</s>`, `<pad>`, `<unk>` and sentinels. It never changes.

    Attributes:
      size: number of ids, sentinels included; every id is below it.
      pad_id, eos_id, unk_id: ids of the three control pieces.
      sentinel_ids: int32 (sentinels,); `sentinel_ids[i]` is the id of `<extra_id_i>`.
      piece_bytes: int32 (size,); UTF-8 bytes of normalized text per id, 0 for control ids and `<unk>`. The
        `▁` that starts a word counts as one byte, its space.
      is_text: bool (size,); False for pad, eos, sentinels and other control ids, True for `<unk>`.
      unknown_words: words of a text that are encoded as `unk_id`; other control words are text.
      all_pieces: the piece of each id.
      is_byte_level: whether each byte of a text is one id, as in ByT5.
      keeps_whitespace: whether new lines, tabs and every space are kept (`vocab.keep_whitespace`).
    """

    def __init__(self, json_text: str, source: object = "tokenizer.json") -> None:
        tree = tokenizer_json.parse(json_text, source)
        self._json = json_text
        self.all_pieces, control = tokenizer_json.pieces_and_control(tree)
        ids = {piece: number for number, piece in enumerate(self.all_pieces)}
        self._ids = ids
        self.size = len(self.all_pieces)
        self.unk_id = tokenizer_json.unk_id(tree, source)
        self.pad_id, self.eos_id = tokenizer_json.control_ids(ids, self.unk_id, source)
        sentinels = tokenizer_json.sentinels(ids, self.unk_id, source)
        self.sentinel_ids: NDArray[np.int32] = np.array(sentinels, np.int32)
        self._numbers = {number: i for i, number in enumerate(sentinels)}

        control |= {self.pad_id, self.eos_id, *sentinels}
        control.discard(self.unk_id)
        self.is_text: NDArray[np.bool_] = np.ones(self.size, np.bool_)
        self.is_text[list(control)] = False
        self._bytes = tokenizer_json.byte_pieces(tree, self.all_pieces)
        lengths = [len(piece.replace(SPACE, " ").encode()) for piece in self.all_pieces]
        for number in self._bytes:
            lengths[number] = 1
        self.piece_bytes: NDArray[np.int32] = np.where(self.is_text, lengths, 0).astype(np.int32)
        self.piece_bytes[self.unk_id] = 0
        for array in (self.sentinel_ids, self.is_text, self.piece_bytes):
            array.flags.writeable = False

        self.unknown_words = tokenizer_json.unknown_words(tree)
        no_text = control if self.unknown_words else control | {self.unk_id}
        self.is_byte_level = is_byte_level(tree, self._bytes, self.is_text, self.unk_id)
        self.keeps_whitespace = keeps_white_space(tree)
        self._text: PieceEncoder | ByteEncoder = (
            ByteEncoder(tree, self.all_pieces, no_text, self._bytes, source)
            if self.is_byte_level
            else PieceEncoder(tree, self.all_pieces, no_text, source)
        )

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read a folder with a tokenizer, or a tokenizer.json, tokenizer.json.xz or SentencePiece model.

        A SentencePiece model without sentinels gets as many as
        :func:`t5smith.vocabulary.tokenizer_files.extra_ids` returns. A folder of a ByT5
        has only the name of its class: its bytes get Google's sentinels.

        Raises:
          T5smithError: missing, damaged, not a Unigram tokenizer, or without sentinels, `</s>` or `<pad>`.
        """
        file = tokenizer_file(Path(path))
        data = read_tokenizer_file(file)
        if file.suffix == ".model" or file.name == TOKENIZER_CONFIG:
            return cls(json.dumps(with_own_sentinels(parse_tokenizer_file(data, file), file)), file)
        return cls(decompressed(data, file), file)

    @classmethod
    def bundled(cls) -> Vocabulary:
        """The original T5 vocabulary, which is bundled with t5smith. It has no æ, ø or å."""
        return cls.load(BUNDLED)

    def spell(self, piece: str) -> list[int]:
        """The ids that a piece of another vocabulary is cut into; `▁` is a space."""
        return self._text.spell(piece)

    def spelling(self, number: int) -> str:
        """The text of a piece, `▁` for a space: "" for a byte that is no character by itself."""
        byte = self._bytes.get(number)
        if byte is None:
            return self.all_pieces[number]
        return "" if byte >= 0x80 else chr(byte).replace(" ", SPACE)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without `</s>`. Control words in it are text."""
        return self._text.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, computed on all cores."""
        if self.is_byte_level:
            return [self.encode(text) for text in texts]
        return [encoding.ids for encoding in self.encode_batch_with_library(texts)]

    def encode_batch_with_library(self, texts: Sequence[str]) -> list[Encoding]:
        """Texts as the tokenizers library encodes them, on all cores; for benchmarks."""
        return self._text.batch(texts)

    def bulk_encoder(self, dtype: np.dtype[np.unsignedinteger]) -> BulkEncoder:
        """A faster encoder for much text, with the ids of :meth:`encode` as the bytes of a `dtype` array."""
        return self._text.bulk_encoder(dtype)

    def encode_with_sentinels(self, text: str) -> list[int]:
        """Ids of a text in which `<extra_id_i>` marks a span to fill in, as in the inputs of training.

        White space before a sentinel is stripped: the space belongs to the first word of the span. Text after
        a sentinel starts a word only if it begins with white space: `rød<extra_id_0>grønn` has no `▁` before
        `grønn`. A vocabulary that keeps white space drops one space, and no new line.

        Raises:
          T5smithError: a sentinel is not in the vocabulary.
        """
        ids: list[int] = []
        end = 0
        for match in _TYPED_SENTINEL.finditer(text):
            start = match.start() if self._text.strips_left else match.end(1)
            ids += self._encode_part(text[end:start], first=end == 0)
            number, end = int(match[2]), match.end()
            if number >= len(self.sentinel_ids):
                last = f"<extra_id_{len(self.sentinel_ids) - 1}>"
                raise T5smithError(
                    f"{match[0].strip()} is not in the vocabulary", expected=f"<extra_id_0> to {last}"
                )
            ids.append(int(self.sentinel_ids[number]))
        return ids + self._encode_part(text[end:], first=end == 0)

    def _encode_part(self, text: str, first: bool) -> list[int]:
        """Ids of the text before or between sentinels; `first`: it begins the whole text."""
        return self.encode(text) if first else self._text.encode_continuation(text)

    def decode(self, ids: Sequence[int] | NDArray[Any], keep_sentinels: bool = True) -> str:
        """The normalized text of ids, without pad and eos, and with a space before each sentinel.

        A byte-level vocabulary adds no space, since there a space is a byte. One that keeps white space adds
        the one that encoding drops, but not at the beginning of a line, where nothing is dropped.
        """
        parts: list[str] = []
        for number, text in zip(ids, self.decode_each(ids), strict=True):
            sentinel = self._numbers.get(int(number))
            if self.is_text[int(number)]:
                parts.append(text)
            elif sentinel is not None and keep_sentinels:
                at_start = self.keeps_whitespace and (not parts or parts[-1].endswith(tuple(BREAKS)))
                space = "" if self.is_byte_level or at_start else " "
                parts.append(f"{space}<extra_id_{sentinel}>")
        if self.is_byte_level or self.keeps_whitespace:
            return "".join(parts)
        return re.sub(r" +(?= <extra_id_)", "", "".join(parts)).removeprefix(" ")

    def decode_each(self, ids: Sequence[int] | NDArray[Any]) -> list[str]:
        """The text that each id adds, with a space for `▁`; the names of control ids.

        The last byte of a character adds the character, the bytes before it nothing; invalid bytes add
        `\ufffd`.
        """
        numbers = [int(number) for number in ids]
        texts = [self.all_pieces[number].replace(SPACE, " ") for number in numbers]
        end = 0
        while end < len(numbers):
            start = end
            while end < len(numbers) and numbers[end] in self._bytes:
                end += 1
            if start < end:
                texts[start:end] = _characters(bytes(self._bytes[number] for number in numbers[start:end]))
            end += start == end
        return texts

    def token_bytes(self, number: int) -> bytes:
        """The UTF-8 bytes that an id adds, with a space for `▁`; the name of a control id."""
        byte = self._bytes.get(number)
        return self.all_pieces[number].replace(SPACE, " ").encode() if byte is None else bytes([byte])

    def readable_pieces(self, ids: Sequence[int] | NDArray[Any]) -> list[str]:
        """Each id's piece: an ASCII byte as its character, a space as `▁`, other white space as an escape."""
        return [self._readable_piece(int(number)) for number in ids]

    def _readable_piece(self, number: int) -> str:
        byte = self._bytes.get(number)
        if byte is None or not 0x20 <= byte < 0x7F:
            return visible(self.all_pieces[number])
        return SPACE if byte == 0x20 else chr(byte)

    def pieces(self, ids: Sequence[int] | NDArray[Any]) -> list[str]:
        """Each id's piece."""
        return [self.all_pieces[int(number)] for number in ids]

    def size_facts(self, control_symbols: int) -> dict[str, int]:
        """Numbers for the manifest: pieces without the recipe's control symbols, ids, sentinels."""
        return {
            "pieces": self.size - len(self.sentinel_ids) - control_symbols,
            "ids": self.size,
            "sentinels": len(self.sentinel_ids),
            "control_symbols": control_symbols,
        }

    def tree(self) -> tokenizer_json.TokenizerTree:
        """The tokenizer.json, parsed; the caller may change it."""
        return json.loads(self._json)

    @property
    def byte_ids(self) -> list[int]:
        """The ids of bytes, for characters without a piece; empty if they are unknown."""
        return sorted(self._bytes)

    def id_of(self, piece: str) -> int | None:
        """The id of a piece or control piece, or None."""
        return self._ids.get(piece)

    def sentinel_number(self, number: int) -> int | None:
        """The i of the `<extra_id_i>` with this id, or None."""
        return self._numbers.get(int(number))

    def save(self, folder: Path, model_max_length: int = 512) -> None:
        """Write a tokenizer folder that `AutoTokenizer` opens: same ids, `</s>` appended to each text.

        Its class is PreTrainedTokenizerFast, because transformers 5 rebuilds a tokenizer of class T5 with
        other ids.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tree = self.tree() | {
            "post_processor": tokenizer_json.append_eos(self.eos_id),
            "truncation": None,
            "padding": None,
        }
        standard = {self.pad_id, self.eos_id, self.unk_id, *self.sentinel_ids.tolist()}
        others = [int(number) for number in np.flatnonzero(~self.is_text) if number not in standard]
        names = [
            self.all_pieces[number] for number in (*self.sentinel_ids, *others) if self.all_pieces[number]
        ]
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": model_max_length,
            # transformers 4 adds token_type_ids by default, which T5's `generate` rejects.
            "model_input_names": ["input_ids", "attention_mask"],
            "pad_token": PAD,
            "eos_token": EOS,
            "unk_token": self.all_pieces[self.unk_id],
            "additional_special_tokens": names,
            "clean_up_tokenization_spaces": False,
        }
        for name, value in (("tokenizer.json", tree), ("tokenizer_config.json", config)):
            text = json.dumps(value, ensure_ascii=False, indent=None if name == "tokenizer.json" else 1)
            (folder / name).write_text(text + "\n", encoding="utf-8")


def _characters(data: bytes) -> list[str]:
    """For each byte the character that it completes, or an empty string."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = [decoder.decode(data[i : i + 1]) for i in range(len(data))]
    texts[-1] += decoder.decode(b"", final=True)
    return texts
