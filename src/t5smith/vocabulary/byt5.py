"""ByT5's vocabulary: bytes are ids. Control ids come first, sentinels last, as in transformers."""

from __future__ import annotations

from t5smith.vocabulary.encoding import BYTE_BY_BYTE
from t5smith.vocabulary.tokenizer_json import EOS, PAD, UNK, Tree, added

BYTE_SENTINELS = 125
"""As many as transformers' ByT5Tokenizer has, whose ids they have: `<extra_id_i>` is 259 + i."""
_CONTROL = (PAD, EOS, UNK)


def tree() -> Tree:
    """A tokenizer.json, as a tree: byte b has the id b + 3, in text of every kind and without a prefix."""
    sentinels = [f"<extra_id_{i}>" for i in range(BYTE_SENTINELS)]
    names = [*_CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *sentinels]
    special = [number for number, name in enumerate(names) if name in _CONTROL or name in sentinels]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(number, names[number]) for number in special],
        "normalizer": None,
        # Characters apart, for the name of a byte in a text is text.
        "pre_tokenizer": BYTE_BY_BYTE,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "Unigram",
            "unk_id": _CONTROL.index(UNK),
            "vocab": [[name, 0.0] for name in names],
            "byte_fallback": True,
        },
    }
