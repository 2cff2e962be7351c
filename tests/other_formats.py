"""Models in the formats of other projects, as their own programs write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tensorstore


def as_flax(tensors: Mapping[str, np.ndarray]) -> dict:
    """Tensors of PyTorch's names as Flax in transformers names them: nested, matrices as (in, out)."""
    tree: dict = {}
    for name, array in tensors.items():
        *above, last = name.split(".")
        if above[-1] in ("shared", "embed_tokens", "relative_attention_bias"):
            last = "embedding"
        elif array.ndim == 2:
            array, last = np.ascontiguousarray(array.T), "kernel"
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[last] = array
    return tree


def write_zarr(folder: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> Path:
    """Arrays of zarr in chunks, a folder for each name, as in T5X's partitioned checkpoints."""
    for name, array in arrays:
        spec = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": str(folder / name)},
            "metadata": {
                "shape": array.shape,
                "chunks": [-(-size // 2) for size in array.shape],
                "dtype": "<f4",
                "compressor": {"id": "gzip", "level": 1},
            },
        }
        tensorstore.open(spec, create=True).result().write(array).result()
    return folder
