"""Where the time of a training step goes: its parts, each compiled and timed alone at the step's shapes.

Beside each is the least time that this machine could take: the operations of its products at the measured
speed of products, the bytes that it must read and write at the measured speed of memory. What is left of the
step is the remainder: norms, GELU, embeddings, sums.

Shapes: B rows of a micro-batch, S input and T target positions, D d_model.
"""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from t5smith.benchmarking.inputs import seconds_per_batch
from t5smith.benchmarking.trial import Trial
from t5smith.model.attention.masks import SegmentIds
from t5smith.model.attention.multi_head import dot_product_attention
from t5smith.model.compute import Compute
from t5smith.model.flops import step_flops_by_part
from t5smith.model.layers import dense
from t5smith.model.loss import LossSums, head_loss
from t5smith.model.params import Attention, FeedForward, Parameters, init
from t5smith.model.t5 import POLICIES, Remat, head_operands, run_layers
from t5smith.parallel.hardware import measured_bandwidth, measured_tflops, median_seconds
from t5smith.training.compile import compiled
from t5smith.training.muon import muon_flops
from t5smith.training.step import update_state

REPEATS, SECONDS = 3, 0.3
"""How often each part is timed at least, and for how long; the median counts."""
INPUT_SECONDS = 0.5
"""How long batches are made."""
USES_MUON = ("muon", "muon_adafactor")


def measured_parts(trial: Trial, step_seconds: float) -> dict[str, dict[str, Any]]:
    """The parts of a step that takes `step_seconds`, in order.

    Each has `seconds`, its `share` of the step, and where there is one the limit: `limit_seconds`, with the
    `flops` or `bytes` that it follows from. The parts are

    - `products` of the dense layers, forward and backward, with the casts of their operands;
    - `attention`: dot-product attention, forward and backward;
    - `head_and_loss`, with their gradients;
    - `optimizer`: norm, clipping, update, metrics;
    - `everything_else`: the remainder, at least 0;
    - `waiting`: for input that is made beside the step by one thread or process. `batch_seconds` is the time
      that one needs for a batch.

    Args:
      trial: the step. Its state is updated.
      step_seconds: the time of the step.
    """
    (B, S), T = trial.batch["input_ids"].shape, trial.batch["targets"].shape[1]
    parts = trial.step_settings.accumulation
    flops = step_flops_by_part(trial.config, B, S, T)
    found = {
        "products": _with_flops(parts * _products_seconds(trial, B // parts), flops.dense, trial),
        "attention": _with_flops(parts * _attention_seconds(trial, B // parts), flops.attention, trial),
        "head_and_loss": _with_flops(parts * _head_seconds(trial, B // parts), flops.head, trial),
        "optimizer": _optimizer(trial),
    }
    rest = step_seconds - sum(part["seconds"] for part in found.values())
    batch_seconds = seconds_per_batch(B, S, INPUT_SECONDS)
    found["everything_else"] = {"seconds": max(0.0, rest)}
    found["waiting"] = {
        "seconds": max(0.0, batch_seconds - step_seconds),
        "batch_seconds": round(batch_seconds, 9),
    }
    for part in found.values():
        part["share"] = round(part["seconds"] / step_seconds, 4)
        part["seconds"] = round(part["seconds"], 9)
    return found


def _with_flops(seconds: float, flops: int, trial: Trial) -> dict[str, Any]:
    """A part whose limit is the speed of products."""
    limit = flops / (measured_tflops(trial.step_settings.compute.dtype) * 1e12)
    return {"seconds": seconds, "limit_seconds": round(limit, 9), "flops": flops}


def _seconds(function: Any, *arguments: Any) -> float:
    """The median time of a function, compiled as a step is."""
    program = compiled(jax.jit(function).lower(*arguments))
    return median_seconds(lambda: program(*arguments), REPEATS, SECONDS)


def _normal(*shape: int) -> Array:
    """Random numbers of the size that activations have."""
    return jax.random.normal(jax.random.key(0), shape, jnp.float32)


def _products_seconds(trial: Trial, rows: int) -> float:
    """The products of all dense layers, forward and backward, as a network of nothing else."""
    (S, T), D = _lengths(trial), trial.config.d_model
    x, y, g = (_normal(rows * length, D) for length in (S, T, T))
    settings = trial.step_settings

    def products(p: Parameters, x: Array, y: Array, g: Array) -> Any:
        def network(layers: Any, x: Array, y: Array) -> Array:
            encoder, decoder = layers
            return products_alone(encoder, decoder, x, y, rows, settings.compute, settings.remat)

        result, backward = jax.vjp(network, (p.encoder.layers, p.decoder.layers), x, y)
        return result, backward(g)

    return _seconds(products, trial.state.parameters, x, y, g)


def products_alone(
    encoder: Any,
    decoder: Any,
    x: Float[Array, "BS D"],
    y: Float[Array, "BT D"],
    rows: int,
    compute: Compute,
    remat: Remat,
) -> Float[Array, "BT D"]:
    """The stacks of a model with nothing but their dense products, joined by sums, so that all are needed.

    The factors in the sums make gradients unequal: XLA would compute products of equal ones once. x and y
    enter encoder and decoder, B is `rows`; compute and remat are those of the step.
    """

    def self_attention(x: Array, p: Attention) -> Array:
        mixed = dense(x, p.q, compute) + 0.5 * dense(x, p.k, compute) + 0.25 * dense(x, p.v, compute)
        return dense(mixed, p.o, compute)

    def feed_forward(x: Array, p: FeedForward) -> Array:
        h = dense(x, p.wi_0, compute)
        return dense(h if p.wi_1 is None else h + 0.5 * dense(x, p.wi_1, compute), p.wo, compute)

    def encoder_layer(x: Array, scanned: Any) -> tuple[Array, None]:
        layer = scanned[0]
        return feed_forward(self_attention(x, layer.self_attention), layer.feed_forward), None

    x = run_layers(encoder_layer, x, encoder, _layers(encoder), None, remat, compute)

    def decoder_layer(y: Array, scanned: Any) -> tuple[Array, None]:
        layer = scanned[0]
        y, p = self_attention(y, layer.self_attention), layer.cross_attention
        memory = dense(x, p.k, compute) + 0.5 * dense(x, p.v, compute)
        mean = memory.reshape(rows, -1, memory.shape[1]).mean(axis=1)
        h = dense(y, p.q, compute) + jnp.repeat(mean, y.shape[0] // rows, axis=0)
        return feed_forward(dense(h, p.o, compute), layer.feed_forward), None

    return run_layers(decoder_layer, y, decoder, _layers(decoder), None, remat, compute)


def _layers(stack: Any) -> int:
    return stack.feed_forward.wo.shape[0]


def _lengths(trial: Trial) -> tuple[int, int]:
    return trial.batch["input_ids"].shape[1], trial.batch["targets"].shape[1]


def _attention_seconds(trial: Trial, rows: int) -> float:
    """Attention of all layers: one layer of each kind, times their number."""
    config, (S, T) = trial.config, _lengths(trial)
    return (
        config.num_layers * _one_attention_seconds(trial, rows, S, S, biased=True)
        + config.num_decoder_layers * _one_attention_seconds(trial, rows, T, T, biased=True)
        + config.num_decoder_layers * _one_attention_seconds(trial, rows, T, S, biased=False)
    )


def _one_attention_seconds(trial: Trial, rows: int, queries: int, keys: int, *, biased: bool) -> float:
    """Attention of one layer without its projections; the bias has a gradient if there is one."""
    heads, width = trial.config.num_heads, trial.config.num_heads * trial.config.d_kv
    compute, remat = trial.step_settings.compute, trial.step_settings.remat
    q, k, v, g = (_normal(rows, length, width) for length in (queries, keys, keys, queries))
    bias = _normal(heads, queries, keys) if biased else jnp.zeros((heads, queries, keys), jnp.float32)
    ids = SegmentIds(jnp.ones((rows, 1), jnp.int32), jnp.ones((rows, keys), jnp.int32))

    def attend(q: Array, k: Array, v: Array, bias: Array, ids: SegmentIds, g: Array) -> Any:
        def attention(q: Array, k: Array, v: Array, bias: Array) -> Array:
            return dot_product_attention(q, k, v, bias, ids, compute)

        if remat != "none":
            attention = jax.checkpoint(attention, policy=POLICIES[remat])
        result, backward = jax.vjp(attention, q, k, v, bias)
        return result, backward(g)[: 4 if biased else 3]

    return _seconds(attend, q, k, v, bias, ids, g)


def _head_seconds(trial: Trial, rows: int) -> float:
    """Head and loss, with the gradients to the decoder's output and to the head."""
    config, settings, T = trial.config, trial.step_settings, _lengths(trial)[1]
    x, w = head_operands(trial.state.parameters, config, _normal(rows, T, config.d_model))

    def loss(x: Array, w: Array, targets: Array) -> Any:
        sums = head_loss(
            *(x, w, config, targets, settings.compute),
            z_loss=settings.z_loss,
            label_smoothing=settings.label_smoothing,
        )
        return sums.objective, sums

    return _seconds(jax.grad(loss, (0, 1), has_aux=True), x, w, trial.batch["targets"][:rows])


def _optimizer(trial: Trial) -> dict[str, Any]:
    """The step after the gradient. It reads the gradient once, and reads and writes the state."""
    gradient = jax.jit(lambda: init(trial.config, jax.random.key(1)))()
    one = jnp.ones((), jnp.float32)

    def update(state: Any, gradient: Any, one: Array) -> Any:
        sums = LossSums(*(one,) * 5)
        return update_state(
            *(state, gradient, sums, one), trial.optimizer, trial.schedule, trial.step_settings
        )

    program = compiled(jax.jit(update, donate_argnums=0).lower(trial.state, gradient, one))

    def run() -> Any:
        trial.state, metrics = program(trial.state, gradient, one)
        return trial.state, metrics

    seconds = median_seconds(run, REPEATS, SECONDS)
    moved = _bytes(gradient) + 2 * _bytes(trial.state)
    limit, flops = moved / measured_bandwidth(), 0
    if trial.optimizer_name in USES_MUON:
        flops = muon_flops(trial.state.parameters, trial.config.num_heads)
        limit += flops / (measured_tflops(jnp.dtype(jnp.bfloat16)) * 1e12)
    return {
        "seconds": seconds,
        "limit_seconds": round(limit, 9),
        "bytes": moved,
        **({"update_flops": flops} if flops else {}),
    }


def _bytes(tree: Any) -> int:
    return sum(cast(Array, leaf).nbytes for leaf in jax.tree.leaves(tree))
