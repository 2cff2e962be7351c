"""Attention with a learned position bias: which backends run here, how exact and how fast they are.

Contenders: the plain products and softmax of t5smith, the same one row at a time as on CPU, and cuDNN's
fused kernel through `jax.nn.dot_product_attention`; PyTorch's run in the part `peer`'s process.

Shapes: B rows, Q query and S key positions, H heads, K d_kv.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gpu_parts.facts import seconds_of
from gpu_parts.results import Results
from gpu_parts.scale import Scale

Attend = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def plain(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, seen: jax.Array) -> jax.Array:
    """The definition: softmax(q k + bias) v, without a scale; `seen` (B, 1, Q, S) masks keys."""
    scores = jnp.einsum("bqhk,bshk->bhqs", q, k, preferred_element_type=jnp.float32) + bias
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e9), axis=-1)
    return jnp.einsum("bhqs,bshk->bqhk", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)


def fused(implementation: str) -> Attend:
    """`jax.nn.dot_product_attention` of one implementation."""

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, seen: jax.Array) -> jax.Array:
        return jax.nn.dot_product_attention(
            q, k, v, bias.astype(q.dtype), seen, scale=1.0, implementation=implementation
        )

    return attend


def by_row(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, seen: jax.Array) -> jax.Array:
    """t5smith's backend for CPU, wherever it runs: queries see the keys of their own number."""
    from t5smith.model.attention.cpu import attend_by_row
    from t5smith.model.attention.masks import SegmentIds

    B, Q, H, K = q.shape
    keys = jnp.where(seen[:, 0, 0], 1, 0)
    ids = SegmentIds(jnp.ones((B, 1), jnp.int32), keys.astype(jnp.int32))
    flat = [x.reshape(B, x.shape[1], H * K) for x in (q, k, v)]
    return attend_by_row(*flat, bias[0], ids, None, jnp.dtype(q.dtype), 0.0).reshape(B, Q, H, K)


BACKENDS: dict[str, Attend] = {
    "plain": plain,
    "by row": by_row,
    "cudnn": fused("cudnn"),
    "jax.nn xla": fused("xla"),
}


def inputs(
    B: int, Q: int, S: int, H: int, K: int, dtype: Any, pattern: str = "full"
) -> tuple[jax.Array, ...]:
    """Random q, k, v, bias (1, H, Q, S), mask (B, 1, Q, S), and a gradient of the output.

    Args:
      pattern: `full`, or `padded`: the last fifth of the keys is not seen.
    """
    keys = jax.random.split(jax.random.key(0), 5)
    q, g = (jax.random.normal(key, (B, Q, H, K), dtype) * K**-0.25 for key in (keys[0], keys[4]))
    k, v = (jax.random.normal(key, (B, S, H, K), dtype) * K**-0.25 for key in keys[1:3])
    bias = jax.random.normal(keys[3], (1, H, Q, S), jnp.float32)
    used = S if pattern == "full" else max(1, S * 4 // 5)
    seen = jnp.broadcast_to(jnp.arange(S) < used, (B, 1, Q, S))
    return q, k, v, bias, seen, g


def with_gradient(attend: Attend) -> Callable[..., Any]:
    """Output and gradients of q, k, v and bias."""

    def run(q: Any, k: Any, v: Any, bias: Any, seen: Any, g: Any) -> Any:
        out, back = jax.vjp(lambda q, k, v, bias: attend(q, k, v, bias, seen), q, k, v, bias)
        return out, back(g.astype(out.dtype))

    return jax.jit(run)


def reference(arguments: tuple[jax.Array, ...]) -> list[np.ndarray]:
    """The definition in float32 on the CPU, whose products are float32's."""
    cpu = jax.devices("cpu")[0]
    moved = [
        jax.device_put(np.asarray(x.astype(jnp.float32) if x.dtype != jnp.bool_ else x), cpu)
        for x in arguments
    ]
    with jax.default_device(cpu), jax.default_matmul_precision("highest"):
        found = with_gradient(plain)(*moved)
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found)]


def errors(attend: Attend, arguments: tuple[jax.Array, ...]) -> dict[str, float]:
    """Relative errors of the output and the four gradients against the definition."""
    found = jax.tree.leaves(with_gradient(attend)(*arguments))
    names = ("out", "dq", "dk", "dv", "dbias")
    pairs = zip(names, found, reference(arguments), strict=True)
    return {
        name: float(np.linalg.norm(np.asarray(ours, np.float64) - true) / np.linalg.norm(true))
        for name, ours, true in pairs
    }


def milliseconds(attend: Attend, arguments: tuple[jax.Array, ...], repeats: int) -> dict[str, float]:
    """Time of the output, and of the output with all gradients."""
    forward, both = jax.jit(attend), with_gradient(attend)
    return {
        "forward_ms": 1e3 * seconds_of(lambda: forward(*arguments[:5]), repeats),
        "with_gradient_ms": 1e3 * seconds_of(lambda: both(*arguments), repeats),
    }


def measure(results: Results, scale: Scale) -> None:
    """Fill the part `attention`: whether each backend runs with a bias and its gradient, and its time."""
    dtypes = {"bfloat16": jnp.bfloat16, "float16": jnp.float16, "float32": jnp.float32}
    B = 2 if scale.rehearse else 32
    H = 2 if scale.rehearse else 12

    def runs() -> None:
        for Q, S in scale.lengths:
            for K in scale.head_sizes:
                for dtype in dtypes:
                    for pattern in ("full", "padded"):
                        names = {"dtype": dtype, "queries": Q, "keys": S, "d_kv": K, "keys seen": pattern}
                        arguments = inputs(2, Q, S, 2, K, dtypes[dtype], pattern)
                        with results.attempt(what="cuDNN with a bias", **names) as row:
                            row |= errors(BACKENDS["cudnn"], arguments)
                        if results.left() <= 0:
                            return

    def times() -> None:
        for Q, S in scale.lengths:
            for name, attend in BACKENDS.items():
                arguments = inputs(B, Q, S, H, scale.head_sizes[0], jnp.bfloat16)
                names = {"queries": Q, "keys": S, "backend": name}
                with results.attempt(what=f"time, {B} rows, bfloat16", **names) as row:
                    row |= milliseconds(attend, arguments, scale.repeats)
                if results.left() <= 0:
                    return

    results.run([("time", times), ("cuDNN with a bias", runs)])
