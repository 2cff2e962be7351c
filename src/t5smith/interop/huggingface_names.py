"""The mapping between our parameter tree and the names of a Hugging Face T5 checkpoint, both ways.

Hugging Face has one array per layer, stores matrices as (out, in), and has a shared position bias in layer 0.
Ours are stacked over layers and stored as (in, out).

Shapes: V vocabulary rows, D d_model, HK heads times d_kv, F d_ff, N position buckets, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.interop.stored_tensor import StoredTensor
from t5smith.model.config import ModelConfig
from t5smith.model.params import (
    Attention,
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    FeedForward,
    Parameters,
)

WEIGHTS = "model.safetensors"
"""The file with the weights."""
FLOATS = ("float32", "bfloat16", "float16", "float64")
"""Types of numbers that weights have; whole numbers are quantized ones, whose scales would be elsewhere."""
ALIGNMENT = 64
"""Of the arrays of XLA on a CPU, in bytes."""
COPIES: tuple[str, ...] = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Copies of the shared embedding that some writers add."""
Tensors = Mapping[str, np.ndarray | StoredTensor]


@dataclass(frozen=True)
class Entry:
    """One leaf of our tree and its tensors in Hugging Face's.

    Attributes:
      path: dotted path in :class:`Parameters`.
      name: the Hugging Face name, with `{}` for the layer.
      layers: the number of layers, or None for a leaf that is not stacked.
      transposed: whether Hugging Face stores the transpose.
      shape: the shape of one layer of ours.
    """

    path: str
    name: str
    layers: int | None
    transposed: bool
    shape: tuple[int, ...]


def entries(config: ModelConfig) -> Iterator[Entry]:
    """All leaves of a model of these sizes."""
    D, F, V = config.d_model, config.d_ff, config.vocab_size
    HK = config.num_heads * config.d_kv
    N, H = config.relative_attention_num_buckets, config.num_heads

    yield Entry("embedding", "shared.weight", None, False, (V, D))
    if not config.tie_word_embeddings:
        yield Entry("head", "lm_head.weight", None, True, (D, V))
    for stack, layers in (("encoder", config.num_layers), ("decoder", config.num_decoder_layers)):
        bias = f"{stack}.block.{{}}.layer.0.SelfAttention.relative_attention_bias.weight"
        if config.bias_per_layer:
            yield Entry(f"{stack}.layers.relative_attention_bias", bias, layers, False, (N, H))
        else:
            yield Entry(f"{stack}.relative_attention_bias", bias.format(0), None, False, (N, H))
        yield Entry(f"{stack}.final_norm", f"{stack}.final_layer_norm.weight", None, False, (D,))
        parts = [("self_attention", "SelfAttention")]
        if stack == "decoder":
            parts.append(("cross_attention", "EncDecAttention"))
        parts.append(("feed_forward", "DenseReluDense"))
        for number, (part, theirs) in enumerate(parts):
            layer = f"{stack}.block.{{}}.layer.{number}"
            yield Entry(f"{stack}.layers.{part}_norm", f"{layer}.layer_norm.weight", layers, False, (D,))
            if part == "feed_forward":
                names = {"wi_0": "wi_0", "wi_1": "wi_1"} if config.gated else {"wi_0": "wi"}
                shapes = {**dict.fromkeys(names, (D, F)), "wo": (F, D)}
                names["wo"] = "wo"
            else:
                names = {name: name for name in "qkvo"}
                shapes = {**dict.fromkeys("qkv", (D, HK)), "o": (HK, D)}
            for ours, name in names.items():
                path = f"{stack}.layers.{part}.{ours}"
                yield Entry(path, f"{layer}.{theirs}.{name}.weight", layers, True, shapes[ours])


ArrayAt = Callable[[str], np.ndarray]
"""Gives the array at a path in :class:`Parameters`."""


def arrays_of(parameters: Parameters) -> ArrayAt:
    """The arrays of parameters in memory, float32."""
    return lambda path: np.asarray(jax.device_get(_leaf(parameters, path)), np.float32)


def encoder_entries(config: ModelConfig) -> Iterator[Entry]:
    """The leaves of the encoder: the embedding, its layers, its bias and its norm."""
    return (one for one in entries(config) if one.path == "embedding" or one.path.startswith("encoder."))


def huggingface_shapes(config: ModelConfig, *, encoder_only: bool = False) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of the Hugging Face checkpoint, by name."""
    return {
        entry.name.format(layer): entry.shape[::-1] if entry.transposed else entry.shape
        for entry in (encoder_entries if encoder_only else entries)(config)
        for layer in range(entry.layers or 1)
    }


def huggingface_tensors(
    array_at: ArrayAt, config: ModelConfig, *, encoder_only: bool = False
) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors of the Hugging Face checkpoint with their names. One of our arrays is read at a time."""
    for entry in (encoder_entries if encoder_only else entries)(config):
        array = array_at(entry.path)
        for layer in range(entry.layers or 1):
            one = array if entry.layers is None else array[layer]
            yield entry.name.format(layer), np.ascontiguousarray(one.T if entry.transposed else one)


def to_huggingface(parameters: Parameters, config: ModelConfig) -> dict[str, np.ndarray]:
    """All tensors of the Hugging Face checkpoint by name, float32."""
    return dict(huggingface_tensors(arrays_of(parameters), config))


def from_huggingface(tensors: Tensors, config: ModelConfig) -> Parameters:
    """Our tree from the tensors of a Hugging Face checkpoint, float32.

    All names and shapes are compared before the first number is read, so no more is allocated than the
    checkpoint has. Beside the tree, one leaf is in memory.

    Raises:
      T5smithError: a tensor is missing, unexpected, or of another shape than by the sizes.
    """
    check_tensors(tensors, config)

    def leaf(entry: Entry) -> Any:
        found = _aligned((entry.layers or 1, *entry.shape))
        for layer in range(entry.layers or 1):
            found[layer] = _numbers(tensors[entry.name.format(layer)], entry)
        # JAX copies beside other work: without waiting, several leaves could be in memory twice.
        return jnp.asarray(found if entry.layers else found[0]).block_until_ready()

    return _tree({entry.path: leaf(entry) for entry in entries(config)}.get)


def check_tensors(tensors: Tensors, config: ModelConfig) -> None:
    """Compare names and shapes with the sizes. No number is read.

    Raises:
      T5smithError: a tensor is missing, unexpected, of another shape, or not of floating-point numbers.
    """
    used: set[str] = set()
    for entry in entries(config):
        for layer in range(entry.layers or 1):
            name = entry.name.format(layer)
            if name not in tensors:
                raise T5smithError("missing from the checkpoint", where=name)
            used.add(name)
            if (kind := tensors[name].dtype.name) not in FLOATS:
                expected = f"one of {', '.join(FLOATS)}"
                raise T5smithError(f"numbers of type {kind}", where=name, expected=expected)
            shape = _shape(tensors[name])
            if shape != (entry.shape[::-1] if entry.transposed else entry.shape):
                found = shape[::-1] if entry.transposed else shape
                expected = f"{entry.shape} by the sizes in config.json"
                raise T5smithError(f"has shape {found}", where=name, expected=expected)
    copies = {*COPIES}
    if config.tie_word_embeddings:
        copies.add("lm_head.weight")
    # Its queries see all positions of the memory: there is no bias, but old checkpoints have a table.
    copies.add("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight")
    if unexpected := sorted(set(tensors) - used - copies):
        raise T5smithError(
            f"unexpected tensors: {', '.join(unexpected[:5])}",
            where="checkpoint",
            expected="those of the sizes in config.json",
        )


def _shape(tensor: np.ndarray | StoredTensor) -> tuple[int, ...]:
    """The shape as PyTorch stores it."""
    transposed = isinstance(tensor, StoredTensor) and tensor.transposed
    return tensor.shape[::-1] if transposed else tensor.shape


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An array of float32 that JAX on a CPU takes over as it is: it copies what is aligned otherwise."""
    size = math.prod(shape) * 4
    whole = np.empty(size + ALIGNMENT, np.uint8)
    begin = -whole.ctypes.data % ALIGNMENT
    return whole[begin : begin + size].view(np.float32).reshape(shape)


def _numbers(tensor: np.ndarray | StoredTensor, entry: Entry) -> np.ndarray:
    array = tensor.read() if isinstance(tensor, StoredTensor) else np.asarray(tensor, np.float32)
    return array.T if entry.transposed else array


def _leaf(parameters: Parameters, path: str) -> object:
    node: object = parameters
    for name in path.split("."):
        node = getattr(node, name)
    return node


def _tree(array: Callable[[str], Any]) -> Parameters:
    """Assemble the tree; `wi_1`, `head` and one kind of position bias may be absent."""

    def attention(path: str) -> Attention:
        return Attention(**{name: array(f"{path}.{name}") for name in "qkvo"})

    def feed_forward(path: str) -> FeedForward:
        return FeedForward(**{name: array(f"{path}.{name}") for name in ("wi_0", "wi_1", "wo")})

    return Parameters(
        embedding=array("embedding"),
        encoder=Encoder(
            layers=EncoderLayer(
                self_attention_norm=array("encoder.layers.self_attention_norm"),
                self_attention=attention("encoder.layers.self_attention"),
                feed_forward_norm=array("encoder.layers.feed_forward_norm"),
                feed_forward=feed_forward("encoder.layers.feed_forward"),
                relative_attention_bias=array("encoder.layers.relative_attention_bias"),
            ),
            relative_attention_bias=array("encoder.relative_attention_bias"),
            final_norm=array("encoder.final_norm"),
        ),
        decoder=Decoder(
            layers=DecoderLayer(
                self_attention_norm=array("decoder.layers.self_attention_norm"),
                self_attention=attention("decoder.layers.self_attention"),
                cross_attention_norm=array("decoder.layers.cross_attention_norm"),
                cross_attention=attention("decoder.layers.cross_attention"),
                feed_forward_norm=array("decoder.layers.feed_forward_norm"),
                feed_forward=feed_forward("decoder.layers.feed_forward"),
                relative_attention_bias=array("decoder.layers.relative_attention_bias"),
            ),
            relative_attention_bias=array("decoder.relative_attention_bias"),
            final_norm=array("decoder.final_norm"),
        ),
        head=array("head"),
    )
