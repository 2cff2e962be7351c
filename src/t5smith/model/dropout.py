"""Dropout: a share of the values is set to zero and the rest scaled up, by a key that makes it repeatable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


@partial(jax.tree_util.register_dataclass, data_fields=("key",), meta_fields=("rate",))
@dataclass(frozen=True)
class Dropout:
    """Where dropout's randomness comes from. Each place in the network takes a key of its own by `at`.

    Attributes:
      key: decides which values fall; on the way to a stack of layers one for each.
      rate: the share that does, 0 < rate < 1.
    """

    key: Key[Array, "*layers"]
    rate: float

    def at(self, place: int) -> Dropout:
        """The same with a key of its own for a place."""
        return replace(self, key=jax.random.fold_in(self.key, place))

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Zero a share of `rate` of the values; their mean stays what it was (Srivastava et al. 2014)."""
        kept = jax.random.bernoulli(self.key, 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0.0)


def drop(x: Float[Array, "*shape"], dropout: Dropout | None, place: int) -> Float[Array, "*shape"]:
    """`x` after dropout at a place, or as it is where there is none."""
    return x if dropout is None else dropout.at(place)(x)


def at(dropout: Dropout | None, place: int) -> Dropout | None:
    """Dropout with a key of its own for a place, if there is any."""
    return None if dropout is None else dropout.at(place)
