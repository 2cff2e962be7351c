"""What a model predicts for every target token, and how its losses sum to the loss of the batch.

The loss of a batch is the sum of the cross-entropies of its target tokens divided by their number
(:mod:`t5smith.model.loss`). Matrix products are computed in float32, as in evaluation.

Shapes: B rows, S input and T target positions, n windows, p target positions that are not padding.
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

from t5smith.inspection.batch import InspectedBatch
from t5smith.inspection.trace import Token, TokenLoss
from t5smith.interop.model import Model
from t5smith.model.loss import token_losses
from t5smith.model.params import Parameters
from t5smith.model.t5 import Segments, forward, mask_padded_rows, shift_right
from t5smith.parallel.backend import compute_in
from t5smith.training.eval_step import HeldOutScore, Score, token_classes
from t5smith.vocabulary.vocabulary import Vocabulary
from t5smith.vocabulary.white_space import visible

KINDS = ("text", "sentinel", "eos")
"""The classes of target tokens, in the order of :mod:`t5smith.training.eval_step`."""
_MAX_LOGITS = 1 << 26
"""A batch is split into parts of rows so that no more logits than this are in memory."""


@dataclass(frozen=True)
class Losses:
    """What a model predicts at every position of a batch's targets that is not padding.

    Attributes:
      batch: the batch.
      vocabulary: the model's.
      nll: cross-entropy of the target in nats.
      log_z: logsumexp of the logits.
      rank: of the target; 1 if no other id is more likely.
      other: the most likely of the other ids.
      other_nll: its cross-entropy.
    """

    batch: InspectedBatch
    vocabulary: Vocabulary
    nll: Float[np.ndarray, " p"]
    log_z: Float[np.ndarray, " p"]
    rank: Int[np.ndarray, " p"]
    other: Int[np.ndarray, " p"]
    other_nll: Float[np.ndarray, " p"]

    def by_window(self) -> dict[int, tuple[TokenLoss, ...]]:
        """For each window of the batch the losses of its targets, in order."""
        targets = self.batch.targets
        kinds = token_classes(self.vocabulary)[targets.ids].tolist()
        columns = (self.nll, self.log_z, self.rank, self.other, self.other_nll)
        found: dict[int, list[TokenLoss]] = {}
        for window, kind, nll, log_z, rank, other, other_nll in zip(
            targets.window.tolist(), kinds, *(column.tolist() for column in columns), strict=True
        ):
            found.setdefault(window, []).append(
                TokenLoss(
                    probability=math.exp(-nll),
                    nll=nll,
                    rank=rank,
                    other=Token(other, visible(self.vocabulary.pieces([other])[0])),
                    other_probability=math.exp(-other_nll),
                    log_z=log_z,
                    kind=KINDS[kind],
                )
            )
        return {window: tuple(tokens) for window, tokens in found.items()}

    def sums(self) -> Float[np.ndarray, "n 3 3"]:
        """For each window and class of token: nats, correct predictions, tokens."""
        targets = self.batch.targets
        kind = token_classes(self.vocabulary)[targets.ids]
        sums = np.zeros((len(self.batch.row), 3, 3))
        for column, values in enumerate((self.nll, self.rank == 1, np.ones(len(self.nll)))):
            np.add.at(sums[..., column], (targets.window, kind), values.astype(np.float64))
        return sums


LossFunction = Callable[[InspectedBatch], Losses]


def create_loss_function(model: Model) -> LossFunction:
    """A function that gives the losses of a batch; compiled once for each shape."""
    config, compute = model.config, compute_in("float32")

    @jax.jit
    def predict(
        parameters: Parameters, ids: Int[Array, "B S"], targets: Int[Array, "B T"], segments: Segments | None
    ) -> tuple[Array, ...]:
        decoder_inputs = shift_right(targets, segments)
        logits = forward(parameters, config, ids, decoder_inputs, compute, segments)
        logits = mask_padded_rows(logits, config)
        nll, log_z, _ = token_losses(logits, targets)
        others = jnp.where(jax.nn.one_hot(targets, config.vocab_size, dtype=jnp.bool_), -jnp.inf, logits)
        # Not log_z - nll, which differs from the target's logit in its last bits.
        own = jnp.take_along_axis(logits, targets[..., None], axis=-1)
        rank = 1 + (others > own).sum(axis=-1, dtype=jnp.int32)
        return nll, log_z, rank, others.argmax(axis=-1), log_z - others.max(axis=-1)

    def losses(batch: InspectedBatch) -> Losses:
        rows, T = batch.arrays["targets"].shape
        part_size = max(1, min(rows, _MAX_LOGITS // (T * config.vocab_size)))
        parts: list[list[np.ndarray]] = []
        for first in range(0, rows, part_size):
            # The last row is repeated to fill the last part, so that one shape is compiled.
            chosen = np.minimum(np.arange(first, first + part_size), rows - 1)
            part = {name: array[chosen] for name, array in batch.arrays.items()}
            segments = (
                Segments(jnp.asarray(part["input_segments"]), jnp.asarray(part["target_segments"]))
                if "input_segments" in part
                else None
            )
            found = predict(model.parameters, part["input_ids"], part["targets"], segments)
            parts.append([np.asarray(one)[: rows - first] for one in found])
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return Losses(
            batch, model.vocabulary, *(column.reshape(-1)[batch.targets.index] for column in columns)
        )

    return losses


def score_of(tokens: list[TokenLoss]) -> HeldOutScore:
    """The sums over some target tokens, by class, in float64."""

    def score(kind: str) -> Score:
        mine = [token for token in tokens if token.kind == kind]
        correct = sum(token.rank == 1 for token in mine)
        return Score(math.fsum(token.nll for token in mine), float(correct), float(len(mine)))

    return HeldOutScore(*map(score, KINDS))


def mean_square_log_z(tokens: list[TokenLoss]) -> float:
    """Mean of (log Z)²: the term that `train.z_loss` weights."""
    return math.fsum(token.log_z**2 for token in tokens) / len(tokens)


def score_json(score: HeldOutScore) -> Mapping[str, Any]:
    """Sums and means by class of token, with the names of `evaluation.json`."""
    parts = {"text": score.text, "sentinels": score.sentinels, "eos": score.eos, "all": score.total}
    return {name: {"sum": part.nll, **part.per_token()} for name, part in parts.items()}
