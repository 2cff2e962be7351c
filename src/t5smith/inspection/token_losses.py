"""What a model says of every target token, and how that sums to the loss.

The loss of a batch is the sum of the cross-entropies of its target tokens, divided by how many these are
(:mod:`t5smith.model.loss`). Here the sum is left open. Products are computed in float32, as in evaluation.

Shapes: B rows, S input and T target positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from t5smith.inspection.spans import Reading
from t5smith.inspection.trace import Token, TokenLoss
from t5smith.model.config import ModelConfig
from t5smith.model.loss import token_losses
from t5smith.model.params import Parameters
from t5smith.model.t5 import Segments, forward, mask_padded_rows, shift_right
from t5smith.objective.batches import Batch
from t5smith.training.eval_step import HeldOutScore, Score, token_classes
from t5smith.vocabulary.vocabulary import Vocabulary

KINDS = ("text", "sentinel", "eos")
"""The classes of target tokens, in the order of :mod:`t5smith.training.eval_step`."""
_LOGITS = 1 << 26
"""Rows are taken so many at a time that no more logits than this are held."""


@dataclass(frozen=True)
class Losses:
    """For every position of a batch's targets; padding has some too, which mean nothing.

    Attributes:
      nll: cross-entropy of the label in nats.
      log_z: logsumexp of the logits.
      rank: of the label, 1 if no other id is more likely.
      other: the likeliest of the other ids.
      other_nll: its cross-entropy.
    """

    nll: Float[np.ndarray, "B T"]
    log_z: Float[np.ndarray, "B T"]
    rank: Int[np.ndarray, "B T"]
    other: Int[np.ndarray, "B T"]
    other_nll: Float[np.ndarray, "B T"]


Measure = Callable[[Batch], Losses]


def create_measure(parameters: Parameters, config: ModelConfig) -> Measure:
    """A function that gives the losses of a batch; compiled once for each shape."""

    @jax.jit
    def measured(
        parameters: Parameters, ids: Int[Array, "B S"], targets: Int[Array, "B T"], segments: Segments | None
    ) -> tuple[Array, ...]:
        fed = shift_right(targets, segments)
        scores = mask_padded_rows(forward(parameters, config, ids, fed, segments=segments), config)
        nll, log_z, _ = token_losses(scores, targets)
        others = jnp.where(jax.nn.one_hot(targets, config.vocab_size, dtype=jnp.bool_), -jnp.inf, scores)
        # Not log_z - nll, which differs from the label's logit in its last bits.
        own = jnp.take_along_axis(scores, targets[..., None], axis=-1)
        rank = 1 + (others > own).sum(axis=-1, dtype=jnp.int32)
        return nll, log_z, rank, others.argmax(axis=-1), log_z - others.max(axis=-1)

    def measure(batch: Batch) -> Losses:
        rows, T = batch["targets"].shape
        at_once = max(1, min(rows, _LOGITS // (T * config.vocab_size)))
        parts: list[list[np.ndarray]] = []
        for first in range(0, rows, at_once):
            # The last rows are filled up with some that were there, so that one shape is compiled.
            chosen = np.minimum(np.arange(first, first + at_once), rows - 1)
            part = {name: array[chosen] for name, array in batch.items()}
            packed = "input_segments" in part
            segments = (
                Segments(jnp.asarray(part["input_segments"]), jnp.asarray(part["target_segments"]))
                if packed
                else None
            )
            found = measured(parameters, part["input_ids"], part["targets"], segments)
            parts.append([np.asarray(one)[: rows - first] for one in found])
        return Losses(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    return measure


def of_windows(losses: Losses, reading: Reading, vocabulary: Vocabulary) -> dict[int, tuple[TokenLoss, ...]]:
    """For each window of a batch the losses of its targets, in their order."""
    classes = token_classes(vocabulary)
    side = reading.targets
    nll, log_z, rank, other, other_nll = (
        getattr(losses, name).reshape(-1)[side.at].tolist()
        for name in ("nll", "log_z", "rank", "other", "other_nll")
    )
    found: dict[int, list[TokenLoss]] = {}
    for i, (window, label) in enumerate(zip(side.window.tolist(), side.ids.tolist(), strict=True)):
        instead = Token(other[i], vocabulary.pieces([other[i]])[0])
        found.setdefault(window, []).append(
            TokenLoss(
                probability=math.exp(-nll[i]),
                nll=nll[i],
                rank=rank[i],
                other=instead,
                other_probability=math.exp(-other_nll[i]),
                log_z=log_z[i],
                kind=KINDS[classes[label]],
            )
        )
    return {window: tuple(tokens) for window, tokens in found.items()}


def score_of(tokens: list[TokenLoss]) -> HeldOutScore:
    """The sums over some target tokens, by class, in float64."""

    def score(kind: str) -> Score:
        mine = [token for token in tokens if token.kind == kind]
        right = sum(token.rank == 1 for token in mine)
        return Score(math.fsum(token.nll for token in mine), float(right), float(len(mine)))

    return HeldOutScore(*map(score, KINDS))


def score_by_window(
    losses: Losses, reading: Reading, vocabulary: Vocabulary, windows: int
) -> Float[np.ndarray, "n 3 3"]:
    """For each window and class of token: nats, right predictions, tokens."""
    side = reading.targets
    kind = token_classes(vocabulary)[side.ids]
    nll = losses.nll.reshape(-1)[side.at].astype(np.float64)
    right = losses.rank.reshape(-1)[side.at] == 1
    sums = np.zeros((windows, 3, 3))
    for column, values in enumerate((nll, right, np.ones(len(nll)))):
        np.add.at(sums[..., column], (side.window, kind), values)
    return sums


def mean_square_log_z(tokens: list[TokenLoss]) -> float:
    """What `train.z_loss` would be the weight of."""
    return math.fsum(token.log_z**2 for token in tokens) / len(tokens)


def score_json(score: HeldOutScore) -> Mapping[str, Any]:
    """Sums and means by class of token, as the evaluation names them."""
    parts = {"text": score.text, "sentinels": score.sentinels, "eos": score.eos, "all": score.total}
    return {name: {"sum": part.nll, **part.per_token()} for name, part in parts.items()}
