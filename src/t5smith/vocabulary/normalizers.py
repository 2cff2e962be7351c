"""Normalization, the first cut of a text into words, and the characters that a vocabulary needs as pieces."""

from __future__ import annotations

import base64
import functools
import json
import lzma
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from t5smith.base.errors import T5smithError
from t5smith.recipe.vocab import VocabSettings
from t5smith.vocabulary import white_space
from t5smith.vocabulary.white_space import SPACE

__all__ = ["BUNDLED", "SPACE", "UNK"]

UNK = "<unk>"
BUNDLED = Path(__file__).parent / "t5" / "tokenizer.json.xz"
"""T5's own vocabulary."""
BYTE_NAME_CHARACTERS = "<0x123456789ABCDEF>"
"""With byte fallback these are pieces too, so that `<0x41>` typed in a text is never read as the byte."""


def normalizer(
    settings: VocabSettings | None = None, *, drop_last_space: bool = True
) -> normalizers.Normalizer:
    """NFKC or what the settings select, then runs of white space to one space, none at the end.

    `▁` stands for a space, so it becomes one. A leading space stays: after a sentinel it shows that the text
    starts a new word. For `keep_whitespace` see :mod:`t5smith.vocabulary.white_space`, whose last
    space may stay too.
    """
    settings = settings or VocabSettings()
    steps: list[normalizers.Normalizer] = []
    if settings.unknown_words:
        # Also for <unk> itself: by this step a tokenizer.json tells that it is a word of the text.
        steps += [normalizers.Replace(word, UNK) for word in dict.fromkeys((UNK, *settings.unknown_words))]
    if settings.normalization == "nmt_nfkc":
        # The tokenizers library misreads the table for decomposed letters, so they are composed first.
        steps += [normalizers.NFC(), normalizers.Precompiled(_nmt_nfkc())]
    elif settings.normalization != "none":
        steps.append({"nfkc": normalizers.NFKC, "nfc": normalizers.NFC}[settings.normalization]())
    if settings.lowercase:
        steps.append(normalizers.Lowercase())
    if settings.keep_whitespace:
        return normalizers.Sequence([*steps, *white_space.normalizer_steps(drop_last=drop_last_space)])
    spaces = normalizers.Replace(Regex(rf"[\s{SPACE}]+"), " ")
    return normalizers.Sequence([*steps, spaces, normalizers.Strip(left=False, right=True)])


@functools.cache
def normalizes_each_word(json_text: str) -> VocabSettings | None:
    """Settings whose normalizer is this one, as JSON, and never reaches across white space, or None."""
    candidates = (
        VocabSettings(normalization=name, lowercase=lowercase, keep_whitespace=keep)
        for name in ("nfkc", "nfc", "none")
        for lowercase in (False, True)
        for keep in (False, True)
    )
    tree = json.loads(json_text)
    if tree and tree["type"] == "Sequence":
        tree["normalizers"] = [step for step in tree["normalizers"] if not replaces_word(step)]
    return next((one for one in candidates if tree == normalizer_json(normalizer(one))), None)


def replaces_word(step: Mapping[str, Any]) -> bool:
    """Whether a normalizer step replaces a word, as those for `vocab.unknown_words`."""
    word = step.get("pattern", {}).get("String", "")
    return step["type"] == "Replace" and bool(word) and not any(map(str.isspace, word + step["content"]))


def normalizer_json(part: normalizers.Normalizer | None) -> Any:
    """A normalizer as a tokenizer.json holds it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = part  # pyright: ignore[reportAttributeAccessIssue]  # None is missing in the stub
    return json.loads(tokenizer.to_str())["normalizer"]


@functools.cache
def _nmt_nfkc() -> bytes:
    """SentencePiece's character map nmt_nfkc, taken from T5's own vocabulary."""
    tree = json.loads(lzma.decompress(BUNDLED.read_bytes()))
    steps = tree["normalizer"].get("normalizers", [tree["normalizer"]])
    charsmap = next(step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled")
    return base64.b64decode(charsmap)


def symbol_pattern(settings: VocabSettings) -> str:
    """A regular expression, of Python and of the tokenizers library, for user symbols in normalized text.

    With `vocab.unknown_words` it also matches `<unk>`, which these words become. It is empty without symbols.

    Of several symbols that begin at the same place it matches the longest.
    """
    names = dict.fromkeys(settings.user_symbols) | ({UNK: None} if settings.unknown_words else {})
    longest_first = sorted(names, key=len, reverse=True)
    return "|".join(map(re.escape, longest_first))


def check_symbols_survive(settings: VocabSettings) -> None:
    """Check that no user symbol is changed before it is looked up.

    Raises:
      T5smithError: normalization or lowercasing changes a symbol, so that no text would be encoded as it.
    """
    normal = normalizer(settings)
    for name in settings.user_symbols:
        if (changed := normal.normalize_str(name)) != name:
            raise T5smithError(
                f"{name!r} cannot be used: normalization turns it into {changed!r}",
                where="vocab.user_symbols",
                expected="a symbol that normalization leaves unchanged",
                fix=f"write it as {changed!r}, or change vocab.normalization or vocab.lowercase",
            )


def pre_tokenizer(
    settings: VocabSettings, prepend_scheme: str, *, without_symbols: bool = False
) -> pre_tokenizers.PreTokenizer:
    """Cut before each space, which becomes `▁`; with `split_digits` also around each digit.

    Args:
      settings: for `split_digits`, `user_symbols` and `keep_whitespace`.
      prepend_scheme: `always` puts `▁` before each stretch of text, `first` only before the beginning of the
        text. With `keep_whitespace` nothing is prepended.
      without_symbols: cut at user symbols and remove them, so that no piece is learned across one; also
        remove long runs of white space.
    """
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Metaspace(SPACE, prepend_scheme=prepend_scheme)
    ]
    symbols = symbol_pattern(settings)
    if settings.keep_whitespace:
        steps = white_space.pre_tokenizer_steps(for_training=without_symbols, symbols=symbols)
    elif symbols and without_symbols:
        steps.append(pre_tokenizers.Split(Regex(symbols), "removed"))
    if settings.split_digits and any(map(str.isnumeric, "".join(settings.user_symbols))):
        # A digit within a symbol stays there.
        steps.append(pre_tokenizers.Split(Regex(rf"{symbols}|\p{{N}}"), "isolated"))
    elif settings.split_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


def always_pieces(settings: VocabSettings) -> list[str]:
    """Characters that are pieces even if the text does not have them."""
    return [
        *(BYTE_NAME_CHARACTERS if settings.byte_fallback else ()),
        *(SPACE + white_space.BREAKS if settings.keep_whitespace else ()),
    ]


def alphabet(text: Iterable[str], settings: VocabSettings) -> set[str]:
    """The different characters of a text after normalization, `▁` for a space: each needs a piece.

    Characters that occur only in user symbols need none.
    """
    normal = normalizer(settings)
    symbols = symbol_pattern(settings)
    characters = {SPACE, *always_pieces(settings)}
    for part in text:
        normalized = normal.normalize_str(part)
        characters.update(re.sub(symbols, "", normalized) if symbols else normalized)
    return characters - {" "}


def size_error(text: Iterable[str], settings: VocabSettings) -> T5smithError:
    """The error for a `vocab.size` below the number of different characters; names the smallest size."""
    parts = [(len(alphabet(text, settings)), "different characters"), (3, "control pieces")]
    if settings.byte_fallback:
        parts.append((256, "bytes"))
    if settings.user_symbols:
        parts.append((len(settings.user_symbols), "user symbols"))
    needed = sum(number for number, _ in parts)
    details = ", ".join(f"{number:,} {what}" for number, what in parts)
    return T5smithError(
        f"{settings.size:,} pieces are too few: each different character of the text needs one",
        where="vocab.size",
        expected=f"{needed:,} or more: {details}",
        fix="raise vocab.size, or remove text in foreign scripts, or drop the rarest characters with "
        "vocab.character_coverage = 0.9995 (vocab.byte_fallback then writes them as bytes)",
    )
