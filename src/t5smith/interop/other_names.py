"""Names of a T5's weights in other projects, as those of Hugging Face's PyTorch checkpoints.

Flax in transformers: `encoder.block.0.layer.0.SelfAttention.q.kernel`. T5X: `encoder.layers_0.attention.
query.kernel`, below `target` or `optimizer.target`. Both store matrices as (in, out), PyTorch as (out, in).
(github.com/huggingface/transformers, the module modeling_flax_t5; github.com/google-research/t5x,
its example t5)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

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
    return dict(_from_t5x(name, tensor) for name, tensor in own.items())


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
    part, _, leaf = rest.partition(".")
    if part not in _T5X_LAYERS[stack]:
        return name, tensor
    if leaf == "relpos_bias.rel_embedding":
        return f"{block}.{_T5X_LAYERS[stack][part]}.relative_attention_bias.weight", matrix
    leaf = _T5X_PARTS.get(leaf, leaf.removesuffix("kernel") + "weight")
    return f"{block}.{_T5X_LAYERS[stack][part]}.{leaf}", matrix
