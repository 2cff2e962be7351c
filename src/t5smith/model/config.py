"""The sizes of a model."""

from __future__ import annotations

from dataclasses import dataclass

from t5smith.recipe.model import ModelSettings


@dataclass(frozen=True)
class ModelConfig:
    """A T5 1.1 encoder-decoder's sizes, hashable, so that compiled functions may depend on them.

    Attributes:
      vocab_size: rows of the embedding, rounded up from `real_vocab_size`.
      real_vocab_size: ids that exist. The rows above it are never predicted.
      d_model, d_kv, d_ff, num_heads: widths; d_kv is a head's.
      num_layers, num_decoder_layers: blocks of the encoder and the decoder.
      relative_attention_num_buckets, relative_attention_max_distance: of the position bias.
      tie_word_embeddings: the head is the embedding, its logits scaled by d_model^-0.5 (T5 1.0).
      gated: two input products, `gelu(x wi_0) * (x wi_1)` (T5 1.1), else `relu(x wi)` (T5 1.0).
      layer_norm_epsilon: added to the mean square under the root.
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

    @classmethod
    def create(cls, settings: ModelSettings, real_vocab_size: int) -> ModelConfig:
        """The recipe's sizes for a vocabulary of so many ids."""
        fields = settings.model_dump(exclude={"vocab_multiple"})
        rows = -(-real_vocab_size // settings.vocab_multiple) * settings.vocab_multiple
        return cls(vocab_size=rows, real_vocab_size=real_vocab_size, **fields)
