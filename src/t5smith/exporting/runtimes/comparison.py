"""Whether a runtime computes what t5smith computes: greedy output, and log probabilities of given targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.generation.decoding import Decoder
from t5smith.interop.model import Model
from t5smith.model.t5 import PAD_ID, forward, shift_right
from t5smith.recipe.evaluate import GenerateSettings

MOST = 1e-4
"""The largest difference of a log probability; both sides compute in float32."""
NEW_TOKENS = 32
"""The most tokens that are generated for an input."""
ROWS = 10
"""Inputs that are computed at a time."""
WITHOUT = "export without --for; the Hugging Face folder is not affected"
Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Found:
    """What a runtime computes for some inputs.

    Attributes:
      greedy: the most probable ids one after the other, up to `</s>` or NEW_TOKENS.
      scores: the log probability of each id of the given targets, in nats.
    """

    greedy: Rows
    scores: Sequence[Sequence[float]]


def unpadded(rows: Any) -> list[list[int]]:
    """The ids of each row without padding at its end."""
    lists = [list(map(int, row)) for row in rows]
    for row in lists:
        while row and row[-1] == PAD_ID:
            row.pop()
    return lists


def compare(
    model: Model, inputs: Rows, targets: Rows, found: Found, tolerance: float = MOST
) -> dict[str, Any]:
    """Compare a runtime with t5smith.

    Args:
      model: what t5smith reads in the exported folder.
      inputs: ids of each input, with `</s>`.
      targets: ids of the targets of each.
      found: what the runtime computes for these.
      tolerance: the largest difference of a log probability, in nats, or as its share if it is below -1.

    Returns:
      The number of inputs, the largest difference (see `tolerance`), and how many greedy outputs differ where
      two ids have the same log probability within the tolerance.

    Raises:
      T5smithError: a log probability or an id differs by more.
    """
    expected = scores_of(model, inputs, targets)
    apart = 0.0
    for number, (ours, theirs) in enumerate(zip(expected, found.scores, strict=True)):
        if len(ours) != len(theirs):
            what = f"the runtime scores {len(theirs)} of {len(ours)} target tokens of input {number}"
            raise T5smithError(what, where="--for", fix=WITHOUT)
        away = np.abs(ours - np.asarray(theirs)) / np.maximum(1, np.abs(ours))
        # Python's `max` would pass over what is no number.
        apart = float(np.maximum(apart, away.max()))
    if not apart <= tolerance:
        what = f"the runtime's log probabilities of given targets differ by up to {apart:.2g}"
        raise T5smithError(what, where="--for", expected=f"at most {tolerance:g}", fix=WITHOUT)
    return {
        "inputs": len(inputs),
        "largest_difference": apart,
        "tolerance": tolerance,
        "ties": _ties(model, inputs, found.greedy, tolerance),
    }


def _ties(model: Model, inputs: Rows, found: Rows, tolerance: float) -> int:
    """How many greedy outputs differ from ours where two ids are equally probable within the tolerance.

    Raises:
      T5smithError: one differs elsewhere.
    """
    ours, end = greedy(model, inputs), model.vocabulary.eos_id
    theirs = [_until(end, row) for row in found]
    other = [number for number, row in enumerate(ours) if row != theirs[number]]
    if not other:
        return 0
    pairs = [(ours[n], theirs[n]) for n in other]
    at = [next((i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), -1) for pair in pairs]
    scores = [
        scores_of(model, [inputs[n] for n in other], [pair[side] or [end] for pair in pairs])
        for side in (0, 1)
    ]
    for row, (number, place) in enumerate(zip(other, at, strict=True)):
        less = scores[0][row][place] - scores[1][row][place]
        if place < 0 or not less <= tolerance * max(1, abs(scores[0][row][place])):
            what = f"the runtime's greedy output for input {number} is {theirs[number]}"
            raise T5smithError(what, where="--for", expected=str(ours[number]), fix=WITHOUT)
    return len(other)


def _until(end: int, row: Sequence[int]) -> list[int]:
    """Up to the end token, and no more than are compared, without padding."""
    row = list(row[:NEW_TOKENS])
    return unpadded([row[: row.index(end) + 1] if end in row else row])[0]


def greedy(model: Model, inputs: Rows) -> list[list[int]]:
    """The greedy output of t5smith, with `</s>` if it ends."""
    settings = GenerateSettings(max_new_tokens=NEW_TOKENS, min_new_tokens=0, constrain=False)
    rows = Decoder(model, settings).decode(inputs, range(len(inputs)))
    return [_until(model.vocabulary.eos_id, one[0].ids) for one in rows]


def scores_of(model: Model, inputs: Rows, targets: Rows) -> list[np.ndarray]:
    """The log probability of each target by t5smith, in nats, over all rows of the head, spare ones too."""
    scores = list[np.ndarray]()
    before, after = padded(inputs), padded(targets)
    for first in range(0, len(inputs), ROWS):
        rows = slice(first, first + ROWS)
        found = np.asarray(_scores(model.parameters, model.config, before[rows], after[rows]))
        scores += [row[: len(own)] for row, own in zip(found, targets[rows], strict=True)]
    return scores


@partial(jax.jit, static_argnums=1)
def _scores(parameters: Any, config: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    logits = forward(parameters, config, inputs, shift_right(targets))
    return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=2)[..., 0]


def padded(rows: Rows) -> np.ndarray:
    """One array of all rows, int32, padded at the end."""
    array = np.full((len(rows), max(map(len, rows))), PAD_ID, np.int32)
    for number, row in enumerate(rows):
        array[number, : len(row)] = row
    return array
