"""What changes the logits of the next token, in the order of transformers' logits processors.

Shapes: R sequences, T new tokens, V vocabulary, M sentinels of an input and one more.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from t5smith.generation.state import Slots
from t5smith.model.t5 import PAD_ID
from t5smith.recipe.evaluate import GenerateSettings

NEVER = -jnp.inf


@dataclass(frozen=True)
class Rules:
    """The settings that a program is compiled for; hashable."""

    eos_id: int
    num_beams: int
    sequences: int
    sample: bool
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    min_new_tokens: int
    repetition_penalty: float
    no_repeat_ngram_size: int
    length_penalty: float
    early_stopping: str
    log_probs: bool

    @classmethod
    def of(cls, settings: GenerateSettings, eos_id: int) -> Rules:
        """The rules of settings."""
        values = settings.model_dump()
        own = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        width = settings.num_beams if settings.num_beams > 1 else settings.num_return_sequences
        return cls(eos_id=eos_id, sequences=width, **own)


def process(
    scores: Float[Array, "R V"],
    tokens: Int[Array, "R T1"],
    position: Int[Array, ""],
    limit: Int[Array, ""],
    rules: Rules,
    slots: Slots | None,
) -> Float[Array, "R V"]:
    """The scores of the token at `position` after penalties and bans.

    Args:
      scores: logits, or log probabilities in beam search.
      tokens: the start token, then those generated so far, then padding.
      position: the number of tokens generated so far.
      limit: the largest number of tokens.
      rules: which penalties and bans there are.
      slots: the sentinels that outputs must have, if any.
    """
    ids = jnp.arange(scores.shape[1])[None]
    if rules.repetition_penalty != 1.0:
        # What is not generated yet is padding, and so is the start token, which counts as generated.
        before = _marked(scores, tokens)
        penalty = jnp.float32(rules.repetition_penalty)
        scores = jnp.where(before, jnp.where(scores < 0, scores * penalty, scores / penalty), scores)
    if rules.no_repeat_ngram_size:
        scores = jnp.where(_repeating(scores, tokens, position, rules.no_repeat_ngram_size), NEVER, scores)
    if rules.min_new_tokens:
        # Beside </s>, as in transformers, padding: a model that writes it writes nothing.
        nothing = (ids == rules.eos_id) | (ids == PAD_ID)
        scores = jnp.where(nothing & (position < rules.min_new_tokens), NEVER, scores)
    if slots is not None:
        allowed = _allowed(slots, tokens, position, limit, rules.eos_id)
        scores = jnp.where(allowed, scores, NEVER)
    if rules.no_repeat_ngram_size or slots is not None:
        # If everything is banned the output ends.
        none = jnp.max(scores, axis=1, keepdims=True) == NEVER
        scores = jnp.where(none & (ids == rules.eos_id), 0.0, scores)
    return scores


def _marked(scores: Float[Array, "R V"], ids: Int[Array, "R N"]) -> Bool[Array, "R V"]:
    """Whether an id is among those of its row; ids of V or more mark nothing."""
    rows = jnp.arange(scores.shape[0])[:, None]
    return jnp.zeros(scores.shape, bool).at[rows, ids].set(True, mode="drop")


def _repeating(
    scores: Float[Array, "R V"], tokens: Int[Array, "R T1"], position: Int[Array, ""], size: int
) -> Bool[Array, "R V"]:
    """The ids that would complete an n-gram that was there before; the start token is part of n-grams."""
    windows = tokens.shape[1] - size + 1
    if windows < 1:
        return jnp.zeros(scores.shape, bool)
    begin = jnp.arange(windows)[None]
    matches = begin + size - 1 <= position
    for n in range(size - 1):
        last = jax.lax.dynamic_slice_in_dim(tokens, position - (size - 2) + n, 1, axis=1)
        matches &= tokens[:, n : n + windows] == last
    # Before there are as many tokens the slice above begins at the first one; there is no window then either.
    return _marked(scores, jnp.where(matches, tokens[:, size - 1 :], scores.shape[1]))


def _allowed(
    slots: Slots, tokens: Int[Array, "R T1"], position: Int[Array, ""], limit: Int[Array, ""], eos_id: int
) -> Bool[Array, "R V"]:
    """The ids that may follow: sentinels in order, each with a token after it, and all of them in time."""
    rows, width = tokens.shape
    generated = jnp.arange(width)[None] <= position
    is_sentinel = (~slots.text[tokens] & generated).at[:, 0].set(False)
    written = is_sentinel.sum(axis=1)
    bare = jnp.take_along_axis(is_sentinel, jnp.full((rows, 1), position), axis=1)[:, 0]
    closed, complete = written > slots.count, written == slots.count
    at = jnp.minimum(written, slots.count)[:, None]
    following = jnp.take_along_axis(slots.order, at, axis=1)
    # Each sentinel that is still to come takes two tokens.
    in_time = limit - position - 1 >= 2 * (slots.count - written)
    may_text = (written > 0) & ~closed & (in_time | bare)
    ids = jnp.arange(slots.text.shape[0])[None]
    allowed = slots.text[None] & may_text[:, None]
    allowed |= (ids == following) & (~bare & ~closed)[:, None]
    allowed |= (ids == eos_id) & (closed | (complete & ~bare))[:, None]
    return allowed | (slots.count == 0)[:, None]


def warp(scores: Float[Array, "R V"], rules: Rules) -> Float[Array, "R V"]:
    """The logits to draw from: temperature, top-k, top-p, min-p, in this order."""
    if rules.temperature != 1.0:
        scores /= jnp.float32(rules.temperature)
    if rules.top_k:
        least = jax.lax.top_k(scores, min(rules.top_k, scores.shape[1]))[0][:, -1:]
        scores = jnp.where(scores < least, NEVER, scores)
    if rules.top_p < 1.0:
        order = jnp.argsort(scores, axis=1)
        ascending = jax.nn.softmax(jnp.take_along_axis(scores, order, axis=1), axis=1)
        removed = jnp.cumsum(ascending, axis=1) <= 1 - rules.top_p
        removed = removed.at[:, -1].set(False)
        rows = jnp.arange(scores.shape[0])[:, None]
        scores = jnp.where(jnp.zeros(scores.shape, bool).at[rows, order].set(removed), NEVER, scores)
    if rules.min_p:
        probabilities = jax.nn.softmax(scores, axis=1)
        least = rules.min_p * jnp.max(probabilities, axis=1, keepdims=True)
        scores = jnp.where(probabilities < least, NEVER, scores)
    return scores
