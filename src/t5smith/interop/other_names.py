"""Names of a T5's weights in other projects, as those of Hugging Face's PyTorch checkpoints.

Flax in transformers: `encoder.block.0.layer.0.SelfAttention.q.kernel`. T5X: `encoder.layers_0.attention.
query.kernel`, below `target` or `optimizer.target`. Both store matrices as (in, out), PyTorch as (out, in).
(github.com/huggingface/transformers, the module modeling_flax_t5; github.com/google-research/t5x,
its example t5)

T5X's example scalable_t5, of UMT5 and others, stacks the layers of a parameter in its axis 1:
`encoder.encoder.attention.query.kernel`, (in, layers, heads, d_kv). Its kernels of attention have an axis for
heads and one for d_kv. Each layer has a position bias.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.interop.stored_tensor import StoredTensor

_FLAX_TABLES = ("relative_attention_bias.embedding", "shared.embedding", "embed_tokens.embedding")
_T5X_ROOTS = ("optimizer.target.", "target.")
_T5X_PARTS = {
    "query.kernel": "q.weight",
    "key.kernel": "k.weight",
    "value.kernel": "v.weight",
    "out.kernel": "o.weight",
}
_T5X_LAYERS = {
    "encoder": {
        "pre_attention_layer_norm.scale": "layer.0.layer_norm.weight",
        "attention": "layer.0.SelfAttention",
        "pre_mlp_layer_norm.scale": "layer.1.layer_norm.weight",
        "mlp": "layer.1.DenseReluDense",
    },
    "decoder": {
        "pre_self_attention_layer_norm.scale": "layer.0.layer_norm.weight",
        "self_attention": "layer.0.SelfAttention",
        "pre_cross_attention_layer_norm.scale": "layer.1.layer_norm.weight",
        "encoder_decoder_attention": "layer.1.EncDecAttention",
        "pre_mlp_layer_norm.scale": "layer.2.layer_norm.weight",
        "mlp": "layer.2.DenseReluDense",
    },
}
_T5X_TOP = {
    "token_embedder.embedding": "shared.weight",
    "decoder.logits_dense.kernel": "lm_head.weight",
    "encoder.encoder_norm.scale": "encoder.final_layer_norm.weight",
    "decoder.decoder_norm.scale": "decoder.final_layer_norm.weight",
}


_T5X_STACKED = re.compile(r"(encoder|decoder)\.(?:encoder|decoder|layers)\.(.+)")
_T5X_BIASES = ("relpos_bias.rel_embedding", "relative_posemb.rel_embedding")
_LAYER_AXIS = 1
_MOST_LAYERS = 1_000


def from_flax(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors of `flax_model.msgpack` under PyTorch's names, matrices transposed when they are read."""
    found: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("params.")
        if name.endswith(_FLAX_TABLES):
            found[name.removesuffix("embedding") + "weight"] = tensor
        elif name.endswith(".kernel"):
            found[name.removesuffix("kernel") + "weight"] = replace(tensor, transposed=True)
        else:
            found[name] = tensor
    return found


def is_t5x(tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether the names are those of a T5X checkpoint."""
    return any(f"{root}token_embedder.embedding" in tensors for root in _T5X_ROOTS)


def from_t5x(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The parameters of a T5X checkpoint under PyTorch's names; what is unknown keeps its name.

    The optimizer's state is not taken.
    """
    root = next(root for root in _T5X_ROOTS if f"{root}token_embedder.embedding" in tensors)
    own = {name.removeprefix(root): tensor for name, tensor in tensors.items() if name.startswith(root)}
    last = _LastRead()
    return dict(
        _from_t5x(name, one) for name, tensor in own.items() for name, one in _layers(name, tensor, last)
    )


class _LastRead:
    """The stacked parameter that was read last: its layers are read one after the other."""

    def __init__(self) -> None:
        self.name, self.array = "", np.empty(0)

    def read(self, name: str, load: Callable[[], np.ndarray]) -> np.ndarray:
        if name != self.name:
            self.name, self.array = "", np.empty(0)  # never two of them at once
            self.name, self.array = name, load()
        return self.array


def _layers(name: str, tensor: StoredTensor, last: _LastRead) -> Iterator[tuple[str, StoredTensor]]:
    """The layers of a stacked parameter, as if they were stored one by one; any other as it is."""
    if not (found := _T5X_STACKED.fullmatch(name)):
        yield name, _matrix(name, tensor)
        return
    stack, rest = found.groups()
    layers = tensor.shape[_LAYER_AXIS] if len(tensor.shape) > _LAYER_AXIS else 0
    if not 1 <= layers <= _MOST_LAYERS:
        expected = f"a parameter with its layers in axis {_LAYER_AXIS}, at most {_MOST_LAYERS:,}"
        raise T5smithError(f"has shape {tensor.shape}", where=name, expected=expected)
    shape = tensor.shape[:_LAYER_AXIS] + tensor.shape[_LAYER_AXIS + 1 :]

    def layer(number: int) -> StoredTensor:
        def load() -> np.ndarray:
            return last.read(name, tensor.load).take(number, _LAYER_AXIS)

        return _matrix(name, replace(tensor, shape=shape, load=load))

    yield from ((f"{stack}.layers_{number}.{rest}", layer(number)) for number in range(layers))


def _matrix(name: str, tensor: StoredTensor) -> StoredTensor:
    """A kernel of attention with an axis for heads and one for d_kv as a matrix."""
    if len(tensor.shape) != 3 or not name.endswith(tuple(_T5X_PARTS)):
        return tensor
    first, middle, end = tensor.shape
    shape = (first * middle, end) if name.endswith("out.kernel") else (first, middle * end)
    return replace(tensor, shape=shape, load=lambda: tensor.load().reshape(shape))


def _from_t5x(name: str, tensor: StoredTensor) -> tuple[str, StoredTensor]:
    # T5X has (in, out) where PyTorch has (out, in), and (heads, buckets) where it has (buckets, heads).
    matrix = replace(tensor, transposed=True)
    if name in _T5X_TOP:
        return _T5X_TOP[name], matrix if name.endswith(".kernel") else tensor
    if shared := re.fullmatch(r"(encoder|decoder)\.relpos_bias\.rel_embedding", name):
        stack = f"{shared[1]}.block.0.layer.0.SelfAttention"
        return f"{stack}.relative_attention_bias.weight", matrix
    if not (found := re.fullmatch(r"(encoder|decoder)\.layers_(\d+)\.(.+)", name)):
        return name, tensor
    stack, layer, rest = found.groups()
    block = f"{stack}.block.{layer}"
    if rest in _T5X_LAYERS[stack]:
        return f"{block}.{_T5X_LAYERS[stack][rest]}", tensor
    if rest in _T5X_BIASES:
        return f"{block}.layer.0.SelfAttention.relative_attention_bias.weight", matrix
    part, _, leaf = rest.partition(".")
    if part not in _T5X_LAYERS[stack]:
        return name, tensor
    if leaf == "relpos_bias.rel_embedding":
        return f"{block}.{_T5X_LAYERS[stack][part]}.relative_attention_bias.weight", matrix
    leaf = _T5X_PARTS.get(leaf, leaf.removesuffix("kernel") + "weight")
    return f"{block}.{_T5X_LAYERS[stack][part]}.{leaf}", matrix
