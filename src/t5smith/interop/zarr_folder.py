"""The arrays of a T5X checkpoint whose parameters are folders of zarr, one for each, read by tensorstore.

A folder is named by the path of its parameter: `target.encoder.layers_0.mlp.wi_0.kernel`.
(github.com/google-research/t5x, its module checkpoints)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.interop.safetensors_file import AGAIN
from t5smith.interop.stored_tensor import DTYPES, StoredTensor

PARAMETERS = "target."
"""The beginning of the names of the parameters' folders; others are of the optimizer."""

MOST_COMPRESSED = 1_100
"""Times that a number of bytes shrinks at most, by gzip, with which T5X compresses."""


def read_zarr_folder(folder: Path) -> dict[str, StoredTensor]:
    """The parameters in a folder, by name. Their numbers are read later.

    Raises:
      T5smithError: one of them cannot be opened.
    """
    found = (place for place in sorted(folder.iterdir()) if place.name.startswith(PARAMETERS))
    return {place.name: _stored(place) for place in found if (place / ".zarray").is_file()}


def _stored(place: Path) -> StoredTensor:
    array = _opened(place)
    shape, name = tuple(array.shape), array.dtype.name
    if name not in DTYPES:
        raise T5smithError(f"numbers of type {name}", where=place, expected=f"one of {', '.join(DTYPES)}")
    # Chunks that are missing count as zeros: there must be as many as the sizes need.
    chunks = array.chunk_layout.read_chunk.shape
    needed = math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True))
    there = [entry.stat().st_size for entry in place.iterdir() if entry.name != ".zarray"]
    if len(there) < needed:
        raise T5smithError(f"{len(there)} of {needed} chunks", where=place, fix=AGAIN)
    size = math.prod(shape) * DTYPES[name].itemsize
    if size > MOST_COMPRESSED * sum(there):
        raise T5smithError(f"{size:,} bytes cannot be in {sum(there):,} on the disk", where=place, fix=AGAIN)

    def load() -> np.ndarray:
        try:
            return np.asarray(_opened(place).read().result())
        except ValueError as error:
            raise T5smithError(f"cannot be read ({_first(error)})", where=place, fix=AGAIN) from None

    return StoredTensor(shape, DTYPES[name], load)


def _opened(place: Path) -> Any:
    import tensorstore

    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{place}/"}}
    try:
        return tensorstore.open(spec, open=True, read=True).result()
    except ValueError as error:
        raise T5smithError(f"not an array of zarr ({_first(error)})", where=place, fix=AGAIN) from None


def _first(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
