"""Weights in the files of other projects: each reader against the library that writes them, and damage."""

from __future__ import annotations

import collections
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from orbax.checkpoint import msgpack_utils
from safetensors.torch import save_file

from other_formats import as_flax, write_zarr
from t5smith.base.errors import T5smithError
from t5smith.interop.msgpack_file import read_msgpack
from t5smith.interop.pytorch_file import read_pytorch
from t5smith.interop.safetensors_file import read_safetensors
from t5smith.interop.stored_tensor import Tensors
from t5smith.interop.weights import read_t5x, read_weights

DATA = Path(__file__).parents[1] / "data" / "t5x_tiny"
TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@pytest.fixture
def state():
    """Tensors of all types, transposed, shared, and a part of a larger one."""
    torch.manual_seed(0)
    tensors = {f"a.{dtype}": torch.randn(3, 5).to(dtype) for dtype in TYPES}
    whole = torch.randn(7, 4)
    tensors |= {"transposed": torch.randn(6, 2).T, "part": whole[2:5], "column": whole[:, 1], "whole": whole}
    return collections.OrderedDict(tensors)


def assert_equal(read: Tensors, expected):
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert read[name].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(read[name].read(), tensor.to(torch.float32).numpy(), err_msg=name)


@pytest.mark.parametrize("new", [True, False])
def test_pytorch(tmp_path, state, new):
    state["parameter"] = torch.nn.Parameter(torch.randn(4, 4))
    torch.save(state, tmp_path / "a.bin", _use_new_zipfile_serialization=new)
    assert_equal(read_pytorch(tmp_path / "a.bin"), {name: one.detach() for name, one in state.items()})


def test_the_state_of_a_module(tmp_path):
    module = torch.nn.Linear(3, 4)
    torch.save(module.state_dict(), tmp_path / "a.bin")
    assert_equal(read_pytorch(tmp_path / "a.bin"), dict(module.state_dict()))


def test_safetensors(tmp_path, state):
    save_file({name: one.contiguous().clone() for name, one in state.items()}, tmp_path / "a")
    assert_equal(read_safetensors(tmp_path / "a"), state)


def test_msgpack(tmp_path, monkeypatch):
    tree = {
        "params": {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "0": np.ones((3,), np.float16)}},
        "long": np.arange(1000, dtype=np.float32).reshape(10, 100),
        "version": 3,
        "key": np.arange(2, dtype=np.uint32),
    }
    # More than a gigabyte in truth.
    monkeypatch.setattr(msgpack_utils, "MAX_CHUNK_SIZE", 1_024)
    (tmp_path / "a").write_bytes(msgpack_utils.msgpack_serialize(tree))
    read = read_msgpack(tmp_path / "a")
    assert read.keys() == {"params.a.b", "params.a.0", "long", "key"}
    np.testing.assert_array_equal(read["params.a.b"].read(), tree["params"]["a"]["b"])
    np.testing.assert_array_equal(read["long"].read(), tree["long"])


def theirs():
    """T5X's test checkpoint as transformers writes it."""
    return read_safetensors(DATA / "model.safetensors")


def assert_same_numbers(read: Tensors):
    expected = {name: tensor for name, tensor in theirs().items() if ".embed_tokens." not in name}
    assert read.keys() >= expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(read[name].read(), tensor.read(), err_msg=name)


def test_a_checkpoint_of_t5x():
    assert_same_numbers(read_t5x(DATA / "checkpoint_0"))


def as_zarr(folder: Path) -> Path:
    """The same checkpoint with parameters as arrays of zarr."""
    stored = read_msgpack(DATA / "checkpoint_0").items()
    prefix = "optimizer."
    return write_zarr(
        folder,
        (
            (name.removeprefix(prefix), tensor.read())
            for name, tensor in stored
            if name.startswith("optimizer.target.")
        ),
    )


def test_a_checkpoint_of_t5x_in_zarr(tmp_path):
    assert_same_numbers(read_t5x(as_zarr(tmp_path)))
    next((tmp_path / "target.token_embedder.embedding").glob("[01]*")).unlink()
    with pytest.raises(T5smithError, match=r"target.token_embedder.embedding: 3 of 4 chunks"):
        read_t5x(tmp_path)


def flax_tree():
    """The same model as Flax in transformers names it."""
    return as_flax({name: tensor.read() for name, tensor in theirs().items()})


def test_a_folder_of_flax_and_the_order_of_preference(tmp_path):
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack_utils.msgpack_serialize(flax_tree()))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert_same_numbers(read_weights(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((DATA / "model.safetensors").read_bytes())
    (tmp_path / "flax_model.msgpack").write_bytes(b"")
    assert_same_numbers(read_weights(tmp_path))


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_shards(tmp_path, kind):
    tensors = {name: torch.from_numpy(one.read()) for name, one in theirs().items()}
    names = sorted(tensors)
    listed = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"{number}-{kind}"
        (save_file if kind.endswith("safetensors") else torch.save)(
            {name: tensors[name] for name in part}, tmp_path / file
        )
        listed |= dict.fromkeys(part, file)
    index = tmp_path / f"{kind}.index.json"
    index.write_text(json.dumps({"weight_map": listed}))
    assert_equal(read_weights(tmp_path), tensors)
    index.write_text(json.dumps({"weight_map": listed | {"x": "../0-model.safetensors"}}))
    with pytest.raises(T5smithError, match="is not the name of a file in this folder"):
        read_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": {"x": "gone"}}))
    with pytest.raises(T5smithError, match=r"gone: not found; expected a shard"):
        read_weights(tmp_path)


def test_tensorflow_is_refused_with_the_conversion(tmp_path):
    (tmp_path / "tf_model.h5").write_bytes(b"")
    with pytest.raises(T5smithError, match="from_tf=True"):
        read_weights(tmp_path)


class Call:
    """What calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile():
    """Pickles that run code, or build something that the readers would trust."""
    import os
    import subprocess

    marker = "touched"
    yield "os.system", Call(os.system, f"touch {marker}")
    yield "subprocess", Call(subprocess.Popen, ["touch", marker])
    yield "eval", Call(eval, f"open({marker!r}, 'w')")
    yield "exec", Call(exec, f"open({marker!r}, 'w')")
    yield "getattr", Call(getattr, "abc", "upper")
    yield "import", Call(__import__, "os")
    yield "in a tensor's place", {"weight": Call(os.system, f"touch {marker}")}
    yield "torch.load", Call(torch.load, marker)
    yield "a class of torch", torch.nn.Linear(1, 1)
    yield "numpy", {"weight": np.ones(3)}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, value in hostile()])
@pytest.mark.parametrize("container", ["zip", "old", "zip with a lying name"])
def test_a_pickle_runs_nothing(tmp_path, monkeypatch, name, value, container):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.bin"
    if container == "old":
        path.write_bytes(
            pickle.dumps(0x1950A86A20F9469CFC6C, 2)
            + pickle.dumps(1001, 2)
            + pickle.dumps({"little_endian": True}, 2)
            + pickle.dumps(value, 2)
        )
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(value, 4 if "lying" in container else 2))
    with pytest.raises(T5smithError) as caught:
        read_pytorch(path)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "touched").exists()


def protocol_2(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (9,), (0,)),
        (0, (2, 2), (1,)),
        (-1, (1,), (1,)),
    ],
)
def test_a_tensor_stays_in_its_storage(tmp_path, offset, shape, strides):
    def packed(value):
        return pickle.dumps(value, 2)[2:-1]

    tensor = REBUILD + b"(" + STORAGE + packed(offset) + packed(shape) + packed(strides) + b"\x89N" + b"tR"
    with zipfile.ZipFile(tmp_path / "a.bin", "w") as archive:
        archive.writestr("a/data.pkl", protocol_2(b"}X\x01\x00\x00\x00w", tensor, b"s"))
        archive.writestr("a/data/0", bytes(16))
    with pytest.raises(T5smithError, match="not a complete PyTorch file"):
        read_pytorch(tmp_path / "a.bin")


def test_a_storage_is_as_long_as_it_claims(tmp_path, state):
    torch.save(state, tmp_path / "a.bin")
    with zipfile.ZipFile(tmp_path / "a.bin") as old, zipfile.ZipFile(tmp_path / "b.bin", "w") as new:
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, data[:-4] if "/data/" in info.filename else data)
    with pytest.raises(T5smithError, match="has another size"):
        read_pytorch(tmp_path / "b.bin")


WRITERS = {
    "safetensors": (lambda tensors, path: save_file(tensors, path), read_safetensors),
    "zip": (torch.save, read_pytorch),
    "old": (
        lambda tensors, path: torch.save(tensors, path, _use_new_zipfile_serialization=False),
        read_pytorch,
    ),
    "msgpack": (
        lambda tensors, path: path.write_bytes(
            msgpack_utils.msgpack_serialize({name: one.numpy() for name, one in tensors.items()})
        ),
        read_msgpack,
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=60)
@given(data=st.data())
def test_damage_is_an_error_of_one_line_or_changes_numbers_alone(tmp_path_factory, kind, data):
    write, read = WRITERS[kind]
    path = tmp_path_factory.mktemp("damage") / "a"
    write({"a": torch.ones(3, 4), "b": torch.arange(5.0)}, path)
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        numbers, message = sum(one.read().size for one in read(path).values()), ""
    except T5smithError as error:
        numbers, message = 0, str(error)
    assert numbers <= len(whole)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("flags", "change"),
    [
        (0x800, lambda name: b"\x80" + name[1:]),  # a name in UTF-8 that is not UTF-8
        (0x1, lambda name: name),  # encrypted
        (0x20, lambda name: name),  # a patch
        (0, lambda name: b"x" + name[1:]),  # another name than in the directory
    ],
)
def test_damaged_headers_of_numbers_are_errors_of_one_line(tmp_path, flags, change):
    """What the zip's directory does not show: it is found when the numbers are read."""
    path = tmp_path / "a.bin"
    torch.save({"a": torch.ones(3, 4)}, path)
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        (info,) = (one for one in archive.infolist() if "/data/" in one.filename)
    at = info.header_offset
    whole[at + 6 : at + 8] = (int.from_bytes(whole[at + 6 : at + 8], "little") | flags).to_bytes(2, "little")
    end = at + 30 + len(info.filename)
    whole[at + 30 : end] = change(bytes(whole[at + 30 : end]))
    if flags in (0x1, 0x20):  # these are read from the directory
        place = whole.rindex(info.filename.encode()) - 46
        whole[place + 8 : place + 10] = whole[at + 6 : at + 8]
    path.write_bytes(whole)
    with pytest.raises(T5smithError, match="cannot be read") as caught:
        read_pytorch(path)["a"].read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "'a' has 4 bytes from 0 on"),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [40, 44]}}', "'a' has 4 bytes from 40 on"),
        (b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', "the entry of 'a' is not valid"),
        (
            b'{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}',
            "the entry of 'a' is not valid",
        ),
        (b'{"a": {"dtype": "Q4", "shape": [1], "data_offsets": [0, 4]}}', "'a' is of type Q4"),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {}}', "'a' is there twice"),
        (b'{"a": 3}', "the entry of 'a' is not valid"),
        (b"[]", "its header is not an object"),
        (b"{", "its header is not valid"),
        (b"[" * 100_000, "its header is not valid"),
        (b"{}", "bytes instead of"),
    ],
)
def test_a_header_of_safetensors_is_not_trusted(tmp_path, header, message):
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(T5smithError, match=message):
        read_safetensors(path)


@pytest.mark.parametrize("length", [10 << 30, 2**63, 50])
def test_the_length_of_a_header_is_not_trusted(tmp_path, length):
    path = tmp_path / "a.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(T5smithError, match="does not fit into a file of 10"):
        read_safetensors(path)
