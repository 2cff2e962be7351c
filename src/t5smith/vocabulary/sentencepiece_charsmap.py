"""SentencePiece's table of characters, read as SentencePiece reads it.

The table says what stretches of characters become: the longest that begins at a place goes first. The
tokenizers library reads the same table by what a person sees as one character, and only where that has
fewer than six bytes: it leaves か and a voicing mark apart, and drops what follows ½ in one character.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from typing import Any

from t5smith.base.errors import T5smithError

CharacterMap = Callable[[str], str]


@functools.cache
def character_map(table: bytes, source: object = "tokenizer.json") -> CharacterMap:
    """What a table makes of a text, white space as it is.

    Args:
      table: `precompiled_charsmap` of a SentencePiece model or a tokenizer.json.
      source: the file, for messages.

    Raises:
      T5smithError: it is damaged.
    """
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    schema: Any = sentencepiece_model_pb2
    model = schema.ModelProto()
    model.normalizer_spec.precompiled_charsmap = table
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
            "the table of characters is damaged", where=source, expected="a precompiled_charsmap"
        ) from None
    return normalizer.normalize


def of_tree(normalizer: Any, source: object) -> tuple[CharacterMap | None, Any]:
    """The table that a tokenizer.json's normaliser begins with, and the normaliser without it."""
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer]
    if not steps or not steps[0] or steps[0]["type"] != "Precompiled":
        return None, normalizer
    table = base64.b64decode(steps[0]["precompiled_charsmap"])
    rest = steps[1:]
    return character_map(table, str(source)), {"type": "Sequence", "normalizers": rest} if rest else None
