"""The loss, exactly: a sum over non-pad target tokens, and how many there were.

The caller divides the sum over the global batch by the count over the global batch, so that every
target token weighs the same however the batch was split.

The logits of all tokens are never held at once: the head and the loss go over the target positions in
chunks, and the gradients of a chunk's logits are used up while they are there. That costs no product more
than the plain backward pass: a gradient of a sum needs nothing from outside but a factor.

Shapes: B batch, S input and T target positions, D d_model, V vocabulary rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from t5smith.model.config import ModelConfig
from t5smith.model.dropout import Dropout
from t5smith.model.layers import dense_gradients
from t5smith.model.params import Parameters
from t5smith.model.t5 import (
    FLOAT32,
    PAD_ID,
    Remat,
    Segments,
    decoder_output,
    head_operands,
    mask_padded_rows,
    shift_right,
)

CHUNK_BYTES = {"cpu": 64 << 20}
"""The float32 logits that are held at once: what pays depends on caches; elsewhere 1 GiB."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossSums:
    """Sums over the target tokens of a batch.

    Attributes:
      objective: what is minimised: `nll` (smoothed, if asked) and the weighted `z`. The only one of these
        that has a gradient; the others are figures.
      nll: cross-entropy in nats.
      z: squared log-partition function, unweighted.
      correct: tokens whose highest logit is the right one.
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
    dtype: jnp.dtype = FLOAT32,
    segments: Segments | None = None,
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    dropout: Dropout | None = None,
    remat: Remat = "none",
) -> LossSums:
    """The model's loss on a batch of corrupted windows; packed into rows it is the sum of theirs.

    Args:
      p: the model's parameters.
      config: its sizes.
      input_ids: token ids; 0 is padding.
      targets: likewise.
      dtype: what operands of products are rounded to; sums are float32.
      segments: which window each position is of, where rows hold several.
      z_loss: weight of the squared log-partition function (T5X: 1e-4).
      label_smoothing: the share of a target's probability that is spread over the whole vocabulary
        (Szegedy et al. 2016).
      dropout: its key and rate, or none.
      remat: what the backward pass computes anew.
    """
    decoded = decoder_output(
        p, config, input_ids, shift_right(targets, segments), dtype, segments, dropout=dropout, remat=remat
    )
    x, w = head_operands(p, config, decoded)
    weight = (targets != PAD_ID).astype(jnp.float32)
    how = _How(dtype, config, z_loss, label_smoothing)
    objective, (nll, log_z, correct) = cast(Any, _summed(x, w, targets, weight, how))
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
    dtype: jnp.dtype = FLOAT32,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"], Float[Array, "B T"]]:
    """For every target, padding included: what :func:`token_losses` gives."""
    decoded = decoder_output(p, config, input_ids, shift_right(targets), dtype)
    x, w = head_operands(p, config, decoded)
    weight = jnp.ones(targets.shape, jnp.float32)
    return _forward(x, w, targets, weight, _How(dtype, config), gradients=False)[1]


def token_losses(
    scores: Float[Array, "*N V"], targets: Int[Array, "*N"]
) -> tuple[Float[Array, "*N"], Float[Array, "*N"], Float[Array, "*N"]]:
    """Per token: NLL in nats, log-partition function, and 1.0 where the highest logit is the label's."""
    log_z = jax.nn.logsumexp(scores, axis=-1)
    label_score = jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    correct = (label_score >= scores.max(axis=-1)).astype(jnp.float32)
    return log_z - label_score, log_z, correct


@dataclass(frozen=True)
class _How:
    """What is fixed when the loss is compiled."""

    dtype: jnp.dtype
    config: ModelConfig
    z_loss: float = 0.0
    label_smoothing: float = 0.0


_Terms = tuple[Array, Array, Array]


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _summed(x: Array, w: Array, targets: Array, weight: Array, how: _How) -> tuple[Array, _Terms]:
    """The objective's sum, and each token's NLL, log-partition function and whether it was right."""
    return _forward(x, w, targets, weight, how, gradients=False)[:2]


def _summed_forward(
    x: Array, w: Array, targets: Array, weight: Array, how: _How
) -> tuple[tuple[Array, _Terms], tuple[Array, Array]]:
    objective, terms, dx, dw = _forward(x, w, targets, weight, how, gradients=True)
    return (objective, terms), (dx, dw)


def _summed_backward(how: _How, gradients: tuple[Array, Array], given: Any) -> tuple[Any, ...]:
    dx, dw = gradients
    factor = given[0]  # the terms are figures: nothing comes back from them
    return dx * factor, dw * factor, None, None


_summed.defvjp(_summed_forward, _summed_backward)


def _forward(
    x: Float[Array, "B T D"],
    w: Float[Array, "D V"],
    targets: Int[Array, "B T"],
    weight: Float[Array, "B T"],
    how: _How,
    *,
    gradients: bool,
) -> tuple[Array, _Terms, Array, Array]:
    """Objective, terms of each token, and the objective's gradients (empty unless asked for)."""
    B, T, D = x.shape
    V, real = w.shape[1], how.config.real_vocab_size
    chunks = _chunks(B, T, V)
    narrow = w.astype(how.dtype)

    def chunk(dw: Array, given: tuple[Array, Array, Array]) -> tuple[Array, tuple[Any, ...]]:
        x, targets, weight = given
        x = x.astype(how.dtype)
        scores = mask_padded_rows(jnp.matmul(x, narrow, preferred_element_type=jnp.float32), how.config)
        nll, log_z, correct = token_losses(scores, targets)
        value = nll + how.z_loss * jnp.square(log_z)
        if how.label_smoothing:
            mean = scores[:, :real].mean(axis=-1)
            value += how.label_smoothing * (log_z - mean - nll)
        terms = ((value * weight).sum(), nll, log_z, correct)
        if not gradients:
            return dw, (*terms, jnp.zeros((0,)))
        target = jnp.where(jnp.arange(V)[None] == targets[:, None], 1.0 - how.label_smoothing, 0.0)
        if how.label_smoothing:
            target += jnp.where(jnp.arange(V)[None] < real, how.label_smoothing / real, 0.0)
        slope = 1.0 + 2.0 * how.z_loss * log_z
        g = (jnp.exp(scores - log_z[:, None]) * slope[:, None] - target) * weight[:, None]
        dx, more = dense_gradients(x, narrow, g.astype(how.dtype))
        dw += more
        return dw, (*terms, dx)

    dw = jnp.zeros((D, V) if gradients else (0,), jnp.float32)
    given = (_in_chunks(x, chunks), _in_chunks(targets, chunks), _in_chunks(weight, chunks))
    dw, (objective, nll, log_z, correct, dx) = jax.lax.scan(chunk, dw, given)
    nll, log_z, correct = (_put_together(term, B, T) for term in (nll, log_z, correct))
    if gradients:
        dx = _put_together(dx, B, T)
    return objective.sum(), (nll, log_z, correct), dx, dw


def _chunks(B: int, T: int, V: int) -> int:
    """In how many parts the target positions are taken. Whole columns: rows may lie on different devices."""
    most = CHUNK_BYTES.get(jax.default_backend(), 1 << 30)
    return min(T, math.ceil(4 * B * T * V / most))


def _in_chunks(array: Shaped[Array, "B T *D"], chunks: int) -> Shaped[Array, "chunks BC *D"]:
    """Equal parts of the positions, their rows flattened; the last is filled up with padding of weight 0."""
    B, T = array.shape[:2]
    C = -(-T // chunks)
    rest = [(0, 0)] * (array.ndim - 2)
    array = jnp.pad(array, [(0, 0), (0, chunks * C - T), *rest])
    array = array.reshape(B, chunks, C, *array.shape[2:])
    return jnp.swapaxes(array, 0, 1).reshape(chunks, B * C, *array.shape[3:])


def _put_together(array: Shaped[Array, "chunks BC *D"], B: int, T: int) -> Shaped[Array, "B T *D"]:
    """The inverse of :func:`_in_chunks`."""
    array = array.reshape(array.shape[0], B, -1, *array.shape[2:])
    array = jnp.swapaxes(array, 0, 1).reshape(B, -1, *array.shape[3:])
    return array[:, :T]
