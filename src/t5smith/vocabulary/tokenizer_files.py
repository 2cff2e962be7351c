"""The file of a tokenizer: where it is in a folder, and its bytes, or what a wrong file is."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

from t5smith.base.errors import T5smithError
from t5smith.base.hub import download_first
from t5smith.recipe.symbols import SENTINELS
from t5smith.text.recognition import HEAD_BYTES, refusal
from t5smith.vocabulary.encoding import google_byte_tokenizer
from t5smith.vocabulary.sentencepiece import to_tokenizer_json
from t5smith.vocabulary.tokenizer_json import NAME_ONE, TokenizerTree, parse, with_sentinels

TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "sentencepiece.model", "tokenizer.model")
"""Files with a tokenizer; the first of them in a folder is read."""
MOST_SENTINELS = 100_000
TOKENIZER_CONFIG = "tokenizer_config.json"
"""All that a ByT5 has: the name of the class. It is read if there is no file with a tokenizer."""


def tokenizer_file(path: Path) -> Path:
    """The tokenizer's file in a folder or run folder; a file is returned as it is."""
    if not path.is_dir():
        return path
    found = (folder / name for folder in (path, path / "vocab") for name in TOKENIZER_FILES)
    byt5 = filter(is_byt5, [path / TOKENIZER_CONFIG])
    return next((file for file in (*filter(Path.is_file, found), *byt5)), path / TOKENIZER_FILES[0])


def is_byt5(config: Path) -> bool:
    """Whether a tokenizer_config.json names ByT5's bytes, which need no file of pieces."""
    try:
        return json.loads(config.read_text(encoding="utf-8"))["tokenizer_class"] == "ByT5Tokenizer"
    except (OSError, ValueError, TypeError, KeyError):
        return False


def parse_tokenizer_file(data: bytes, file: Path) -> TokenizerTree:
    """The bytes of a tokenizer's file as a tokenizer.json.

    A ByT5's has Google's sentinels, see :func:`t5smith.vocabulary.encoding.google_byte_tokenizer`.

    Raises:
      T5smithError: it is damaged, or no Unigram tokenizer.
    """
    if file.suffix == ".model":
        return to_tokenizer_json(data, file)
    if file.name == TOKENIZER_CONFIG and is_byt5(file):
        return google_byte_tokenizer()
    return parse(decompressed(data, file), file)


def with_own_sentinels(tree: TokenizerTree, file: Path) -> TokenizerTree:
    """Append the sentinels that the model of a tokenizer's file has, if the file has none."""
    return with_sentinels(tree, extra_ids(file))


def read_tokenizer_file(file: Path) -> bytes:
    """The bytes of a tokenizer's file.

    Raises:
      T5smithError: the file is missing, empty, of another kind, or cannot be read.
    """
    try:
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        expected = "a folder with a tokenizer.json or spiece.model, or that file"
        fix = None if file.parent.is_dir() else download_first(str(file))
        raise T5smithError("there is no tokenizer here", where=file, expected=expected, fix=fix) from None
    except OSError as error:
        raise T5smithError(f"cannot be read ({error.strerror})", where=file) from None
    if wrong := refusal(file, data[:HEAD_BYTES]):
        raise wrong
    return data


def extra_ids(file: Path) -> int:
    """Number of sentinels of a model: `extra_ids` of the tokenizer_config.json beside it, by default 100.

    Raises:
      T5smithError: they are too many.
    """
    try:
        config = json.loads((file.parent / "tokenizer_config.json").read_text(encoding="utf-8"))
        count = config["extra_ids"]
    except (OSError, ValueError, TypeError, KeyError):
        return SENTINELS
    if isinstance(count, int) and count > MOST_SENTINELS:
        raise T5smithError(
            f"extra_ids is {count:,}",
            where=file.parent / "tokenizer_config.json",
            expected=f"the number of sentinels, at most {MOST_SENTINELS:,}",
        )
    return count if isinstance(count, int) and count > 0 else SENTINELS


def decompressed(data: bytes, file: Path) -> str:
    """The text of a tokenizer.json or tokenizer.json.xz.

    Raises:
      T5smithError: the file is damaged.
    """
    try:
        return (lzma.decompress(data) if file.suffix == ".xz" else data).decode("utf-8")
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        raise T5smithError(
            f"damaged file, or no tokenizer.json ({error})",
            where=file,
            expected="a tokenizer.json",
            fix=NAME_ONE,
        ) from None
