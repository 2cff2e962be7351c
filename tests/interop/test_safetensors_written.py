"""The writer of safetensors against the library: the same bytes, in any order, in any number of files."""

from __future__ import annotations

import json
import random

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from programs import init
from t5smith.interop.huggingface_names import arrays_of, to_huggingface
from t5smith.interop.huggingface_save import Form, shards_of, write_weights
from t5smith.interop.safetensors_file import write_safetensors
from t5smith.interop.weights import read_weights
from t5smith.model.config import ModelConfig

SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@given(
    shapes=st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), SHAPES, max_size=6),
    seed=st.integers(0, 99),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
)
def test_the_bytes_are_those_of_the_library(tmp_path_factory, shapes, seed, dtype):
    shapes.pop("__metadata__", None)
    folder, draw = tmp_path_factory.getbasetemp(), np.random.default_rng(seed)
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    tensors = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    order = random.Random(seed).sample(list(tensors.items()), len(tensors))
    write_safetensors({folder / "ours": shapes}, kind, iter(order))
    save_file({name: one.astype(kind) for name, one in tensors.items()}, folder / "theirs", {"format": "pt"})
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()


def test_a_tensor_that_was_not_written_is_no_file_of_zeros(tmp_path):
    with pytest.raises(AssertionError, match="not written"):
        write_safetensors({tmp_path / "one": {"a": (2,)}}, np.dtype("float32"), [])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_are_what_transformers_reads(tmp_path, tied, dtype):
    """Each file holds at most the limit, all together every tensor once, and the index says where."""
    config = ModelConfig(64, 64, 16, 8, 32, 2, 3, 2, tie_word_embeddings=tied)
    p = init(config, jax.random.key(0))
    expected = to_huggingface(p, config)
    size = sum(one.nbytes for one in expected.values()) // (1 if dtype == "float32" else 2)
    limit = size // 4
    write_weights(tmp_path, arrays_of(p), config, Form(dtype, limit))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {
        "total_parameters": sum(one.size for one in expected.values()),
        "total_size": size,
    }
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == [f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)]
    assert len(files) > 3
    assert sorted(set(index["weight_map"].values())) == files
    assert index["weight_map"].keys() == expected.keys()
    for file in files:
        with safe_open(tmp_path / file, "numpy") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert sorted(opened.keys()) == sorted(n for n, f in index["weight_map"].items() if f == file)
        assert sum(one.nbytes for one in load_file(tmp_path / file).values()) <= limit
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    for name, tensor in read_weights(tmp_path).items():
        np.testing.assert_array_equal(tensor.read(), expected[name].astype(kind).astype(np.float32), name)


def test_a_tensor_above_the_limit_has_a_file_of_its_own():
    shapes = {"a": (2,), "b": (9,), "c": (2,), "d": (1,)}
    found = shards_of(shapes, 4, 12)
    assert [list(part) for part in found.values()] == [["a"], ["b"], ["c", "d"]]
    assert next(iter(found)) == "model-00001-of-00003.safetensors"
    assert list(shards_of(shapes, 4, 56)) == ["model.safetensors"]
    assert len(shards_of(shapes, 4, 55)) == 2
