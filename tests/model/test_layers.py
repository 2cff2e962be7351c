"""The backward passes of our own: those of the definitions, from less that is kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from programs import COMPUTES, CPU_BFLOAT16
from t5smith.model.layers import feed_forward, norm
from t5smith.model.params import FeedForward

N, D, F = 5, 8, 12


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def assert_near(ours, theirs, tolerance):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * float(jnp.abs(other).max()), rtol=0)


def test_the_gradient_of_the_norm_is_that_of_its_definition():
    def defined(x, scale):
        return x / jnp.sqrt(jnp.square(x).mean(axis=1, keepdims=True) + 1e-6) * scale[None]

    x, scale, g = arrays((N, D), (D,), (N, D))
    value, gradients = jax.vjp(lambda *args: norm(*args, 1e-6), x, scale)
    expected, definition = jax.vjp(defined, x, scale)
    assert_near((value, gradients(g)), (expected, definition(g)), 1e-6)


@COMPUTES
def test_the_gradient_of_the_gated_feed_forward_is_that_of_its_definition(compute):
    def defined(x, w0, w1, wo):
        return (jax.nn.gelu(x @ w0, approximate=True) * (x @ w1)) @ wo

    x, w0, w1, wo, g = arrays((N, D), (D, F), (D, F), (F, D), (N, D))
    value, gradients = jax.vjp(lambda x, *w: feed_forward(x, FeedForward(*w), compute), x, w0, w1, wo)
    expected, definition = jax.vjp(defined, x, w0, w1, wo)
    tolerance = 1e-5 if compute.dtype == jnp.float32 else 2e-2
    assert_near((value, gradients(g)), (expected, definition(g)), tolerance)


def test_the_feed_forward_keeps_its_input_and_its_two_products():
    x, *weights = arrays((N, D), (D, F), (D, F), (F, D))
    _, backward = jax.vjp(lambda x, *w: feed_forward(x, FeedForward(*w), CPU_BFLOAT16), x, *weights)
    kept = {(leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(backward)}
    kept = sorted((str(dtype), shape) for dtype, shape, _ in kept if shape in {(N, D), (N, F)})
    assert kept == [("bfloat16", (N, D)), ("bfloat16", (N, F)), ("float32", (N, F)), ("float32", (N, F))]


def test_the_norm_keeps_its_input_and_one_factor_per_token():
    x, scale = arrays((N, D), (D,))
    _, backward = jax.vjp(lambda *args: norm(*args, 1e-6), x, scale)
    assert sorted(leaf.size for leaf in jax.tree.leaves(backward)) == sorted([N * D, N, D])
