"""The sizes of the model: the table `[model]`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import Positive, Settings


class ModelSettings(Settings):
    """The sizes of a T5 1.1 encoder-decoder; the defaults are T5-v1.1-small's."""

    section: ClassVar[str] = "model"

    d_model: Positive = 512
    """Width of the embeddings and of the hidden states between layers."""
    d_kv: Positive = 64
    """Width of an attention head."""
    d_ff: Positive = 1024
    """Hidden width of the gated feed-forward layers."""
    num_layers: Positive = 8
    """Number of encoder layers."""
    num_decoder_layers: Positive = 8
    """Number of decoder layers."""
    num_heads: Positive = 6
    """Attention heads per layer."""
    relative_attention_num_buckets: Annotated[int, Field(ge=4)] = 32
    """Relative position biases per head. Half of the buckets hold one short distance each, half hold ranges
    of longer distances, spaced logarithmically."""
    relative_attention_max_distance: Positive = 128
    """Distances from this one on share one bucket."""
    tie_word_embeddings: bool = False
    """Use the embedding as the output head too, as T5 1.0 did; its logits are scaled by d_model^-0.5."""
    vocab_multiple: Positive = 128
    """Round the number of embedding rows up to a multiple of this. The added rows are never predicted."""

    @model_validator(mode="after")
    def _far_is_beyond_near(self) -> Self:
        near = self.relative_attention_num_buckets // 2
        if self.relative_attention_max_distance <= near:
            raise T5smithError(
                f"{self.relative_attention_max_distance} cannot be used",
                where="model.relative_attention_max_distance",
                expected=f"more than {near}, which is half of relative_attention_num_buckets",
            )
        return self
