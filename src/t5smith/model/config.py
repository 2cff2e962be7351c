"""The sizes of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from t5smith.recipe.model import ModelSettings

WORDS: dict[str, tuple[str, dict[str, bool]]] = {
    "gated": ("feed_forward", {"gated-gelu": True, "relu": False}),
    "bias_per_layer": ("relative_attention_bias", {"per-layer": True, "shared": False}),
}
"""The sizes that a recipe names by words: the setting, and what each word stands for."""


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a T5 encoder-decoder; hashable, so that it can be a static argument of `jax.jit`.

    Names and defaults are those of transformers' `T5Config`.

    Attributes:
      vocab_size: rows of the embedding: `real_vocab_size` rounded up.
      real_vocab_size: ids of the vocabulary. Rows above it are never predicted.
      d_model, d_kv, d_ff, num_heads: widths; d_kv is the width of one head.
      num_layers, num_decoder_layers: layers of the encoder and of the decoder.
      relative_attention_num_buckets, relative_attention_max_distance: of the position bias; the distance is
        in tokens.
      tie_word_embeddings: the head is the embedding, its logits scaled by d_model^-0.5 (T5 1.0).
      gated: the feed-forward is `gelu(x wi_0) * (x wi_1)` (T5 1.1), else `relu(x wi)` (T5 1.0).
      layer_norm_epsilon: added to the mean square under the root.
      bias_per_layer: each layer has a position bias of its own (UMT5), else the layers of a stack share one.
    """

    vocab_size: int
    real_vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    tie_word_embeddings: bool = False
    gated: bool = True
    layer_norm_epsilon: float = 1e-6
    bias_per_layer: bool = False

    @classmethod
    def create(cls, settings: ModelSettings, real_vocab_size: int) -> ModelConfig:
        """The sizes of a recipe, for a vocabulary of `real_vocab_size` ids."""
        named = {setting for setting, _ in WORDS.values()}
        fields: dict[str, Any] = settings.model_dump(exclude={"vocab_multiple", "size", *named})
        for field, (setting, words) in WORDS.items():
            fields[field] = words[getattr(settings, setting)]
        rows = -(-real_vocab_size // settings.vocab_multiple) * settings.vocab_multiple
        return cls(vocab_size=rows, real_vocab_size=real_vocab_size, **fields)
