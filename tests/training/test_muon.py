"""Muon beside the same computation in float64, matrix by matrix."""

from __future__ import annotations

from functools import cache, partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs import CPU, init
from t5smith.model.config import ModelConfig
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
from t5smith.training.adafactor import MIN_SCALE
from t5smith.training.muon import COEFFICIENTS, MOMENTUM, orthogonal
from t5smith.training.optimizer import (
    MUON_RMS,
    MUON_SHARE,
    apply_gradient,
    create_optimizer,
    init_optimizer,
)
from t5smith.training.schedule import create_schedule

CONFIG = ModelConfig(
    256, 256, d_model=128, d_kv=64, d_ff=192, num_layers=3, num_decoder_layers=2, num_heads=2
)
RATE = 0.01
TOLERANCE = 0.02
"""Of an update with bfloat16 operands: the length of its error over its own. If all singular values are equal
it is the width of the band that they end in: there a small change of all becomes a large one."""
BAND = 0.25
LOWEST = 0.005
"""The lowest singular value that is mapped near 1."""


def iterated(x):
    """The iteration of one matrix in float64."""
    if len(x) > len(x[0]):
        return iterated(x.T).T
    x = x / np.linalg.norm(x)
    x /= np.sqrt(np.abs(x @ x.T).sum(1, keepdims=True))
    for a, b, c in COEFFICIENTS:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x * max(x.shape) ** 0.5


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@cache
def compiled_orthogonal(heads, heads_in_rows):
    return jax.jit(partial(orthogonal, heads=heads, backend=CPU.backend, heads_in_rows=heads_in_rows))


def layers_of(shape, seed=0, spectrum=0.0):
    """Matrices whose singular values fall as a power of their number."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    u, _, v = np.linalg.svd(x, full_matrices=False)
    s = np.arange(1, u.shape[-1] + 1.0) ** -spectrum
    return ((u * s) @ v).astype(np.float32)


@pytest.mark.parametrize("shape", [(64, 128), (128, 64), (96, 96), (16, 1)])
@pytest.mark.parametrize("spectrum", [0.0, 0.5, 1.0])
def test_matrices_of_all_layers_equal_the_iteration_in_float64(shape, spectrum):
    x = layers_of((3, *shape), spectrum=spectrum) * np.float32([1e-6, 1.0, 1e6])[:, None, None]
    for found, layer in zip(np.asarray(compiled_orthogonal(1, True)(x)), x, strict=True):
        assert error(found, iterated(layer.astype(np.float64))) < (TOLERANCE if spectrum else BAND)


def test_heads_are_made_orthogonal_separately():
    x = layers_of((2, 128, 64), spectrum=0.5)
    side_by_side = np.asarray(compiled_orthogonal(4, False)(x))
    for head in range(4):
        columns = slice(16 * head, 16 * (head + 1))
        for found, layer in zip(side_by_side, x, strict=True):
            assert error(found[:, columns], iterated(layer[:, columns])) < TOLERANCE
    below = np.asarray(compiled_orthogonal(4, True)(np.swapaxes(x, 1, 2)))
    assert error(below, np.swapaxes(side_by_side, 1, 2)) < TOLERANCE
    assert error(np.asarray(compiled_orthogonal(1, True)(x)), side_by_side) > 0.1


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), spectrum=st.floats(0, 3), rank=st.integers(1, 32))
def test_singular_values_end_near_one_or_below(seed, spectrum, rank):
    x = layers_of((1, 32, 48), seed, spectrum)
    u, s, v = np.linalg.svd(x[0], full_matrices=False)
    s[rank:] = 0
    (y,) = np.asarray(compiled_orthogonal(1, True)(((u * s) @ v)[None].astype(np.float32))) / 48**0.5
    assert np.linalg.svd(y, compute_uv=False).max() < 1.15


def test_a_matrix_of_zeros_stays_one():
    assert not np.asarray(compiled_orthogonal(1, True)(np.zeros((1, 32, 48), np.float32))).any()


def test_each_polynomial_is_the_best_for_what_those_before_return():
    """By Chebyshev's theorem the best of three terms has its greatest error at four points, in turn."""
    low, high = LOWEST, 1.0
    for a, b, c in COEFFICIENTS:
        x = np.linspace(low, 1.05 * high, 1_000_001)
        off = a * x + b * x**3 + c * x**5 - 1
        most = np.abs(off).max()
        signs = np.sign(off[np.abs(off) > most * 0.99])
        assert list(signs[np.flatnonzero(np.diff(signs, prepend=0))]) == [-1, 1, -1, 1]
        low, high = 1 - most, 1 + most
    assert high < 1.13


@pytest.mark.parametrize("name", [pytest.param("muon", marks=pytest.mark.slow), "muon_adafactor"])
def test_updates_of_matrices_equal_a_computation_in_float64(name):
    schedule = create_schedule(ScheduleSettings(name="constant"), RATE, 10)
    muon = OptimizerSettings(name=name, learning_rate=RATE, clip_norm=None)
    optimizer = create_optimizer(muon, schedule, CONFIG.num_heads, CPU.backend)
    before = after = init(CONFIG, jax.random.key(0))
    state = jax.jit(partial(init_optimizer, optimizer))(before)
    apply = jax.jit(partial(apply_gradient, optimizer))
    leaves, structure = jax.tree.flatten(before)
    rng = np.random.default_rng(0)
    gradients = [
        [rng.standard_normal(leaf.shape, np.float32) * 10.0**-step for leaf in leaves] for step in range(3)
    ]
    for gradient in gradients:
        after, state, _ = apply(jax.tree.unflatten(structure, gradient), state, after, np.True_)
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(before)[0]]
    seen = 0
    for number, (path, start, end) in enumerate(zip(paths, leaves, jax.tree.leaves(after), strict=True)):
        if start.ndim < 3:
            continue
        block, last = path[-2].name, path[-1].name
        for layer in range(len(start)):
            w, mu = np.asarray(start[layer], np.float64), 0.0
            for step, gradient in enumerate(gradients, 1):
                g = np.asarray(gradient[number][layer], np.float64)
                mu = MOMENTUM * mu + (1 - MOMENTUM) * g
                nesterov = MOMENTUM * mu / (1 - MOMENTUM ** (step + 1)) + (1 - MOMENTUM) * g / (
                    1 - MOMENTUM**step
                )
                heads = CONFIG.num_heads if "attention" in block else 1
                parts = np.split(nesterov, heads, axis=0 if last == "o" else 1)
                direction = np.concatenate([iterated(part) for part in parts], axis=0 if last == "o" else 1)
                scale = MUON_RMS
                if name == "muon_adafactor":
                    scale = MUON_SHARE * max(np.sqrt((w**2).mean()), MIN_SCALE)
                w = w - RATE * scale * direction
            start_of_layer = np.asarray(start[layer], np.float64)
            assert error(np.asarray(end[layer]) - start_of_layer, w - start_of_layer) < TOLERANCE
            seen += 1
    assert seen == 3 * 7 + 2 * 11
