"""The published sizes of T5, by name.

Source: the published configurations, `config.json` on the Hugging Face Hub (google-t5/t5-*, google/t5-v1_1-*,
google/mt5-*, google/umt5-*, google/byt5-*) and T5X's gin files. All have 32 buckets of position biases, up to
a distance of 128. mT5 and UMT5 have the layers of T5 1.1, UMT5 with a position bias in each.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

SizeName = Literal[
    "t5-small",
    "t5-base",
    "t5-large",
    "t5-3b",
    "t5-11b",
    "t5-v1.1-small",
    "t5-v1.1-base",
    "t5-v1.1-large",
    "t5-v1.1-xl",
    "t5-v1.1-xxl",
    "mt5-small",
    "mt5-base",
    "mt5-large",
    "mt5-xl",
    "mt5-xxl",
    "umt5-small",
    "umt5-base",
    "umt5-xl",
    "umt5-xxl",
    "byt5-small",
    "byt5-base",
    "byt5-large",
    "byt5-xl",
    "byt5-xxl",
]

# d_model, d_ff, d_kv, encoder layers, decoder layers, heads.
_NUMBERS = {
    "t5-small": (512, 2048, 64, 6, 6, 8),
    "t5-base": (768, 3072, 64, 12, 12, 12),
    "t5-large": (1024, 4096, 64, 24, 24, 16),
    "t5-3b": (1024, 16384, 128, 24, 24, 32),
    "t5-11b": (1024, 65536, 128, 24, 24, 128),
    "t5-v1.1-small": (512, 1024, 64, 8, 8, 6),
    "t5-v1.1-base": (768, 2048, 64, 12, 12, 12),
    "t5-v1.1-large": (1024, 2816, 64, 24, 24, 16),
    "t5-v1.1-xl": (2048, 5120, 64, 24, 24, 32),
    "t5-v1.1-xxl": (4096, 10240, 64, 24, 24, 64),
    "byt5-small": (1472, 3584, 64, 12, 4, 6),
    "byt5-base": (1536, 3968, 64, 18, 6, 12),
    "byt5-large": (1536, 3840, 64, 36, 12, 16),
    "byt5-xl": (2560, 6720, 64, 36, 12, 32),
    "byt5-xxl": (4672, 12352, 64, 36, 12, 64),
}
_NAMES = ("d_model", "d_ff", "d_kv", "num_layers", "num_decoder_layers", "num_heads")


def _settings(name: str) -> dict[str, Any]:
    numbers = _NUMBERS[name.removeprefix("u").replace("mt5-", "t5-v1.1-")]
    first = name.startswith("t5-") and not name.startswith("t5-v1.1-")
    return {
        **dict(zip(_NAMES, numbers, strict=True)),
        "feed_forward": "relu" if first else "gated-gelu",
        "tie_word_embeddings": first,
        "relative_attention_bias": "per-layer" if name.startswith("umt5-") else "shared",
    }


SIZES: dict[str, dict[str, Any]] = {name: _settings(name) for name in get_args(SizeName)}
"""The settings of `[model]` that each size stands for."""
