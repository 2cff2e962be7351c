"""A vocabulary: text to ids and back, with the sentinels known by name and numbered as T5 numbers them.

A control word typed in text is text: `</s>` in a web page must not end a document. The tokenizers library
maps such words to control ids, so text goes through a second tokenizer that has the same pieces under the
same ids, but whose control pieces carry a space in their names, which no pre-tokenised text contains.
"""

from __future__ import annotations

import functools
import json
import lzma
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from t5smith.errors import T5smithError
from t5smith.vocab.normalizers import BUNDLED, SPACE, works_on_words
from t5smith.vocab.words import Words

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"

_SENTINEL = re.compile(rf"{SPACE}?<extra_id_(0|[1-9][0-9]*)>")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# White space as the tokenizers library sees it: unlike Python's it leaves out four ASCII separators.
_TYPED_SENTINEL = re.compile(r"[^\S\x1c-\x1f]*<extra_id_(0|[1-9][0-9]*)>")
_FIRST_WORD = re.compile(r"[\S\x1c-\x1f]*")


class Vocabulary:
    """A Unigram vocabulary with `</s>`, `<pad>`, `<unk>` and sentinels.

    Attributes:
      size: number of ids, sentinels included; every id is below it.
      pad_id, eos_id, unk_id: ids of the three control pieces.
      sentinel_ids: int32 (sentinels,); `sentinel_ids[i]` is the id of `<extra_id_i>`.
      piece_bytes: int32 (size,); UTF-8 bytes of normalised text each id stands for, 0 for control ids
        and `<unk>`. The `▁` that opens a word counts as the one byte of its space.
      is_text: bool (size,); neither pad, eos, sentinel nor another control id. `<unk>` is text.
    """

    def __init__(self, tokenizer_json: str, source: object = "tokenizer.json") -> None:
        tree = _parse(tokenizer_json, source)
        self._json = tokenizer_json
        self._pieces, control = _pieces_and_control(tree)
        ids = {piece: number for number, piece in enumerate(self._pieces)}
        self._ids = ids
        self.size = len(self._pieces)
        self.unk_id = _unk_id(tree, source)
        for name in (PAD, EOS):
            if ids.get(name, self.unk_id) == self.unk_id:
                raise T5smithError(f"the vocabulary has no {name}", where=source, expected=f"a piece {name}")
        self.pad_id, self.eos_id = ids[PAD], ids[EOS]
        sentinels = _sentinels(ids, self.unk_id, source)
        self.sentinel_ids: NDArray[np.int32] = np.array(sentinels, np.int32)
        self._numbers = {number: i for i, number in enumerate(sentinels)}

        control |= {self.pad_id, self.eos_id, *sentinels}
        control.discard(self.unk_id)
        self.is_text: NDArray[np.bool_] = np.ones(self.size, np.bool_)
        self.is_text[list(control)] = False
        self._bytes = _byte_pieces(tree, self._pieces)
        lengths = [len(piece.replace(SPACE, " ").encode()) for piece in self._pieces]
        for number in self._bytes:
            lengths[number] = 1
        self.piece_bytes: NDArray[np.int32] = np.where(self.is_text, lengths, 0).astype(np.int32)
        self.piece_bytes[self.unk_id] = 0
        for array in (self.sentinel_ids, self.is_text, self.piece_bytes):
            array.flags.writeable = False

        self._text = _text_tokenizer(tree, self._pieces, control | {self.unk_id}, source)

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read a folder with a tokenizer.json, or a tokenizer.json or tokenizer.json.xz itself.

        Raises:
          T5smithError: missing, not JSON, not a Unigram tokenizer, or no sentinels, `</s>`, `<pad>`.
        """
        file = Path(path)
        if file.is_dir():
            # A run folder has its tokenizer one floor down.
            file = next((f for f in (file, file / "vocab") if (f / "tokenizer.json").is_file()), file)
            file = file / "tokenizer.json"
        try:
            data = lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()
            return cls(data.decode("utf-8"), file)
        except (FileNotFoundError, NotADirectoryError):
            expected = "a folder with a tokenizer.json, or that file"
            raise T5smithError("there is no tokenizer here", where=file, expected=expected) from None
        except OSError as error:
            raise T5smithError(f"cannot be read ({error.strerror})", where=file) from None
        except (lzma.LZMAError, UnicodeDecodeError) as error:
            raise T5smithError(f"damaged file ({error})", where=file, expected="a tokenizer.json") from None

    @classmethod
    def bundled(cls) -> Vocabulary:
        """The original T5 vocabulary, which comes with t5smith. It has no æ, ø or å."""
        return cls.load(BUNDLED)

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without `</s>`. Control words in it are text."""
        return self._text.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, computed on all cores."""
        return [encoding.ids for encoding in self.tokenise(texts)]

    def tokenise(self, texts: Sequence[str]) -> list[Encoding]:
        """What the tokenizers library makes of texts on all cores, for those who time it."""
        return self._text.encode_batch_fast(list(texts), add_special_tokens=False)

    def words(self, dtype: np.dtype[np.unsignedinteger]) -> Words:
        """A table for much text, which gives ids as :meth:`encode` does, as bytes."""
        raw = works_on_words(json.dumps(json.loads(self._json).get("normalizer")))
        return Words(self._text, dtype, raw=raw)

    def encode_with_sentinels(self, text: str) -> list[int]:
        """Ids of text in which `<extra_id_i>` marks a gap to fill, as the model saw them in training.

        White space before a sentinel is dropped: a gap swallows the space that opens its first word.
        Text after it opens a word only if white space stands there: `rød<extra_id_0>grønn` has no `▁`
        before `grønn`.

        Raises:
          T5smithError: a sentinel that the vocabulary does not have.
        """
        ids: list[int] = []
        end = 0
        for match in _TYPED_SENTINEL.finditer(text):
            ids += self._stretch(text[end : match.start()], opens=end == 0)
            number, end = int(match[1]), match.end()
            if number >= len(self.sentinel_ids):
                last = f"<extra_id_{len(self.sentinel_ids) - 1}>"
                raise T5smithError(
                    f"{match[0].strip()} is not in the vocabulary", expected=f"<extra_id_0> to {last}"
                )
            ids.append(int(self.sentinel_ids[number]))
        return ids + self._stretch(text[end:], opens=end == 0)

    @functools.cached_property
    def _inside_word(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self._text.to_str())
        tokenizer.pre_tokenizer = _without_prefix(self._text)
        return tokenizer

    def _stretch(self, text: str, opens: bool) -> list[int]:
        """Ids of the text between two sentinels; `opens`: it begins the whole text."""
        if opens:
            return self.encode(text)
        word = cast(re.Match[str], _FIRST_WORD.match(text))[0]
        glued = self._inside_word.encode(word, add_special_tokens=False).ids if word else []
        return glued + self.encode(text[len(word) :])

    def decode(self, ids: Sequence[int] | NDArray[Any], keep_sentinels: bool = True) -> str:
        """The normalised text of ids; pad and eos are dropped, a sentinel is set off by a space before it."""
        parts: list[str] = []
        held = bytearray()
        for number in ids:
            sentinel = self._numbers.get(int(number))
            if (byte := self._bytes.get(int(number))) is not None:
                held.append(byte)
                continue
            parts.append(held.decode("utf-8", "replace"))
            held.clear()
            if self.is_text[int(number)]:
                parts.append(self._pieces[int(number)].replace(SPACE, " "))
            elif sentinel is not None and keep_sentinels:
                parts.append(f" <extra_id_{sentinel}>")
        parts.append(held.decode("utf-8", "replace"))
        return re.sub(r" +(?= <extra_id_)", "", "".join(parts)).removeprefix(" ")

    def pieces(self, ids: Sequence[int] | NDArray[Any]) -> list[str]:
        """The piece behind each id, `▁` and control pieces as they are."""
        return [self._pieces[int(number)] for number in ids]

    def named(self, piece: str) -> int | None:
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
        tree["post_processor"] = _append_eos(self.eos_id)
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


def _parse(text: str, source: object) -> dict[str, Any]:
    try:
        tree = json.loads(text)
        model = tree["model"]
        kind = model["type"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise T5smithError(
            f"not a tokenizer.json ({error})", where=source, expected="a tokenizer.json"
        ) from None
    if kind != "Unigram":
        raise T5smithError(f"a tokenizer of type {kind}", where=source, expected="Unigram, as T5's")
    return tree


def _pieces_and_control(tree: dict[str, Any]) -> tuple[list[str], set[int]]:
    """Every piece by id, and the ids that the file calls special. An id without a piece is control."""
    pieces: list[str | None] = [piece for piece, _ in tree["model"]["vocab"]]
    control: set[int] = set()
    for token in tree.get("added_tokens", []):
        pieces += [None] * (token["id"] + 1 - len(pieces))
        pieces[token["id"]] = token["content"]
        if token["special"]:
            control.add(token["id"])
    control |= {number for number, piece in enumerate(pieces) if piece is None}
    return [piece or "" for piece in pieces], control


def _byte_pieces(tree: dict[str, Any], pieces: Sequence[str]) -> dict[int, int]:
    """The byte behind each id that stands for one, if the tokenizer writes unknown characters as bytes."""
    if not tree["model"].get("byte_fallback"):
        return {}
    return {
        number: int(match[1], 16) for number, piece in enumerate(pieces) if (match := _BYTE.fullmatch(piece))
    }


def _unk_id(tree: dict[str, Any], source: object) -> int:
    unk = tree["model"].get("unk_id")
    if unk is None:
        raise T5smithError(
            "the vocabulary has no unknown piece", where=source, expected=f"unk_id, the id of {UNK}"
        )
    return unk


def _sentinels(ids: dict[str, int], unk_id: int, source: object) -> list[int]:
    """Ids of `<extra_id_0>`, `<extra_id_1>`, …, looked up by name: their order is the file's own affair."""
    found = {int(match[1]): number for piece, number in ids.items() if (match := _SENTINEL.fullmatch(piece))}
    plain = {i: number for i in found if (number := ids.get(f"<extra_id_{i}>")) is not None}
    found |= plain
    expected = "pieces <extra_id_0>, <extra_id_1>, …"
    if not found:
        fix = "use a tokenizer made for T5, or train one with `t5smith vocab`"
        raise T5smithError("the vocabulary has no sentinels", where=source, expected=expected, fix=fix)
    for i in range(max(found) + 1):
        if found.get(i, unk_id) == unk_id:
            raise T5smithError(
                f"<extra_id_{i}> is missing", where=source, expected=f"{expected} without a gap"
            )
    return [found[i] for i in range(len(found))]


def _text_tokenizer(tree: dict[str, Any], pieces: list[str], control: set[int], source: object) -> Tokenizer:
    """The tokenizer without its control words: same ids, but nothing in a text matches a control piece."""
    tree = json.loads(json.dumps(tree))
    if _metaspace(tree.get("pre_tokenizer")) is None:
        raise T5smithError(
            "no Metaspace pre-tokenizer", where=source, expected=f"one that writes spaces as {SPACE}"
        )
    table = tree["model"]["vocab"]
    for number in control:
        if number < len(table):
            # Metaspace turns every space into ▁, so a piece with a space in it can never be matched.
            table[number][0] = f" {number} {pieces[number]}"
    tree["added_tokens"] = [t for t in tree.get("added_tokens", []) if t["id"] not in control]
    tree["post_processor"] = tree["truncation"] = tree["padding"] = None
    try:
        return Tokenizer.from_str(json.dumps(tree))
    except Exception as error:  # the library raises bare Exception
        raise T5smithError(f"not a usable tokenizer.json ({error})", where=source) from None


def _metaspace(node: Any) -> dict[str, Any] | None:
    """The Metaspace entry in a pre-tokenizer's JSON, alone or in a sequence."""
    if not node:
        return None
    if node["type"] == "Sequence":
        return next(filter(None, map(_metaspace, node["pretokenizers"])), None)
    return node if node["type"] == "Metaspace" else None


def _without_prefix(tokenizer: Tokenizer) -> Any:
    """The tokenizer's pre-tokenizer, except that it puts no ▁ before a text that has no space there."""
    tree = json.loads(tokenizer.to_str())
    cast(dict[str, Any], _metaspace(tree["pre_tokenizer"]))["prepend_scheme"] = "never"
    return Tokenizer.from_str(json.dumps(tree)).pre_tokenizer


def _append_eos(eos_id: int) -> dict[str, Any]:
    """A post-processor that puts `</s>` after each text, as T5's does."""
    eos = {"SpecialToken": {"id": EOS, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [first, eos],
        "pair": [first, eos, second, eos],
        "special_tokens": {EOS: {"id": EOS, "ids": [eos_id], "tokens": [EOS]}},
    }
