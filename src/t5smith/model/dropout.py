"""Dropout: a share of the values is set to zero and the rest scaled up, repeatable by its key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


@partial(jax.tree_util.register_dataclass, data_fields=("key",), meta_fields=("rate",))
@dataclass(frozen=True)
class Dropout:
    """The key and rate of dropout. Each place in the network derives its own key by `at`.

    Attributes:
      key: decides which values are dropped; one per layer while it is scanned over a stack.
      rate: the share of values that are dropped, 0 < rate < 1.
    """

    key: Key[Array, "*layers"]
    rate: float

    def at(self, place: int) -> Dropout:
        """The same rate with the key of a place in the network."""
        return replace(self, key=jax.random.fold_in(self.key, place))

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Drop values and keep their mean (Srivastava et al. 2014)."""
        kept = jax.random.bernoulli(self.key, 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0.0)


def drop(x: Float[Array, "*shape"], dropout: Dropout | None, place: int) -> Float[Array, "*shape"]:
    """`x` after dropout at a place; `x` if dropout is None."""
    return x if dropout is None else dropout.at(place)(x)


def at(dropout: Dropout | None, place: int) -> Dropout | None:
    """Dropout with the key of a place; None if dropout is None."""
    return None if dropout is None else dropout.at(place)
