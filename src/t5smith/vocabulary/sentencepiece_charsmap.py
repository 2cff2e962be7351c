"""SentencePiece's character map (`precompiled_charsmap`), applied as SentencePiece applies it.

The map replaces stretches of characters, the longest match first. The tokenizers library applies it to
grapheme clusters, and only to those shorter than six bytes: it does not compose か with a voicing mark, and
drops what follows ½ in a cluster.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from typing import Any

from t5smith.base.errors import T5smithError

CharacterMap = Callable[[str], str]


@functools.cache
def character_map(charsmap: bytes, source: object = "tokenizer.json") -> CharacterMap:
    """The function that applies a character map to a text; it does not change white space otherwise.

    Args:
      charsmap: `precompiled_charsmap` of a SentencePiece model or a tokenizer.json.
      source: the file, for messages.

    Raises:
      T5smithError: the map is damaged.
    """
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    schema: Any = sentencepiece_model_pb2
    model = schema.ModelProto()
    model.normalizer_spec.precompiled_charsmap = charsmap
    try:
        normalizer = sentencepiece.SentencePieceNormalizer(
            model_proto=model.SerializeToString(),
            add_dummy_prefix=False,
            escape_whitespaces=False,
            remove_extra_whitespaces=False,
        )
        normalizer.normalize("a")
    except RuntimeError:
        raise T5smithError(
            "the character map is damaged", where=source, expected="a precompiled_charsmap"
        ) from None
    return normalizer.normalize


def split_character_map(normalizer: Any, source: object) -> tuple[CharacterMap | None, Any]:
    """The character map that a tokenizer.json's normalizer begins with, and the rest of the normalizer."""
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer]
    if not steps or not steps[0] or steps[0]["type"] != "Precompiled":
        return None, normalizer
    charsmap = base64.b64decode(steps[0]["precompiled_charsmap"])
    rest = {"type": "Sequence", "normalizers": steps[1:]} if steps[1:] else None
    return character_map(charsmap, str(source)), rest
