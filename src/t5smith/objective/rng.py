"""Random numbers by place: row r of a stream is the same whoever asks, in whatever order and company.

Nothing is drawn "next". Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) is a
function of a key, here (seed, stream), and of a counter, here the number of the row.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float

TRAINING, EVALUATION, EXAMPLES, SHIFTS, ORDER = range(5)
"""Streams of random numbers, independent of each other."""

_BLOCK = 4
"""Numbers that Philox gives for one value of its counter."""


def generator(seed: int, stream: int, step: int) -> np.random.Generator:
    """All the random numbers of one step, independent of those of every other step."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, stream, step))))


def uniforms(seed: int, stream: int, first: int, rows: int, draws: int) -> Float[np.ndarray, "rows draws"]:
    """Numbers in [0, 1) with 53 random bits: those of rows `first` to `first + rows`.

    Row r depends on (seed, stream, r, draws) alone.
    """
    blocks = -(-draws // _BLOCK)
    raw = np.random.Philox(key=_key(seed, stream), counter=first * blocks).random_raw(rows * blocks * _BLOCK)
    return (raw >> np.uint64(11)).astype(np.float64).reshape(rows, -1)[:, :draws] * 2.0**-53


@lru_cache
def _key(seed: int, stream: int) -> np.ndarray:
    return np.random.SeedSequence((seed, stream)).generate_state(2, np.uint64)
