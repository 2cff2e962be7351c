"""The loss: the sum over non-pad target tokens, and their number.

The caller divides the sum over the global batch by the number of tokens in the global batch, so that every
target token has the same weight however the batch is split.

The logits of all tokens are never held at once. Head and loss run over chunks of target positions, and the
gradients of a chunk's logits are used while they are there. That costs no extra product: the gradient of a
sum needs only a factor from outside.

Shapes: B batch, S input and T target positions, D d_model, V vocabulary rows, P positions of a chunk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from t5smith.model.compute import FLOAT32, Backend, Compute
from t5smith.model.config import ModelConfig
from t5smith.model.dropout import Dropout
from t5smith.model.layers import dense_gradients, product
from t5smith.model.params import Parameters
from t5smith.model.t5 import (
    PAD_ID,
    Remat,
    Segments,
    decoder_output,
    head_operands,
    mask_padded_rows,
    shift_right,
)

CHUNK_BYTES: dict[Backend, int] = {"cpu_rows": 64 << 20, "xla": 1 << 30}
"""The bytes of float32 logits held at once; the best size depends on caches."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossSums:
    """Sums over the target tokens of a batch.

    Attributes:
      objective: what is minimised, in nats: `nll` (with label smoothing if set) and the weighted `z`. Only
        this sum has a gradient.
      nll: cross-entropy in nats.
      z: squared log-partition function, unweighted.
      correct: tokens whose target has the highest logit.
      tokens: non-pad targets.
    """

    objective: Float[Array, ""]
    nll: Float[Array, ""]
    z: Float[Array, ""]
    correct: Float[Array, ""]
    tokens: Float[Array, ""]


def batch_loss(
    p: Parameters,
    config: ModelConfig,
    input_ids: Int[Array, "B S"],
    targets: Int[Array, "B T"],
    compute: Compute = FLOAT32,
    segments: Segments | None = None,
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    dropout: Dropout | None = None,
    remat: Remat = "none",
) -> LossSums:
    """The loss of the model on a batch. For packed rows it is the sum over their windows.

    Args:
      p: the model's parameters.
      config: its sizes.
      input_ids: token ids; 0 is padding.
      targets: token ids; 0 is padding.
      compute: precision and backend.
      segments: needed if rows hold several windows.
      z_loss: weight of the squared log-partition function (T5X uses 1e-4).
      label_smoothing: the share of each target's probability that is spread over the vocabulary
        (Szegedy et al. 2016).
      dropout: key and rate, or None.
      remat: what the backward pass recomputes, see :mod:`t5smith.model.t5`.
    """
    decoded = decoder_output(
        p, config, input_ids, shift_right(targets, segments), compute, segments, dropout=dropout, remat=remat
    )
    x, w = head_operands(p, config, decoded)
    return head_loss(x, w, config, targets, compute, z_loss=z_loss, label_smoothing=label_smoothing)


def head_loss(
    x: Float[Array, "B T D"],
    w: Float[Array, "D V"],
    config: ModelConfig,
    targets: Int[Array, "B T"],
    compute: Compute = FLOAT32,
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> LossSums:
    """The part of :func:`batch_loss` after the decoder; x and w are what :func:`head_operands` returns."""
    weight = (targets != PAD_ID).astype(jnp.float32)
    options = _LossOptions(compute, config, z_loss, label_smoothing)
    objective, (nll, log_z, correct) = cast(Any, _summed_loss(x, w, targets, weight, options))
    return LossSums(
        objective=objective,
        nll=(nll * weight).sum(),
        z=(jnp.square(log_z) * weight).sum(),
        correct=(correct * weight).sum(),
        tokens=weight.sum(),
    )


def target_losses(
    p: Parameters,
    config: ModelConfig,
    input_ids: Int[Array, "B S"],
    targets: Int[Array, "B T"],
    compute: Compute = FLOAT32,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"], Float[Array, "B T"]]:
    """The result of :func:`token_losses` at every target position, padding included."""
    decoded = decoder_output(p, config, input_ids, shift_right(targets), compute)
    x, w = head_operands(p, config, decoded)
    weight = jnp.ones(targets.shape, jnp.float32)
    return _loss_in_chunks(x, w, targets, weight, _LossOptions(compute, config), gradients=False)[1]


def token_losses(
    scores: Float[Array, "*N V"], targets: Int[Array, "*N"]
) -> tuple[Float[Array, "*N"], Float[Array, "*N"], Float[Array, "*N"]]:
    """Per token: NLL in nats, log-partition function, and 1.0 where the target has the highest logit."""
    log_z = jax.nn.logsumexp(scores, axis=-1)
    target_score = jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    correct = (target_score >= scores.max(axis=-1)).astype(jnp.float32)
    return log_z - target_score, log_z, correct


@dataclass(frozen=True)
class _LossOptions:
    """Constants of the compiled loss."""

    compute: Compute
    config: ModelConfig
    z_loss: float = 0.0
    label_smoothing: float = 0.0


_Terms = tuple[Float[Array, "B T"], Float[Array, "B T"], Float[Array, "B T"]]
"""NLL, log-partition function and correctness of each token."""


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _summed_loss(
    x: Float[Array, "B T D"],
    w: Float[Array, "D V"],
    targets: Int[Array, "B T"],
    weight: Float[Array, "B T"],
    options: _LossOptions,
) -> tuple[Float[Array, ""], _Terms]:
    """The sum of the objective, and the terms of each token."""
    return _loss_in_chunks(x, w, targets, weight, options, gradients=False)[:2]


def _summed_loss_forward(
    x: Float[Array, "B T D"],
    w: Float[Array, "D V"],
    targets: Int[Array, "B T"],
    weight: Float[Array, "B T"],
    options: _LossOptions,
) -> tuple[tuple[Float[Array, ""], _Terms], tuple[Float[Array, "B T D"], Float[Array, "D V"]]]:
    objective, terms, dx, dw = _loss_in_chunks(x, w, targets, weight, options, gradients=True)
    return (objective, terms), (dx, dw)


def _summed_loss_backward(
    options: _LossOptions, gradients: tuple[Array, Array], cotangents: Any
) -> tuple[Array, Array, None, None]:
    dx, dw = gradients
    factor = cotangents[0]  # The terms have no gradient.
    return dx * factor, dw * factor, None, None


_summed_loss.defvjp(_summed_loss_forward, _summed_loss_backward)


def _loss_in_chunks(
    x: Float[Array, "B T D"],
    w: Float[Array, "D V"],
    targets: Int[Array, "B T"],
    weight: Float[Array, "B T"],
    options: _LossOptions,
    *,
    gradients: bool,
) -> tuple[Float[Array, ""], _Terms, Array, Array]:
    """The sum of the objective, the terms of each token, and the gradients to x and w (else empty arrays)."""
    B, T, D = x.shape
    V, real = w.shape[1], options.config.real_vocab_size
    chunks = _chunks(B, T, V, options.compute)
    w_cast = w.astype(options.compute.dtype)

    def chunk(dw: Array, scanned: tuple[Array, Array, Array]) -> tuple[Array, tuple[Any, ...]]:
        x, targets, weight = scanned
        x = x.astype(options.compute.dtype)
        scores = mask_padded_rows(product(x, w_cast, options.compute), options.config)
        nll, log_z, correct = token_losses(scores, targets)
        value = nll + options.z_loss * jnp.square(log_z)
        if options.label_smoothing:
            mean = scores[:, :real].mean(axis=-1)
            value += options.label_smoothing * (log_z - mean - nll)
        terms = ((value * weight).sum(), nll, log_z, correct)
        if not gradients:
            return dw, (*terms, jnp.zeros((0,)))
        target = jnp.where(jnp.arange(V)[None] == targets[:, None], 1.0 - options.label_smoothing, 0.0)
        if options.label_smoothing:
            target += jnp.where(jnp.arange(V)[None] < real, options.label_smoothing / real, 0.0)
        d_log_z = 1.0 + 2.0 * options.z_loss * log_z
        d_scores = (jnp.exp(scores - log_z[:, None]) * d_log_z[:, None] - target) * weight[:, None]
        dx, dw_chunk = dense_gradients(x, w_cast, d_scores.astype(options.compute.dtype), options.compute)
        dw += dw_chunk
        return dw, (*terms, dx)

    dw = jnp.zeros((D, V) if gradients else (0,), jnp.float32)
    inputs = (_split(x, chunks), _split(targets, chunks), _split(weight, chunks))
    dw, (objective, nll, log_z, correct, dx) = jax.lax.scan(chunk, dw, inputs)
    nll, log_z, correct = (_join(term, B, T) for term in (nll, log_z, correct))
    if gradients:
        dx = _join(dx, B, T)
    return objective.sum(), (nll, log_z, correct), dx, dw


def _chunks(B: int, T: int, V: int, compute: Compute) -> int:
    """The number of chunks. A chunk has whole columns, because rows may be on different devices."""
    size = CHUNK_BYTES[compute.backend] * (1 if compute.mesh is None else compute.mesh.size)
    return min(T, math.ceil(4 * B * T * V / size))


def _split(array: Shaped[Array, "B T *D"], chunks: int) -> Shaped[Array, "chunks P *D"]:
    """Equal chunks of the columns, flattened over rows; the last is padded with weight 0."""
    B, T = array.shape[:2]
    C = -(-T // chunks)
    rest = [(0, 0)] * (array.ndim - 2)
    array = jnp.pad(array, [(0, 0), (0, chunks * C - T), *rest])
    array = array.reshape(B, chunks, C, *array.shape[2:])
    return jnp.swapaxes(array, 0, 1).reshape(chunks, B * C, *array.shape[3:])


def _join(array: Shaped[Array, "chunks P *D"], B: int, T: int) -> Shaped[Array, "B T *D"]:
    """The inverse of :func:`_split`."""
    array = array.reshape(array.shape[0], B, -1, *array.shape[2:])
    array = jnp.swapaxes(array, 0, 1).reshape(B, -1, *array.shape[3:])
    return array[:, :T]
