"""Counter-based random numbers: row r of a stream is a function of (seed, stream, r), in any order of access.

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) is a function of a key, here
(seed, stream), and a counter, here the row. There is no generator state.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt64

TRAINING, EVALUATION, EXAMPLES, SHIFTS, ORDER, CHOICE = range(6)
"""Independent streams of random numbers."""

_BLOCK = 4
"""Numbers that Philox gives per value of its counter."""


def generator(seed: int, stream: int, *step: int) -> np.random.Generator:
    """A generator for one step of a stream, independent of those of all other steps."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, stream, *step))))


def uniforms(seed: int, stream: int, first: int, rows: int, draws: int) -> Float[np.ndarray, "rows draws"]:
    """Uniform numbers in [0, 1) with 53 random bits, for rows `first` to `first + rows` of a stream.

    Row r depends only on (seed, stream, r, draws).
    """
    blocks = -(-draws // _BLOCK)
    raw = np.random.Philox(key=_key(seed, stream), counter=first * blocks).random_raw(rows * blocks * _BLOCK)
    return (raw >> np.uint64(11)).astype(np.float64).reshape(rows, -1)[:, :draws] * 2.0**-53


@lru_cache
def _key(seed: int, stream: int) -> UInt64[np.ndarray, " 2"]:
    return np.random.SeedSequence((seed, stream)).generate_state(2, np.uint64)
