"""Folders that are damaged, cut short, foreign or malicious: each a small change of a good one."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

TOUCHED = "touched-by-a-pickle"
WEIGHTS = "model.safetensors"
Change = Callable[[Path], None]


def config(**values: Any) -> Change:
    """Other values in config.json; None removes one."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        found = json.loads(path.read_text()) | values
        path.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))

    return change


def text(name: str, content: str | bytes) -> Change:
    """A file with this content."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data) and None


def tensors(function: Callable[[dict[str, np.ndarray]], Any]) -> Change:
    """Other tensors in the weights."""

    def change(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        function(found)
        save_file(found, folder / WEIGHTS)

    return change


def raw(function: Callable[[bytes], bytes]) -> Change:
    """Other bytes in the file of weights."""

    def change(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(function((folder / WEIGHTS).read_bytes()))

    return change


def header(function: Callable[[dict[str, Any]], Any]) -> Change:
    """Another header in the file of weights."""

    def rewritten(data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        found = json.loads(data[8 : 8 + length])
        found = function(found) or found
        new = json.dumps(found).encode()
        return len(new).to_bytes(8, "little") + new + data[8 + length :]

    return raw(rewritten)


def entry(**values: Any) -> Change:
    """Another entry of the embedding in the header."""
    return header(lambda found: found["shared.weight"].update(values))


def doubled(data: bytes) -> bytes:
    """The header with a name twice."""
    length = int.from_bytes(data[:8], "little")
    new = data[8 : 8 + length].strip()
    new = new[:-1] + b',"shared.weight":' + json.dumps(json.loads(new)["shared.weight"]).encode() + b"}"
    return len(new).to_bytes(8, "little") + new + data[8 + length :]


def index(weight_map: Any, **files: str) -> Change:
    """The weights as shards with this index."""

    def change(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "a.safetensors")
        for name in files.values():
            (folder / name).write_bytes((folder / "a.safetensors").read_bytes())
        listed = json.dumps({"weight_map": weight_map}) if not isinstance(weight_map, str) else weight_map
        (folder / f"{WEIGHTS}.index.json").write_text(listed)

    return change


def instead(name: str, content: bytes | Callable[[Path], None]) -> Change:
    """Another kind of file in place of the weights."""

    def change(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        if callable(content):
            content(folder / name)
        else:
            (folder / name).write_bytes(content)

    return change


def zipped(data: bytes, **members: bytes) -> Callable[[Path], None]:
    """A PyTorch file of the newer kind with this pickle."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            for name, member in members.items():
                archive.writestr(f"archive/{name}", member)

    return write


class Call:
    """What calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def pickled(value: Any, protocol: int = 2) -> Change:
    return instead("pytorch_model.bin", zipped(pickle.dumps(value, protocol)))


def old_pickle(value: Any) -> Change:
    parts = 0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, value
    return instead("pytorch_model.bin", b"".join(pickle.dumps(part, 2) for part in parts))


def described(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], length: int = 4) -> Change:
    """A tensor with these sizes in a storage of so many numbers."""

    def packed(value: object) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    storage = b"(" + packed("storage") + b"ctorch\nFloatStorage\n" + packed("0") + packed("cpu")
    storage += packed(length) + b"tQ"
    call = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + packed(offset) + packed(shape) + packed(strides)
    )
    data = b"\x80\x02}" + packed("shared.weight") + call + b"\x89NtRs."
    return instead("pytorch_model.bin", zipped(data, **{"data/0": bytes(16)}))


def lying_zip(path: Path) -> None:
    """A storage that is compressed, and a thousand times as long as its member."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(1_000_000))
        archive.writestr("archive/second/data.pkl", b"")
        archive.writestr("other/data.pkl", b"\x80\x02}.")


def array(shape: list[int], kind: str, data: bytes) -> bytes:
    """An array as Flax writes it in msgpack, of less than 65,536 bytes."""
    sizes = b"\x90" if not shape else bytes([0x90 + len(shape)])
    sizes += b"".join(b"\xcf" + struct.pack(">Q", one) for one in shape)
    inner = b"\x93" + sizes + bytes([0xA0 + len(kind)]) + kind.encode() + b"\xc5"
    inner += struct.pack(">H", len(data)) + data
    return b"\xc8" + struct.pack(">H", len(inner)) + b"\x01" + inner


def named(*values: bytes, name: bytes = b"w") -> bytes:
    """A dictionary of msgpack whose entries all have this name."""
    return bytes([0x80 + len(values)]) + b"".join(b"\xa1" + name + value for value in values)


def flax(data: bytes) -> Change:
    return instead("flax_model.msgpack", data)


def zarr(**metadata: Any) -> Change:
    """A checkpoint of T5X in place of the folder, with one array of these properties."""

    def change(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        place = folder / "target.token_embedder.embedding"
        place.mkdir()
        found = {
            "zarr_format": 2,
            "shape": [4, 4],
            "chunks": [4, 4],
            "dtype": "<f4",
            "compressor": None,
            "fill_value": None,
            "filters": None,
            "order": "C",
        }
        (place / ".zarray").write_text(json.dumps(found | metadata) if metadata else "{")
        (place / "0.0").write_bytes(bytes(64))

    return change


def tokenizer(function: Callable[[dict[str, Any]], Any]) -> Change:
    """Another tokenizer.json."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        found = json.loads(path.read_text())
        function(found)
        path.write_text(json.dumps(found))

    return change


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def removed(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names] and None


Q = "encoder.block.0.layer.0.SelfAttention.q.weight"
HUGE = 10**12
GOOD = "a.safetensors"

CASES: dict[str, tuple[Change, str]] = {
    # config.json
    "no configuration": (removed("config.json"), "there is no model"),
    "configuration cut short": (text("config.json", '{"model_type": "t5", '), "not JSON"),
    "configuration is a list": (text("config.json", "[]"), "not a JSON object"),
    "configuration is not text": (text("config.json", b"\xff\xfe\x00"), "not JSON"),
    "configuration of 100,000 brackets": (text("config.json", "[" * 100_000), "not JSON"),
    "configuration with a size twice": (
        lambda folder: text(
            "config.json", (folder / "config.json").read_text().replace("{", '{"d_model": 9,', 1)
        )(folder),
        "'d_model' is there twice",
    ),
    "model of another kind": (config(model_type="bert"), "the model is of type 'bert'"),
    "model of no kind": (config(model_type=None), "the model is of type None"),
    "unknown feed-forward": (config(feed_forward_proj="gated-silu"), "'gated-silu' is not supported"),
    "feed-forward is a list": (config(feed_forward_proj=["relu"]), "is not supported"),
    "size missing": (config(d_ff=None), "'d_ff' is missing"),
    "size is text": (config(d_model="8"), "d_model is '8'"),
    "size is negative": (config(d_ff=-16), "d_ff is -16"),
    "size is a truth value": (config(num_heads=True), "num_heads is True"),
    "size is no number": (config(num_heads=float("nan")), "num_heads is nan"),
    "no layers": (config(num_layers=0), "num_layers is 0"),
    "decoder layers are text": (config(num_decoder_layers="2"), "num_decoder_layers is '2'"),
    "epsilon is text": (config(layer_norm_epsilon="1e-6"), "layer_norm_epsilon is '1e-6'"),
    "epsilon is negative": (config(layer_norm_epsilon=-1), "layer_norm_epsilon is -1"),
    "tying is text": (config(tie_word_embeddings="false"), "tie_word_embeddings is 'false'"),
    "width of 10^12": (config(d_model=HUGE), "shared.weight: has shape"),
    "10^12 layers": (config(num_layers=HUGE), "missing from the checkpoint"),
    "10^12 decoder layers": (config(num_decoder_layers=HUGE), "missing from the checkpoint"),
    "10^12 rows": (config(vocab_size=HUGE), "shared.weight: has shape"),
    "10^12 buckets": (config(relative_attention_num_buckets=HUGE), "has shape"),
    "other width of heads": (config(d_kv=8), r"has shape \(8, 8\); expected \(8, 16\)"),
    # safetensors
    "no weights": (removed(WEIGHTS), "no weights"),
    "TensorFlow": (instead("tf_model.h5", b""), "TensorFlow's weights are not read"),
    "empty weights": (raw(lambda data: b""), "its header of 0 bytes does not fit"),
    "weights of four bytes": (raw(lambda data: data[:4]), "does not fit into a file of 4"),
    "header of 10 GB": (
        raw(lambda data: (10_000_000_000).to_bytes(8, "little") + data[8:]),
        "its header of 10,000,000,000 bytes does not fit",
    ),
    "header of 2^64 bytes": (raw(lambda data: b"\xff" * 8 + data[8:]), "does not fit"),
    "header is not JSON": (raw(lambda data: data[:9] + b"\x00" + data[10:]), "its header is not valid"),
    "header is a list": (header(lambda found: [1]), "its header is not an object"),
    "header with a name twice": (raw(doubled), "'shared.weight' is there twice"),
    "weights cut short": (raw(lambda data: data[:-1]), "has .* bytes from|bytes instead of"),
    "weights with more bytes": (raw(lambda data: data + b"\0"), "bytes instead of"),
    "numbers beyond the file": (entry(data_offsets=[0, HUGE]), "'shared.weight' has 1,000,000,000,000 bytes"),
    "numbers backwards": (entry(data_offsets=[64, 0]), "'shared.weight' has -64 bytes"),
    "numbers of two tensors in one place": (
        header(lambda found: found[Q].update(data_offsets=found[Q.replace(".q.", ".k.")]["data_offsets"])),
        "not in a row",
    ),
    "shape of 2^80 numbers": (entry(shape=[2**40, 2**40]), "'shared.weight' has .* bytes"),
    "negative shape": (entry(shape=[-384, -8]), "the entry of 'shared.weight' is not valid"),
    "entry without a shape": (header(lambda found: found.update({"x": {"dtype": "F32"}})), "not valid"),
    "entry is text": (header(lambda found: found.update({"x": "F32"})), "the entry of 'x' is not valid"),
    "unknown type of numbers": (entry(dtype="F8_E4M3"), "is of type F8_E4M3"),
    "tensor missing": (tensors(lambda found: found.pop(Q)), f"{Q}: missing from the checkpoint"),
    "tensor too many": (
        tensors(lambda found: found.update({"adapter.weight": found[Q]})),
        "unexpected tensors: adapter.weight",
    ),
    "tensor transposed": (
        tensors(lambda found: found.update({"shared.weight": found["shared.weight"].T.copy()})),
        "shared.weight: has shape",
    ),
    "tensor without axes": (tensors(lambda found: found.update({Q: np.float32(1)[None][0:1]})), "has shape"),
    "tensor of whole numbers": (
        tensors(lambda found: found.update({Q: found[Q].astype(np.int8)})),
        "numbers of type int8",
    ),
    "other embedding for the decoder": (
        tensors(lambda found: found.update({"decoder.embed_tokens.weight": found["shared.weight"] + 1})),
        "an embedding of its own",
    ),
    # shards
    "shard outside of the folder": (index({"a": "../a.safetensors"}), "is not the name of a file in this"),
    "shard by an absolute path": (index({"a": "/etc/passwd"}), "'/etc/passwd' is not the name of a file"),
    "shard in a folder": (index({"a": "sub/a.safetensors"}), "is not the name of a file in this folder"),
    "shard is the folder above": (index({"a": ".."}), "is not the name of a file in this folder"),
    "shard is missing": (index({"a": "b.safetensors"}), "b.safetensors: not found"),
    "shard is a number": (index({"a": 5}), "5: not found"),
    "tensor in two shards": (index({"a": GOOD, "b": "b.safetensors"}, b="b.safetensors"), "is in two shards"),
    "index without a map": (index("{}"), "no weight_map"),
    "index cut short": (index('{"weight_map": {'), "not JSON"),
    "map is a list": (index([GOOD]), "no weight_map"),
    # pickles
    "pickle calls os.system": (pickled(Call(os.system, f"touch {TOUCHED}")), "the file calls posix.system"),
    "old pickle calls os.system": (old_pickle(Call(os.system, f"touch {TOUCHED}")), "calls posix.system"),
    "pickle starts a process": (
        pickled({"w": Call(subprocess.Popen, ["touch", TOUCHED])}),
        r"calls \w+.Popen",
    ),
    "pickle evaluates text": (pickled(Call(eval, f"open({TOUCHED!r}, 'w')")), r"calls \w+.eval"),
    "pickle executes text": (pickled(Call(exec, f"open({TOUCHED!r}, 'w')"), 4), "calls builtins.exec"),
    "pickle imports": (pickled(Call(__import__, "antigravity")), r"calls \w+.__import__"),
    "pickle gets an attribute": (pickled(Call(getattr, {}, "pop")), r"calls \w+.getattr"),
    "pickle removes a file": (pickled(Call(os.remove, WEIGHTS)), "calls posix.remove"),
    "pickle of arrays of numpy": (pickled({"w": np.ones(3)}), "calls numpy"),
    "pickle is a list": (pickled([1, 2]), "not a dictionary of tensors"),
    "pickle without tensors": (pickled({"epoch": 3}), "not a dictionary of tensors alone"),
    "pickle cut short": (
        instead("pytorch_model.bin", zipped(pickle.dumps({"w": 1}, 2)[:-3])),
        "not a complete PyTorch file",
    ),
    "pickle remembers under number 2^32": (
        instead("pytorch_model.bin", zipped(b"\x80\x02}r\xff\xff\xff\xff.")),
        "object 4,294,967,295 after 3 steps",
    ),
    "pickle remembers under a written number": (
        instead("pytorch_model.bin", zipped(b"\x80\x02}p4000000000\n.")),
        "object 4,000,000,000 after 3 steps",
    ),
    "pickle with 2^40 bytes": (
        instead("pytorch_model.bin", zipped(b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00.")),
        "not a complete PyTorch file",
    ),
    "pickle of 100,000 lists": (
        instead("pytorch_model.bin", zipped(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")),
        "not a dictionary of tensors",
    ),
    "two pickles, compressed": (instead("pytorch_model.bin", lying_zip), "not a complete PyTorch file"),
    "PyTorch file of zeros": (instead("pytorch_model.bin", bytes(100)), "not a complete PyTorch file"),
    "big-endian numbers": (
        instead("pytorch_model.bin", zipped(b"\x80\x02}.", byteorder=b"big")),
        "not little-endian",
    ),
    "tensor beyond its storage": (described(1, (4,), (1,)), "reaches beyond its storage"),
    "tensor of 10^12 zeros": (described(0, (HUGE,), (0,)), "larger than its storage"),
    "tensor before its storage": (described(-1, (1,), (1,)), "sizes are not valid"),
    "storage of 10^12 numbers": (described(0, (384, 8), (8, 1), HUGE), "storage 0 has another size"),
    # msgpack
    "msgpack cut short": (flax(named(array([2], "float32", bytes(8)))[:-1]), "it ends in the middle"),
    "msgpack without names": (flax(b"\x93\x01\x02\x03"), "it has no names"),
    "msgpack with a name twice": (flax(named(b"\x01", b"\x02")), "a name is there twice"),
    "msgpack of 2^32 entries": (flax(b"\xdf\xff\xff\xff\xff"), "4,294,967,295 entries"),
    "msgpack of 2^32 values": (flax(named(b"\xdd\xff\xff\xff\xff")), "4,294,967,295 entries"),
    "msgpack with a text of 2^32 bytes": (flax(named(b"\xdb\xff\xff\xff\xff")), "a text of 4,294,967,295"),
    "msgpack 100,000 deep": (flax(b"\x81\xa1w" * 100_000), "too many objects"),
    "msgpack array of 10^12 numbers": (flax(named(array([HUGE], "float32", bytes(8)))), "has 8 bytes"),
    "msgpack array of objects": (flax(named(array([2], "object", bytes(16)))), "an array of type 'object'"),
    "msgpack extension 42": (flax(named(b"\xd4\x2a\x00")), "an extension of type 42"),
    "msgpack of another model": (flax(named(array([2], "float32", bytes(8)))), "missing from the checkpoint"),
    # T5X
    "zarr array without properties": (zarr(), "not an array of zarr"),
    "zarr array of 10^15 numbers": (zarr(shape=[10**9, 10**6]), "1 of .* chunks"),
    "zarr array of 10^15 numbers in one chunk": (
        zarr(shape=[10**9, 10**6], chunks=[10**9, 10**6]),
        "4,000,000,000,000,000 bytes cannot be in 64 on the disk",
    ),
    "zarr array of objects": (zarr(dtype="|O"), "not an array of zarr"),
    "zarr array of whole numbers": (zarr(dtype="<i4"), "missing from the checkpoint|numbers of type"),
    # tokenizers
    "no tokenizer": (removed("tokenizer.json", "tokenizer_config.json"), "there is no tokenizer here"),
    "tokenizer cut short": (text("tokenizer.json", '{"model": {"type": "Unigram"'), "tokenizer.json"),
    "tokenizer of another kind": (
        tokenizer(lambda tree: tree.update(model={"type": "BPE", "vocab": {}, "merges": []})),
        "BPE",
    ),
    "tokenizer with more ids than rows": (config(vocab_size=100), "ids but the model only 100 rows"),
    "token with the number 10^12": (
        tokenizer(lambda tree: tree["added_tokens"][-1].update(id=HUGE)),
        "tokenizer.json",
    ),
    "SentencePiece model of zeros": (
        both(removed("tokenizer.json"), text("spiece.model", bytes(100))),
        "spiece.model",
    ),
    "10^9 sentinels": (
        both(
            removed("tokenizer.json"),
            text("tokenizer_config.json", '{"extra_ids": 1000000000}'),
            lambda folder: (folder / "spiece.model").write_bytes(PIECES) and None,
        ),
        "extra_ids",
    ),
}
PIECES = b""
"""A SentencePiece model, which the test sets."""
