"""Decoding one batch: compiled if it fits into memory, and left at once on a signal."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Int

from t5smith.base.signals import interruptible
from t5smith.base.wrapping import pluralize
from t5smith.generation.greedy import greedy
from t5smith.interop.model import Model
from t5smith.model.config import ModelConfig
from t5smith.model.params import Parameters
from t5smith.training.compile import fitting_program


def decode(model: Model, input_ids: Int[np.ndarray, "B S"], max_new_tokens: int) -> Int[np.ndarray, "B T"]:
    """The ids that the model writes for a batch, greedily.

    Raises:
      T5smithError: it does not fit into memory.
    """
    rows, length = input_ids.shape
    args = model.parameters, input_ids
    program = fitting_program(
        _greedy,
        *args,
        what=f"generating {max_new_tokens:,} tokens for {pluralize(rows, 'text')} of up to {length:,}",
        where="--max-new-tokens",
        fix="ask for fewer, or give shorter or fewer texts",
        config=model.config,
        length=max_new_tokens,
        eos_id=model.vocabulary.eos_id,
    )
    return interruptible(lambda: np.asarray(program(*args)))


@partial(jax.jit, static_argnames=("config", "length", "eos_id"))
def _greedy(
    parameters: Parameters, input_ids: Int[Array, "B S"], *, config: ModelConfig, length: int, eos_id: int
) -> Int[Array, "B T"]:
    return greedy(parameters, config, input_ids, length=length, eos_id=eos_id)
