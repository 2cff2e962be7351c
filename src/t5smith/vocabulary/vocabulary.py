"""A vocabulary: text to ids and back, with the sentinels known by name and numbered as T5 numbers them."""

from __future__ import annotations

import codecs
import json
import lzma
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from t5smith.base.errors import T5smithError
from t5smith.recipe.symbols import SENTINELS
from t5smith.vocabulary import sentencepiece as spiece
from t5smith.vocabulary import tokenizer_json as trees
from t5smith.vocabulary.encoding import Bytes, Pieces, Table, is_byte_level
from t5smith.vocabulary.normalizers import BUNDLED, SPACE
from t5smith.vocabulary.tokenizer_json import EOS, PAD, UNK

__all__ = ["BUNDLED", "EOS", "FILES", "PAD", "SPACE", "UNK", "Vocabulary"]

FILES = ("tokenizer.json", "spiece.model", "sentencepiece.model", "tokenizer.model")
"""What a folder with a tokenizer has in it; the first that is there is read."""

# White space as the tokenizers library sees it: unlike Python's it leaves out four ASCII separators.
_TYPED_SENTINEL = re.compile(r"([^\S\x1c-\x1f]*)<extra_id_(0|[1-9][0-9]*)>")


class Vocabulary:
    """A vocabulary of pieces or of bytes, with `</s>`, `<pad>`, `<unk>` and sentinels.

    Attributes:
      size: number of ids, sentinels included; every id is below it.
      pad_id, eos_id, unk_id: ids of the three control pieces.
      sentinel_ids: int32 (sentinels,); `sentinel_ids[i]` is the id of `<extra_id_i>`.
      piece_bytes: int32 (size,); UTF-8 bytes of normalised text each id stands for, 0 for control ids
        and `<unk>`. The `▁` that opens a word counts as the one byte of its space.
      is_text: bool (size,); neither pad, eos, sentinel nor another control id. `<unk>` is text.
      is_byte_level: whether every byte of a text is an id of its own, as in ByT5.
    """

    def __init__(self, tokenizer_json: str, source: object = "tokenizer.json") -> None:
        tree = trees.parse(tokenizer_json, source)
        self._json = tokenizer_json
        self._pieces, control = trees.pieces_and_control(tree)
        ids = {piece: number for number, piece in enumerate(self._pieces)}
        self._ids = ids
        self.size = len(self._pieces)
        self.unk_id = trees.unk_id(tree, source)
        self.pad_id, self.eos_id = trees.control_ids(ids, self.unk_id, source)
        sentinels = trees.sentinels(ids, self.unk_id, source)
        self.sentinel_ids: NDArray[np.int32] = np.array(sentinels, np.int32)
        self._numbers = {number: i for i, number in enumerate(sentinels)}

        control |= {self.pad_id, self.eos_id, *sentinels}
        control.discard(self.unk_id)
        self.is_text: NDArray[np.bool_] = np.ones(self.size, np.bool_)
        self.is_text[list(control)] = False
        self._bytes = trees.byte_pieces(tree, self._pieces)
        lengths = [len(piece.replace(SPACE, " ").encode()) for piece in self._pieces]
        for number in self._bytes:
            lengths[number] = 1
        self.piece_bytes: NDArray[np.int32] = np.where(self.is_text, lengths, 0).astype(np.int32)
        self.piece_bytes[self.unk_id] = 0
        for array in (self.sentinel_ids, self.is_text, self.piece_bytes):
            array.flags.writeable = False

        no_text = control | {self.unk_id}
        self.is_byte_level = is_byte_level(tree, self._bytes, self.is_text, self.unk_id)
        self._text: Pieces | Bytes = (
            Bytes(tree, self._pieces, no_text, self._bytes, source)
            if self.is_byte_level
            else Pieces(tree, self._pieces, no_text, source)
        )

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read a folder with a tokenizer, or a tokenizer.json, tokenizer.json.xz or SentencePiece model.

        A SentencePiece model without sentinels gets T5's hundred, or what :func:`extra_ids` says.

        Raises:
          T5smithError: missing, damaged, not a Unigram tokenizer, or no sentinels, `</s>`, `<pad>`.
        """
        file = tokenizer_file(Path(path))
        data = read(file)
        if file.suffix == ".model":
            tree = trees.with_sentinels(spiece.tree(data, file), extra_ids(file))
            return cls(json.dumps(tree), file)
        return cls(text_of(data, file), file)

    @classmethod
    def bundled(cls) -> Vocabulary:
        """The original T5 vocabulary, which comes with t5smith. It has no æ, ø or å."""
        return cls.load(BUNDLED)

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without `</s>`. Control words in it are text."""
        return self._text.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, computed on all cores."""
        if self.is_byte_level:
            return [self.encode(text) for text in texts]
        return [encoding.ids for encoding in self.encode_batch_with_library(texts)]

    def encode_batch_with_library(self, texts: Sequence[str]) -> list[Encoding]:
        """What the tokenizers library makes of texts on all cores, for those who time it."""
        return self._text.batch(texts)

    def bulk_encoder(self, dtype: np.dtype[np.unsignedinteger]) -> Table:
        """A table for much text, which gives ids as :meth:`encode` does, as bytes."""
        return self._text.bulk_encoder(dtype)

    def encode_with_sentinels(self, text: str) -> list[int]:
        """Ids of text in which `<extra_id_i>` marks a gap to fill, as the model saw them in training.

        White space before a sentinel is dropped: a gap strips_left the space that opens its first word.
        Text after it opens a word only if white space stands there: `rød<extra_id_0>grønn` has no `▁`
        before `grønn`.

        Raises:
          T5smithError: a sentinel that the vocabulary does not have.
        """
        ids: list[int] = []
        end = 0
        for match in _TYPED_SENTINEL.finditer(text):
            start = match.start() if self._text.strips_left else match.end(1)
            ids += self._stretch(text[end:start], opens=end == 0)
            number, end = int(match[2]), match.end()
            if number >= len(self.sentinel_ids):
                last = f"<extra_id_{len(self.sentinel_ids) - 1}>"
                raise T5smithError(
                    f"{match[0].strip()} is not in the vocabulary", expected=f"<extra_id_0> to {last}"
                )
            ids.append(int(self.sentinel_ids[number]))
        return ids + self._stretch(text[end:], opens=end == 0)

    def _stretch(self, text: str, opens: bool) -> list[int]:
        """Ids of the text between two sentinels; `opens`: it begins the whole text."""
        return self.encode(text) if opens else self._text.encode_continuation(text)

    def decode(self, ids: Sequence[int] | NDArray[Any], keep_sentinels: bool = True) -> str:
        """The normalised text of ids; pad and eos are dropped, a sentinel is set off by a space before it.

        In a vocabulary of bytes nothing is added: a space there is a byte.
        """
        parts: list[str] = []
        for number, text in zip(ids, self.decode_each(ids), strict=True):
            sentinel = self._numbers.get(int(number))
            if self.is_text[int(number)]:
                parts.append(text)
            elif sentinel is not None and keep_sentinels:
                parts.append(f"<extra_id_{sentinel}>" if self.is_byte_level else f" <extra_id_{sentinel}>")
        if self.is_byte_level:
            return "".join(parts)
        return re.sub(r" +(?= <extra_id_)", "", "".join(parts)).removeprefix(" ")

    def decode_each(self, ids: Sequence[int] | NDArray[Any]) -> list[str]:
        """What each id adds to the text, a space for `▁`; control ids by their names.

        Of the bytes of one character the last has it and the others nothing; bytes that make none are
        `\ufffd`.
        """
        numbers = [int(number) for number in ids]
        texts = [self._pieces[number].replace(SPACE, " ") for number in numbers]
        end = 0
        while end < len(numbers):
            start = end
            while end < len(numbers) and numbers[end] in self._bytes:
                end += 1
            if start < end:
                texts[start:end] = _characters(bytes(self._bytes[number] for number in numbers[start:end]))
            end += start == end
        return texts

    def readable_pieces(self, ids: Sequence[int] | NDArray[Any]) -> list[str]:
        """Each id for a person: its piece; a byte of ASCII as the character it is, a space as `▁`."""
        return [self._readable_piece(int(number)) for number in ids]

    def _readable_piece(self, number: int) -> str:
        byte = self._bytes.get(number)
        if byte is None or not 0x20 <= byte < 0x7F:
            return self._pieces[number]
        return SPACE if byte == 0x20 else chr(byte)

    def pieces(self, ids: Sequence[int] | NDArray[Any]) -> list[str]:
        """The piece behind each id, `▁` and control pieces as they are."""
        return [self._pieces[int(number)] for number in ids]

    def id_of(self, piece: str) -> int | None:
        """The id of a piece by its exact name, control pieces too, or None."""
        return self._ids.get(piece)

    def sentinel_number(self, number: int) -> int | None:
        """The i of `<extra_id_i>` whose id this is, or None."""
        return self._numbers.get(int(number))

    def save(self, folder: Path, model_max_length: int = 512) -> None:
        """Write a tokenizer folder that `AutoTokenizer` opens, with the same ids and `</s>` at the end.

        The class is named PreTrainedTokenizerFast because transformers 5 takes a tokenizer of class T5
        apart and builds it anew, with other ids.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tree = json.loads(self._json)
        tree["post_processor"] = trees.append_eos(self.eos_id)
        tree["truncation"] = tree["padding"] = None
        named = {self.pad_id, self.eos_id, self.unk_id, *self.sentinel_ids.tolist()}
        others = [int(number) for number in np.flatnonzero(~self.is_text) if number not in named]
        names = [self._pieces[number] for number in (*self.sentinel_ids, *others) if self._pieces[number]]
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": model_max_length,
            "pad_token": PAD,
            "eos_token": EOS,
            "unk_token": self._pieces[self.unk_id],
            "additional_special_tokens": names,
            "clean_up_tokenization_spaces": False,
        }
        for name, value in (("tokenizer.json", tree), ("tokenizer_config.json", config)):
            text = json.dumps(value, ensure_ascii=False, indent=None if name == "tokenizer.json" else 1)
            (folder / name).write_text(text + "\n", encoding="utf-8")


def _characters(data: bytes) -> list[str]:
    """For each byte the character that it completes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = [decoder.decode(data[at : at + 1]) for at in range(len(data))]
    texts[-1] += decoder.decode(b"", final=True)
    return texts


def tokenizer_file(path: Path) -> Path:
    """The file with the tokenizer of a folder, or of the run folder that it may be; a file is itself."""
    if not path.is_dir():
        return path
    # A run folder has its tokenizer one floor down.
    found = (folder / name for folder in (path, path / "vocab") for name in FILES)
    return next((file for file in found if file.is_file()), path / FILES[0])


def read(file: Path) -> bytes:
    """The bytes of a tokenizer's file.

    Raises:
      T5smithError: it is not there, or cannot be read.
    """
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        expected = "a folder with a tokenizer.json or spiece.model, or that file"
        raise T5smithError("there is no tokenizer here", where=file, expected=expected) from None
    except OSError as error:
        raise T5smithError(f"cannot be read ({error.strerror})", where=file) from None


def extra_ids(file: Path) -> int:
    """How many sentinels belong to a model: `extra_ids` in a tokenizer_config.json there, or T5's 100."""
    try:
        config = json.loads((file.parent / "tokenizer_config.json").read_text(encoding="utf-8"))
        count = config["extra_ids"]
    except (OSError, ValueError, TypeError, KeyError):
        return SENTINELS
    return count if isinstance(count, int) and count > 0 else SENTINELS


def text_of(data: bytes, file: Path) -> str:
    """The text of a tokenizer.json, which may be compressed.

    Raises:
      T5smithError: it is damaged.
    """
    try:
        return (lzma.decompress(data) if file.suffix == ".xz" else data).decode("utf-8")
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        raise T5smithError(f"damaged file ({error})", where=file, expected="a tokenizer.json") from None
