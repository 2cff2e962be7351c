"""Held-out loss on fixed batches, with separate sums for text tokens, sentinels and `</s>`; the baseline.

Quality is judged on text tokens alone: the next sentinel is known in advance, and `</s>` mostly follows from
the length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from t5smith.model.compute import Compute
from t5smith.model.config import ModelConfig
from t5smith.model.loss import target_losses
from t5smith.model.params import Parameters
from t5smith.model.t5 import PAD_ID
from t5smith.objective.batches import Batch
from t5smith.parallel.mesh import one_at_a_time
from t5smith.training.compile import fitting_program
from t5smith.vocabulary.vocabulary import Vocabulary

TEXT, SENTINEL, EOS = 0, 1, 2
SMOOTHING = 0.1
"""Added to the count of each id for the unigram baseline."""


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
    config: ModelConfig, classes: Int[np.ndarray, " ids"], compute: Compute
) -> Callable[..., Iterator[RowSums]]:
    """A function that scores parameters on batches, and gives the sums of each batch's rows in turn.

    While the device works on a batch, the next one is made; no more than these two are in memory. A batch
    smaller than those before it is filled up, since each shape would be compiled anew.

    With `checked`, it raises T5smithError if that does not fit into memory. While training it is not checked:
    the step took more.
    """
    padded = np.pad(classes, (0, config.vocab_size - len(classes)))

    @jax.jit
    def sums(
        parameters: Parameters, input_ids: Int[Array, "B S"], targets: Int[Array, "B T"]
    ) -> Float[Array, "B 3 3"]:
        nll, _, correct = target_losses(parameters, config, input_ids, targets, compute)
        weight = (targets != PAD_ID).astype(jnp.float32)
        in_class = jax.nn.one_hot(jnp.asarray(padded)[targets], 3) * weight[..., None]
        stacked = jnp.stack([nll, correct, jnp.ones_like(nll)])
        return jnp.einsum("mbt,btk->bkm", stacked, in_class)

    def checked_sums(parameters: Parameters, *ids: np.ndarray) -> Array:
        """The same, if it fits into memory."""
        program = fitting_program(
            sums,
            parameters,
            *ids,
            what=f"evaluating {len(ids[0]):,} examples at a time",
            where="evaluate.batch_size",
            fix="lower it",
        )
        return program(parameters, *ids)

    def score(
        parameters: Parameters, batches: Iterable[Batch], *, checked: bool = False
    ) -> Iterator[RowSums]:
        sums_of = checked_sums if checked else sums
        size, queued = 0, list[tuple[Array, int]]()
        for batch in batches:
            rows = len(batch["targets"])
            # Several devices take equal numbers of rows.
            size = max(size, -(-rows // compute.row_shards) * compute.row_shards)
            fill = ((0, size - rows), (0, 0))
            inputs, targets = (np.pad(batch[name], fill, "edge") for name in ("input_ids", "targets"))
            queued.append((one_at_a_time(compute.mesh, sums_of(parameters, inputs, targets)), rows))
            if len(queued) > 1:
                yield _fetched(*queued.pop(0))
        for one in queued:
            yield _fetched(*one)

    return score


def _fetched(sums: Array, rows: int) -> RowSums:
    return np.asarray(sums, np.float64)[:rows]


def total(parts: Iterable[RowSums]) -> HeldOutScore:
    """The sum over all rows, in float64."""
    sums = np.zeros((3, 3))
    for part in parts:
        sums += part.sum(axis=0)
    return HeldOutScore(*(Score(*map(float, row)) for row in sums))


def unigram_nll(
    counts: Int[np.ndarray, " ids"], is_text: Bool[np.ndarray, " ids"], occurrences: Int[np.ndarray, " ids"]
) -> float | None:
    """Mean NLL of text targets, in nats per token, under the smoothed frequencies of the text ids.

    Args:
      counts: how often each id occurs in the training split.
      is_text: which ids are of text.
      occurrences: how often each id occurs among the targets.
    """
    if not (targets := int(occurrences[is_text].sum())):
        return None
    weights = (counts + SMOOTHING)[is_text]
    return float(-(occurrences[is_text] * np.log(weights / weights.sum())).sum() / targets)
