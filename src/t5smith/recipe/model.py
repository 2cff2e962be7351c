"""The sizes of the model: the table `[model]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import OrNone, Positive, Settings
from t5smith.recipe.sizes import SIZES, SizeName


class ModelSettings(Settings):
    """The sizes of a T5 encoder-decoder; the defaults are T5-v1.1-small's."""

    section: ClassVar[str] = "model"

    size: Annotated[SizeName | None, OrNone] = None
    """A published size: widths, numbers of layers and heads, feed-forward and head of that model. Each of
    these that is set as well overrides it."""
    d_model: Positive = 512
    """Width of the embeddings and of the hidden states between layers."""
    d_kv: Positive = 64
    """Width of an attention head."""
    d_ff: Positive = 1024
    """Hidden width of the feed-forward layers."""
    feed_forward: Literal["gated-gelu", "relu"] = "gated-gelu"
    """gated-gelu: as T5 1.1, mT5 and ByT5. relu: as T5 1.0, with two matrices instead of three."""
    relative_attention_bias: Literal["shared", "per-layer"] = "shared"
    """shared: one position bias for all layers of encoder or decoder, as T5, mT5 and ByT5. per-layer: one in
    each layer, as UMT5."""
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

    @model_validator(mode="before")
    @classmethod
    def _fill_in_size(cls, data: Any) -> Any:
        """What `size` stands for, where it is not set."""
        if not isinstance(data, Mapping):
            return data
        values = cast("Mapping[str, Any]", data)
        size = values.get("size")
        return {**SIZES.get(size, {}), **values} if isinstance(size, str) else values

    def shape(self) -> dict[str, Any]:
        """All that the parameters depend on, for fingerprints: what a size stands for, not its name.

        Feed-forward and position bias are omitted where they are T5 1.1's, as in fingerprints from before
        they were settings.
        """
        later = {"feed_forward": "gated-gelu", "relative_attention_bias": "shared"}
        without = {name for name, value in later.items() if getattr(self, name) == value}
        return self.model_dump(mode="json", exclude={"size", *without})

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
