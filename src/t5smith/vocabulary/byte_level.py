"""ByT5's vocabulary, byte b as the id b + 3, as a tokenizer.json; two mappings of its sentinels."""

from __future__ import annotations

from t5smith.vocabulary.encoding import BYTE_BY_BYTE, IN_UTF8
from t5smith.vocabulary.tokenizer_json import CONTROL, UNK, TokenizerTree, control_token

BYTE_SENTINELS = 125
"""Sentinels of ByT5, as in transformers' ByT5Tokenizer; `<extra_id_i>` has the same id, 259 + i."""


def byte_tokenizer() -> TokenizerTree:
    """Bytes, then 125 sentinels from 259 upward: the ids of transformers' ByT5Tokenizer."""
    return _tree(256, [f"<extra_id_{i}>" for i in range(BYTE_SENTINELS)])


def google_byte_tokenizer() -> TokenizerTree:
    """Bytes with the sentinels that Google's ByT5 was trained with: `<extra_id_i>` is the id 258 - i.

    There seqio counts sentinels down from the last id of its 259, so they are ids of bytes. Of these only the
    11 that never occur in UTF-8 are sentinels here, 0xF5 to 0xFF, and no id has two meanings: Google's
    inputs of 1,024 bytes, with spans of 20, have at most 9. (seqio's ByteVocabulary, t5's
    preprocessors.sentinel_id; transformers' page on ByT5 masks with 258, 257 and 256 too)
    """
    return _tree(IN_UTF8, [f"<extra_id_{i}>" for i in reversed(range(256 - IN_UTF8))])


def _tree(bytes_: int, sentinels: list[str]) -> TokenizerTree:
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
