"""The weights in a folder or file of another project, under the names of Hugging Face's checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from t5smith.base.errors import T5smithError
from t5smith.base.hub import download_first
from t5smith.interop.msgpack_file import read_msgpack
from t5smith.interop.other_names import from_flax, from_t5x, is_t5x
from t5smith.interop.pytorch_file import read_pytorch
from t5smith.interop.safetensors_file import AGAIN, read_safetensors, unique
from t5smith.interop.stored_tensor import StoredTensor

_READERS: dict[str, Callable[[Path], dict[str, StoredTensor]]] = {
    "model.safetensors": read_safetensors,
    "flax_model.msgpack": lambda path: from_flax(read_msgpack(path)),
    "pytorch_model.bin": read_pytorch,
}
"""Files with weights in a Hugging Face folder, the best first. Each may be cut into shards with an index."""
WEIGHT_FILES = tuple(_READERS)
INDEX = ".index.json"
"""Ends the name of the list of a file's shards."""
_TENSORFLOW = "tf_model.h5"


def weight_file(names: Iterable[str]) -> str:
    """Of the files in a folder, the one that is read: weights, or an index of shards; "" if there is none."""
    names = set(names)
    candidates = (one for weights in WEIGHT_FILES for one in (weights, weights + INDEX))
    return next((name for name in candidates if name in names), "")


def read_weights(folder: Path) -> dict[str, StoredTensor]:
    """The weights of a Hugging Face folder: safetensors, else Flax's msgpack, else PyTorch's pickle.

    Raises:
      T5smithError: there are none, a file is damaged, or a shard is missing.
    """
    found = weight_file(entry.name for entry in folder.iterdir())
    if not found:
        if (folder / _TENSORFLOW).is_file():
            fix = (
                "convert it where TensorFlow and transformers 4 are installed: T5ForConditionalGeneration."
                "from_pretrained(FOLDER, from_tf=True).save_pretrained(FOLDER)"
            )
            raise T5smithError("TensorFlow's weights are not read", where=folder / _TENSORFLOW, fix=fix)
        expected = f"one of {', '.join(WEIGHT_FILES)}"
        raise T5smithError("no weights", where=folder, expected=expected, fix=AGAIN)
    reader = next(read for weights, read in _READERS.items() if found.startswith(weights))
    if found in _READERS:
        return reader(folder / found)
    tensors: dict[str, StoredTensor] = {}
    for name in shards(folder / found):
        path = folder / name
        if not path.is_file():
            raise T5smithError("not found", where=path, expected=f"a shard that {found} lists", fix=AGAIN)
        shard = reader(path)
        if twice := sorted(shard.keys() & tensors.keys()):
            raise T5smithError(f"{twice[0]!r} is in two shards", where=path, fix=AGAIN)
        tensors |= shard
    return tensors


def shards(index: Path) -> list[str]:
    """The names of the shards that an index lists, all in its folder.

    Raises:
      T5smithError: it is damaged, or names a file elsewhere.
    """
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict):
        raise T5smithError("no weight_map", where=index, fix=AGAIN)
    names = sorted({str(name) for name in cast("dict[str, Any]", listed).values()})
    for name in names:
        # A name such as ../other/file would be read from outside of the folder.
        if name != Path(name).name or name in ("", ".", ".."):
            raise T5smithError(f"{name!r} is not the name of a file in this folder", where=index, fix=AGAIN)
    return names


def read_t5x(path: Path) -> dict[str, StoredTensor]:
    """The parameters of a T5X checkpoint: one msgpack file, or a folder with an array of zarr for each.

    Raises:
      T5smithError: it is damaged, or no T5X checkpoint.
    """
    if path.is_file():
        tensors = read_msgpack(path)
    else:
        from t5smith.interop.zarr_folder import read_zarr_folder

        tensors = read_zarr_folder(path)
        if (path / "checkpoint").is_file():  # it has what is small
            tensors = read_msgpack(path / "checkpoint") | tensors
    if not is_t5x(tensors):
        expected = "target.token_embedder.embedding and the other parameters"
        raise T5smithError("not a T5X checkpoint of a T5", where=path, expected=expected)
    return from_t5x(tensors)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      T5smithError: it is missing, unreadable, or something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except (FileNotFoundError, NotADirectoryError):
        raise T5smithError(
            "not found",
            where=path,
            expected="a run folder or a Hugging Face model folder",
            fix=None if path.parent.is_dir() else download_first(str(path.parent)),
        ) from None
    except OSError as error:
        raise T5smithError(f"cannot be read ({error.strerror})", where=path) from None
    except (ValueError, RecursionError) as error:
        raise T5smithError(f"not JSON ({error})", where=path, fix=AGAIN) from None
    if not isinstance(value, dict):
        raise T5smithError("not a JSON object", where=path)
    return cast("dict[str, Any]", value)
