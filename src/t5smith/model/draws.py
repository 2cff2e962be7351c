"""Random numbers of many arrays in one small program, the same as jax.random draws them one by one.

A program with a `jax.random.normal` for each array takes longer to compile than all else before the first
step of a small model. Here one loop makes blocks of them all.

Shapes: A arrays, B the numbers of a block.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

BLOCK = 1 << 16
"""Numbers made at once."""
ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = 0x1BD11BDA
EXPONENT_OF_ONE = 0x3F800000
MANTISSA_BITS = 23
_LEAST = float(np.nextafter(np.float32(-1), np.float32(0)))


Keys = tuple[UInt32[Array, " A"], UInt32[Array, " A"]]
"""The first and the second words of keys."""


def split(key: PRNGKeyArray, count: int) -> Keys:
    """The two words of each of the keys that `jax.random.split` gives."""
    data = jax.random.key_data(key)
    return threefry(data[0], data[1], jnp.arange(count, dtype=jnp.uint32))


def threefry(
    key: UInt32[Array, "#B"] | UInt32[Array, ""],
    other: UInt32[Array, "#B"] | UInt32[Array, ""],
    number: UInt32[Array, "*B"],
) -> tuple[UInt32[Array, "*B"], UInt32[Array, "*B"]]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011) of the pairs (0, number), with a key of two words.

    JAX's own (`jax.extend.random.threefry2x32_p`) has loops within on CPU and takes five times as long.
    """
    words = key, other, key ^ other ^ jnp.uint32(PARITY)
    x, y = jnp.broadcast_to(words[0], number.shape), number + words[1]
    for turn in range(5):
        for bits in ROTATIONS[turn % 2]:
            x = x + y
            y = x ^ ((y << jnp.uint32(bits)) | (y >> jnp.uint32(32 - bits)))
        x = x + words[(turn + 1) % 3]
        y = y + words[(turn + 2) % 3] + jnp.uint32(turn + 1)
    return x, y


def uniform(
    pair: tuple[UInt32[Array, "*B"], UInt32[Array, "*B"]], low: float, high: float
) -> Float[Array, "*B"]:
    """Numbers from `low` to `high`, as `jax.random.uniform` makes them of Threefry's pairs."""
    bits = (pair[0] ^ pair[1]) >> jnp.uint32(32 - MANTISSA_BITS)
    share = jax.lax.bitcast_convert_type(bits | jnp.uint32(EXPONENT_OF_ONE), jnp.float32) - 1.0
    least, most = np.float32(low), np.float32(high)
    return jnp.maximum(least, share * (most - least) + least)


def spread_normals(keys: Keys, shapes: Sequence[tuple[int, ...]], stds: Sequence[float]) -> list[Array]:
    """What :func:`normals` gives, number by number, so that each device can make those of its part."""
    return [
        _normal(keys[0][n], keys[1][n], _numbers(shape), std)
        for n, (shape, std) in enumerate(zip(shapes, stds, strict=True))
    ]


def _normal(key: Array, other: Array, number: UInt32[Array, "*shape"], std: float) -> Float[Array, "*shape"]:
    pair = threefry(key, other, number)
    scale = np.float32(np.sqrt(2)) * np.float32(std)
    return jax.lax.erf_inv(uniform(pair, _LEAST, 1.0)) * scale


def _numbers(shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """The numbers from 0, in the order of the last axis first, without a reshape that would gather them."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    number = jnp.zeros(shape, jnp.uint32)
    for axis, stride in enumerate(strides):
        number += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    return number


def normals(keys: Keys, shapes: Sequence[tuple[int, ...]], stds: Sequence[float]) -> list[Array]:
    """Normal numbers: `std * jax.random.normal(key, shape)` of each key, float32."""
    sizes = [math.prod(shape) for shape in shapes]
    blocks = [-(-size // BLOCK) for size in sizes]
    scales = np.float32(np.sqrt(2)) * np.array(stds, np.float32)

    def block(item: tuple[Array, Array]) -> Float[Array, " B"]:
        array, first = item
        number = first + jnp.arange(BLOCK, dtype=jnp.uint32)
        pair = threefry(keys[0][array], keys[1][array], number)
        return jax.lax.erf_inv(uniform(pair, _LEAST, 1.0)) * jnp.asarray(scales)[array]

    arrays = np.repeat(np.arange(len(sizes), dtype=np.int32), blocks)
    firsts = np.concatenate([np.arange(count, dtype=np.uint32) * np.uint32(BLOCK) for count in blocks])
    flat = jax.lax.map(block, (arrays, firsts)).reshape(-1)
    starts = [BLOCK * before for before in itertools.accumulate(blocks, initial=0)]
    return [
        jax.lax.slice(flat, (start,), (start + size,)).reshape(shape)
        for start, size, shape in zip(starts[:-1], sizes, shapes, strict=True)
    ]
