"""T5X's scanned layers: stacked here as its example scalable_t5 does, in both kinds of files."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from orbax.checkpoint import msgpack_utils

from other_formats import write_zarr
from t5smith.base.errors import T5smithError
from t5smith.interop.huggingface_names import from_huggingface
from t5smith.interop.msgpack_file import read_msgpack
from t5smith.interop.safetensors_file import read_safetensors
from t5smith.interop.source import sizes_of
from t5smith.interop.weights import read_t5x
from t5smith.model.config import ModelConfig

DATA = Path(__file__).parents[1] / "data" / "t5x_tiny"
HEADS, WIDTH, LAYERS, BUCKETS = 4, 3, 2, 32
ROOT = "optimizer.target."


def biases(stack):
    """The position biases of a stack: (heads, layers, buckets)."""
    rng = np.random.default_rng(len(stack) + ord(stack[0]))
    return rng.normal(size=(HEADS, LAYERS, BUCKETS)).astype(np.float32)


def stacked(*, inner=None, heads=True, bias="relpos_bias"):
    """The test checkpoint with its layers stacked in axis 1.

    Args:
      inner: the name between stack and parameter; None: that of the stack, as T5X's newest version has it.
      heads: whether kernels of attention have an axis for heads and one for d_kv.
      bias: the name of the position bias.
    """
    found, layers = {}, defaultdict(dict)
    for name, tensor in read_msgpack(DATA / "checkpoint_0").items():
        if not name.startswith(ROOT) or "relpos_bias" in name:
            continue
        array, name = tensor.read(), name.removeprefix(ROOT)
        stack, _, rest = name.partition(".layers_")
        if not rest:
            found[name] = array
            continue
        number, _, rest = rest.partition(".")
        if heads and rest.endswith(("query.kernel", "key.kernel", "value.kernel")):
            array = array.reshape(-1, HEADS, WIDTH)
        elif heads and rest.endswith("out.kernel"):
            array = array.reshape(HEADS, WIDTH, -1)
        layers[f"{stack}.{inner or stack}.{rest}"][int(number)] = array
    for name, own in layers.items():
        found[name] = np.stack([own[number] for number in range(LAYERS)], axis=1)
    for stack in ("encoder", "decoder"):
        found[f"{stack}.{inner or stack}.{bias}.rel_embedding"] = biases(stack)
    return found


def write_msgpack(arrays, folder):
    tree: dict = {}
    for name, array in arrays.items():
        node, (*above, last) = tree, name.split(".")
        for part in above:
            node = node.setdefault(part, {})
        node[last] = array
    file = folder / "checkpoint_7"
    file.write_bytes(msgpack_utils.msgpack_serialize({"version": 3, "optimizer": {"target": tree}}))
    return file


def write_target(arrays, folder):
    return write_zarr(folder, ((f"target.{name}", array) for name, array in arrays.items()))


@pytest.mark.parametrize(
    ("write", "form"),
    [
        (write_msgpack, {}),
        (write_target, {}),
        (write_msgpack, {"inner": "layers", "bias": "relative_posemb"}),
        (write_msgpack, {"heads": False}),
    ],
)
def test_each_layer_has_the_numbers_that_were_stacked(tmp_path, write, form):
    read = read_t5x(write(stacked(**form), tmp_path))
    expected = {name: one.read() for name, one in read_safetensors(DATA / "model.safetensors").items()}
    for stack in ("encoder", "decoder"):
        expected.pop(f"{stack}.embed_tokens.weight", None)
        for layer in range(LAYERS):
            name = f"{stack}.block.{layer}.layer.0.SelfAttention.relative_attention_bias.weight"
            expected[name] = biases(stack)[:, layer].T
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        shown = read[name].shape[::-1] if read[name].transposed else read[name].shape
        assert shown == array.shape, name
        np.testing.assert_array_equal(read[name].read(), array, name)
    sizes = sizes_of(read, ModelConfig(1, 32_100, 1, 1, 1, 1, 1, 1))
    assert sizes.bias_per_layer
    assert (sizes.num_heads, sizes.d_kv, sizes.num_layers, sizes.num_decoder_layers) == (4, 3, 2, 2)
    parameters = from_huggingface(read, sizes)
    np.testing.assert_array_equal(
        parameters.encoder.layers.relative_attention_bias, biases("encoder").transpose(1, 2, 0)
    )


def test_a_stacked_array_is_read_once_for_all_of_its_layers(tmp_path, monkeypatch):
    from t5smith.interop import zarr_folder

    opened = []
    original = zarr_folder._opened
    monkeypatch.setattr(zarr_folder, "_opened", lambda place: opened.append(place.name) or original(place))
    read = read_t5x(write_target(stacked(), tmp_path))
    opened.clear()
    from_huggingface(read, sizes_of(read, ModelConfig(1, 32_100, 1, 1, 1, 1, 1, 1)))
    assert len(opened) == len(set(opened))


def test_layers_under_a_name_of_their_own_may_each_have_a_bias(tmp_path):
    """scalable_t5 without scanning."""
    arrays = {
        name.removeprefix(ROOT): one.read()
        for name, one in read_msgpack(DATA / "checkpoint_0").items()
        if name.startswith(ROOT) and "relpos_bias" not in name
    }
    for stack in ("encoder", "decoder"):
        for layer in range(LAYERS):
            arrays[f"{stack}.layers_{layer}.relpos_bias.rel_embedding"] = biases(stack)[:, layer]
    read = read_t5x(write_msgpack(arrays, tmp_path))
    assert sizes_of(read, ModelConfig(1, 32_100, 1, 1, 1, 1, 1, 1)).bias_per_layer
    name = "decoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"
    np.testing.assert_array_equal(read[name].read(), biases("decoder")[:, 1].T)


@pytest.mark.parametrize("shape", [(8,), (8, 0, 4), (0, 2_000_000_000)])
def test_a_parameter_without_layers_is_refused(tmp_path, shape):
    arrays = stacked() | {"encoder.encoder.pre_mlp_layer_norm.scale": np.zeros(shape, np.float32)}
    with pytest.raises(
        T5smithError, match=r"pre_mlp_layer_norm.scale: has shape .* with its layers in axis 1"
    ):
        read_t5x(write_msgpack(arrays, tmp_path))
