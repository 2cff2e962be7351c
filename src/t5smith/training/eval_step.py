"""Held-out loss on fixed batches, with separate sums for text tokens, sentinels and `</s>`.

Quality is judged on text tokens alone: the next sentinel is known in advance, and `</s>` mostly follows from
the length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from t5smith.model.config import ModelConfig
from t5smith.model.loss import target_losses
from t5smith.model.params import Parameters
from t5smith.model.t5 import PAD_ID
from t5smith.objective.batches import Batch
from t5smith.training.compile import fitting_program
from t5smith.vocabulary.vocabulary import Vocabulary

TEXT, SENTINEL, EOS = 0, 1, 2


@dataclass(frozen=True)
class Score:
    """Sums over one class of target tokens.

    Attributes:
      nll: in nats.
      correct: number of tokens predicted correctly.
      tokens: number of tokens.
    """

    nll: float
    correct: float
    tokens: float

    def per_token(self) -> dict[str, Any]:
        """Means per token, or None without tokens."""
        if not self.tokens:
            return {"nll": None, "accuracy": None, "tokens": 0}
        return {
            "nll": self.nll / self.tokens,
            "accuracy": self.correct / self.tokens,
            "tokens": int(self.tokens),
        }

    def __add__(self, other: Score) -> Score:
        return Score(self.nll + other.nll, self.correct + other.correct, self.tokens + other.tokens)


@dataclass(frozen=True)
class HeldOutScore:
    """The loss on held-out targets, by token class."""

    text: Score
    sentinels: Score
    eos: Score

    @property
    def total(self) -> Score:
        """Over all target tokens, as in the training loss."""
        return self.text + self.sentinels + self.eos


def token_classes(vocabulary: Vocabulary) -> Int[np.ndarray, " ids"]:
    """The class of every id of the vocabulary: TEXT, SENTINEL or EOS."""
    classes = np.full(vocabulary.size, TEXT, np.int32)
    classes[vocabulary.sentinel_ids] = SENTINEL
    classes[[vocabulary.eos_id, vocabulary.pad_id]] = EOS
    return classes


RowSums = Float[np.ndarray, "rows 3 3"]
"""For each row and token class: NLL in nats, correct predictions, tokens."""


def create_scorer(
    config: ModelConfig, classes: Int[np.ndarray, " ids"], dtype: jnp.dtype
) -> Callable[..., RowSums]:
    """A function that scores parameters on batches, row by row; it is compiled once per batch shape.

    With `checked`, it raises T5smithError if that does not fit into memory. While training it is not checked:
    the step took more.
    """
    padded = np.pad(classes, (0, config.vocab_size - len(classes)))

    @jax.jit
    def sums(
        parameters: Parameters, input_ids: Int[Array, "B S"], targets: Int[Array, "B T"]
    ) -> Float[Array, "B 3 3"]:
        nll, _, correct = target_losses(parameters, config, input_ids, targets, dtype)
        weight = (targets != PAD_ID).astype(jnp.float32)
        in_class = jax.nn.one_hot(jnp.asarray(padded)[targets], 3) * weight[..., None]
        stacked = jnp.stack([nll, correct, jnp.ones_like(nll)])
        return jnp.einsum("mbt,btk->bkm", stacked, in_class)

    def checked_sums(parameters: Parameters, batch: Batch) -> Array:
        """The same, if it fits into memory."""
        args = parameters, batch["input_ids"], batch["targets"]
        program = fitting_program(
            sums,
            *args,
            what=f"evaluating {len(batch['targets']):,} examples at a time",
            where="evaluate.batch_size",
            fix="lower it",
        )
        return program(*args)

    def score(parameters: Parameters, batches: Sequence[Batch], *, checked: bool = False) -> RowSums:
        # Queue all batches first, then fetch.
        parts = [
            checked_sums(parameters, batch)
            if checked
            else sums(parameters, batch["input_ids"], batch["targets"])
            for batch in batches
        ]
        return np.concatenate([np.asarray(part, np.float64) for part in parts])

    return score


def total(rows: RowSums) -> HeldOutScore:
    """The sum over rows, in float64."""
    return HeldOutScore(*(Score(*map(float, row)) for row in rows.sum(axis=0)))
