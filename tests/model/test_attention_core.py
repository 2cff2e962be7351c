"""Attention row by row, with its own backward pass, equals plain attention and its gradients."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from programs import COMPUTES, CPU, XLA
from t5smith.model.attention.masks import MASKED, SegmentIds
from t5smith.model.attention.multi_head import dot_product_attention
from t5smith.model.compute import Compute
from t5smith.model.dropout import Dropout

B, Q, S, H, K = 3, 5, 7, 2, 4


def attention_inputs(seed=0):
    keys = jax.random.split(jax.random.key(seed), 5)
    q = jax.random.normal(keys[0], (B, Q, H * K))
    k, v = (jax.random.normal(key, (B, S, H * K)) for key in keys[1:3])
    bias = jax.random.normal(keys[3], (H, Q, S))
    cotangent = jax.random.normal(keys[4], (B, Q, H * K))
    return q, k, v, bias, cotangent


SEGMENT_IDS = {
    "all": SegmentIds(jnp.ones((B, 1), jnp.int32), jnp.ones((B, S), jnp.int32)),
    "padding": SegmentIds(
        jnp.ones((B, 1), jnp.int32), (jnp.arange(S)[None] < jnp.array([[7], [4], [1]])).astype(jnp.int32)
    ),
    "segments": SegmentIds(
        jnp.array([[1, 1, 2, 2, 0], [1, 2, 3, 3, 3], [1, 1, 1, 1, 1]]),
        jnp.array([[1, 2, 2, 2, 0, 0, 0], [1, 1, 1, 2, 3, 3, 3], [1, 1, 1, 1, 1, 1, 0]]),
    ),
}


def reference(q, k, v, bias, segment_ids):
    """The definition, head by head and row by row, gradients by JAX."""
    rows = []
    for b in range(B):
        heads = []
        seen = segment_ids.queries[b][:, None] == segment_ids.keys[b][None, :]
        for h in range(H):
            part = slice(h * K, (h + 1) * K)
            scores = q[b, :, part] @ k[b, :, part].T + bias[h] + jnp.where(seen, 0.0, MASKED)
            heads.append(jax.nn.softmax(scores, axis=-1) @ v[b, :, part])
        rows.append(jnp.concatenate(heads, axis=-1))
    return jnp.stack(rows)


def both(function):
    """The function's value and its gradients to q, k, v and bias."""

    def run(q, k, v, bias, cotangent):
        value, back = jax.vjp(function, q, k, v, bias)
        return [value, *back(cotangent)]

    return jax.jit(run)(*attention_inputs())


@cache
def wanted_of(segment_ids):
    return both(lambda q, k, v, bias: reference(q, k, v, bias, SEGMENT_IDS[segment_ids]))


@pytest.mark.parametrize("segment_ids", SEGMENT_IDS)
@COMPUTES
def test_value_and_gradients_are_those_of_the_definition(segment_ids, compute):
    got = both(lambda q, k, v, bias: dot_product_attention(q, k, v, bias, SEGMENT_IDS[segment_ids], compute))
    for ours, theirs in zip(got, wanted_of(segment_ids), strict=True):
        assert ours.dtype == jnp.float32
        if compute.dtype == jnp.float32:
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.05 * float(jnp.abs(theirs).max()))


@COMPUTES
def test_all_products_have_operands_in_one_precision(compute):
    """Also those of the backward pass, where JAX's own rules would take a float32 operand."""
    q, k, v, bias, cotangent = attention_inputs()

    def run(q, k, v):
        value, back = jax.vjp(
            lambda q, k, v: dot_product_attention(q, k, v, bias, SEGMENT_IDS["all"], compute), q, k, v
        )
        return value, back(cotangent)

    text = jax.jit(run).lower(q, k, v).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    name = "bf16" if compute.dtype == jnp.bfloat16 else "f32"
    assert len(products) >= 6
    for line in products:
        operands = line.split(" : (")[1].split(") -> ")[0].split(", ")
        assert all(operand.endswith(f"x{name}>") for operand in operands), line
        assert ("precision = [HIGHEST, HIGHEST]" in line) == (compute == XLA), line


@COMPUTES
def test_dropout_drops_the_same_weights_in_both_passes(compute):
    # The output is linear in v for any dropout mask, so its gradient to v shows which weights were kept.
    q, k, v, bias, cotangent = attention_inputs()
    dropout = Dropout(jax.random.key(3), 0.4)

    def of_values(v):
        return dot_product_attention(q, k, v, bias, SEGMENT_IDS["padding"], compute, dropout)

    def value_and_gradient(v):
        value, back = jax.vjp(of_values, v)
        return value, back(cotangent)[0]

    value, gradient = jax.jit(value_and_gradient)(v)
    rtol = 1e-4 if compute.dtype == jnp.float32 else 0.1
    np.testing.assert_allclose(float((gradient * v).sum()), float((value * cotangent).sum()), rtol=rtol)

    exact = Compute(jnp.dtype(jnp.float32), compute.backend)

    @jax.jit
    def scalar(q, k, bias):
        return (
            dot_product_attention(q, k, v, bias, SEGMENT_IDS["padding"], exact, dropout) * cotangent
        ).sum()

    gradients = jax.jit(jax.grad(scalar, argnums=(0, 1, 2)))(q, k, bias)
    for position, argument in enumerate((q, k, bias)):
        direction = jax.random.normal(jax.random.key(9), argument.shape)
        arguments = [q, k, bias]

        def along(t, position=position, argument=argument, direction=direction, arguments=arguments):
            return scalar(
                *(argument + t * direction if i == position else a for i, a in enumerate(arguments))
            )

        slope = (along(1e-2) - along(-1e-2)) / 2e-2
        assert float((gradients[position] * direction).sum()) == pytest.approx(float(slope), rel=2e-2)


def test_dropout_keeps_the_mean():
    q, k, v, bias, _ = attention_inputs()

    def mixed(key):
        return dot_product_attention(q, k, v, bias, SEGMENT_IDS["all"], CPU, Dropout(key, 0.25))

    many = jax.jit(lambda keys: jax.lax.map(mixed, keys))(jax.random.split(jax.random.key(0), 400))
    exact = dot_product_attention(q, k, v, bias, SEGMENT_IDS["all"], CPU)
    mean = many.mean(axis=0)
    assert float((mean * exact).sum() / jnp.square(exact).sum()) == pytest.approx(1.0, abs=0.05)
    assert float(jnp.abs(many[0] - many[1]).max()) > 0.1
