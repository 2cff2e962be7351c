"""What happens to a text before it is cut into pieces, and where it is cut at once."""

from __future__ import annotations

import base64
import functools
import json
import lzma
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from t5smith.recipe.vocab import VocabSettings

SPACE = "▁"
"""Stands for a space in pieces."""
BUNDLED = Path(__file__).parent / "t5" / "tokenizer.json.xz"


def normalizer(settings: VocabSettings | None = None) -> normalizers.Normalizer:
    """NFKC or what the settings say, white space to single spaces, none at the end.

    `▁` stands for a space, so it becomes one. A leading space stays: it tells text after a sentinel that
    opens a word from text that does not.
    """
    settings = settings or VocabSettings()
    steps: list[normalizers.Normalizer] = []
    if settings.normalization == "nmt_nfkc":
        # The tokenizers library misreads the table's entries for letters in parts, so these are joined first.
        steps += [normalizers.NFC(), normalizers.Precompiled(_nmt_nfkc())]
    elif settings.normalization != "none":
        steps.append({"nfkc": normalizers.NFKC, "nfc": normalizers.NFC}[settings.normalization]())
    if settings.lowercase:
        steps.append(normalizers.Lowercase())
    spaces = normalizers.Replace(Regex(rf"[\s{SPACE}]+"), " ")
    return normalizers.Sequence([*steps, spaces, normalizers.Strip(left=False, right=True)])


@functools.cache
def normalizes_each_word(json_text: str) -> bool:
    """Whether a normaliser, as JSON, is one of ours that never reaches across white space."""
    ours = (
        VocabSettings(normalization=name, lowercase=lowercase)
        for name in ("nfkc", "nfc", "none")
        for lowercase in (False, True)
    )
    return json.loads(json_text) in [normalizer_json(normalizer(settings)) for settings in ours]


def normalizer_json(part: normalizers.Normalizer | None) -> Any:
    """A normaliser as it stands in a tokenizer.json."""
    from tokenizers import models

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = part  # pyright: ignore[reportAttributeAccessIssue]  # the stub does not know None
    return json.loads(tokenizer.to_str())["normalizer"]


@functools.cache
def _nmt_nfkc() -> bytes:
    """SentencePiece's table, as it stands in T5's own vocabulary."""
    tree = json.loads(lzma.decompress(BUNDLED.read_bytes()))
    steps = tree["normalizer"].get("normalizers", [tree["normalizer"]])
    table = next(step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled")
    return base64.b64decode(table)


def pre_tokenizer(settings: VocabSettings, scheme: str) -> pre_tokenizers.PreTokenizer:
    """Words, each with `▁` before it; digits apart if asked.

    Args:
      settings: say whether digits are split.
      scheme: `always`, or `first` for a `▁` only before what begins a text.
    """
    metaspace = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme)
    if not settings.split_digits:
        return metaspace
    return pre_tokenizers.Sequence([metaspace, pre_tokenizers.Digits(individual_digits=True)])
