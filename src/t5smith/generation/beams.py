"""Beam search, step by step as transformers 5 computes it (its `_beam_search`).

The running beams are extended, and beside them the best finished sequences are kept. Keys and values are
never moved: `source` says in whose part of the cache each beam finds each of its positions.

Shapes: B inputs, K beams, T new tokens, V vocabulary, N stop strings, J = 2 K candidates.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from t5smith.generation.processors import Rules, process
from t5smith.generation.state import Beams, Slots, Stops
from t5smith.generation.stops import reached, step
from t5smith.model.t5 import PAD_ID

LOW = -1e9
"""The score of what is not there, as in transformers."""


def first_beams(B: int, K: int, length: int, ended: Bool[Array, " B"]) -> Beams:
    """The beams before the first token: only one of them runs, for all would be the same."""
    return Beams(
        running=jnp.full((B, K), LOW, jnp.float32).at[:, 0].set(0.0),
        source=jnp.zeros((B, K, length), jnp.int32),
        finished_tokens=jnp.full((B, K, length + 1), PAD_ID, jnp.int32),
        finished_log_probs=jnp.zeros((B, K, length), jnp.float32),
        scores=jnp.full((B, K), LOW, jnp.float32),
        finished=jnp.broadcast_to(ended[:, None], (B, K)),
        improvable=~ended[:, None],
    )


def entering(beams: Beams, position: Int[Array, ""]) -> Beams:
    """The beams when they write keys and values at a position: each its own."""
    B, K, _ = beams.source.shape
    own = jnp.broadcast_to(jnp.arange(K)[None], (B, K))
    return replace(beams, source=jax.lax.dynamic_update_index_in_dim(beams.source, own, position, axis=2))


def seen_by(beams: Beams, position: Int[Array, ""]) -> Bool[Array, "B K T K"]:
    """Which entries of its input's cache a beam sees."""
    K, T = beams.source.shape[1:]
    until_now = (jnp.arange(T) <= position)[None, None, :, None]
    return (beams.source[..., None] == jnp.arange(K)[None, None, None]) & until_now


def searching(beams: Beams, rules: Rules) -> Bool[Array, ""]:
    """Whether the search of any input goes on."""
    is_open = beams.improvable.any()
    return is_open & ~beams.finished.all() if rules.early_stopping == "true" else is_open


def advance_beams(
    beams: Beams,
    tokens: Int[Array, "B K T1"],
    log_probs: Float[Array, "B K T"],
    stops: Int[Array, "B K N"],
    logits: Float[Array, "BK V"],
    position: Int[Array, ""],
    limit: Int[Array, ""],
    rules: Rules,
    slots: Slots | None,
    strings: Stops | None,
) -> tuple[Int[Array, "B K T1"], Float[Array, "B K T"], Int[Array, "B K N"], Beams]:
    """Extend the beams by a token: the new sequences, their log probabilities, stop states, and beams."""
    B, K, _ = tokens.shape
    V, J = logits.shape[1], 2 * K
    raw = jax.nn.log_softmax(logits, axis=1)
    scores = process(raw, tokens.reshape(B * K, -1), position, limit, rules, slots)
    total = scores.reshape(B, K, V) + beams.running[..., None]
    sums, parent, token = _best(total, J)

    long = jax.lax.dynamic_update_index_in_dim(_taken(tokens, parent), token, position + 1, axis=2)
    own = jnp.take_along_axis(raw.reshape(B, K * V), parent * V + token, axis=1)
    longer = _taken(log_probs, parent)
    longer = jax.lax.dynamic_update_index_in_dim(longer, own, position, axis=2)
    ends = (token == rules.eos_id) | (position + 1 >= limit)
    moved = _taken(stops, parent)
    if strings is not None:
        moved = step(strings, moved.reshape(B * J, -1), token.reshape(-1)).reshape(moved.shape)
        ends |= reached(strings, moved)

    going = sums + ends.astype(jnp.float32) * LOW
    running, chosen = jax.lax.top_k(going, K)
    beams = _finish(beams, long, longer, sums, ends, position, rules)
    beams = replace(
        beams,
        running=running,
        source=_taken(beams.source, jnp.take_along_axis(parent, chosen, axis=1)),
    )
    improvable = _improvable(beams, position, limit, rules)
    return (
        _taken(long, chosen),
        _taken(longer, chosen),
        _taken(moved, chosen),
        replace(beams, improvable=improvable),
    )


def _best(
    total: Float[Array, "B K V"], J: int
) -> tuple[Float[Array, "B J"], Int[Array, "B J"], Int[Array, "B J"]]:
    """The J best continuations of each input: their sums, the beams they continue, and their tokens."""
    B, K, V = total.shape
    # The best of all are among the best of each beam: their order is kept, and equal sums keep theirs.
    each, tokens = jax.lax.top_k(total.reshape(B * K, V), min(J, V))
    sums, at = jax.lax.top_k(each.reshape(B, -1), J)
    return sums, at // each.shape[1], jnp.take_along_axis(tokens.reshape(B, -1), at, axis=1)


def _finish(
    beams: Beams,
    tokens: Int[Array, "B J T1"],
    log_probs: Float[Array, "B J T"],
    sums: Float[Array, "B J"],
    ends: Bool[Array, "B J"],
    position: Int[Array, ""],
    rules: Rules,
) -> Beams:
    """Keep the best of the finished sequences and of the candidates among the first K that end now."""
    K = beams.scores.shape[1]
    ends &= (jnp.arange(ends.shape[1]) < K)[None]
    length = (position + 1).astype(jnp.float32)
    scores = sums / length ** jnp.float32(rules.length_penalty)
    if rules.early_stopping == "true":
        scores += beams.finished.all(axis=1, keepdims=True).astype(jnp.float32) * LOW
    scores += (~beams.improvable).astype(jnp.float32) * LOW
    scores += (~ends).astype(jnp.float32) * LOW
    best, chosen = jax.lax.top_k(jnp.concatenate([beams.scores, scores], axis=1), K)
    return replace(
        beams,
        scores=best,
        finished_tokens=_taken(jnp.concatenate([beams.finished_tokens, tokens], axis=1), chosen),
        finished_log_probs=_taken(jnp.concatenate([beams.finished_log_probs, log_probs], axis=1), chosen),
        finished=_taken(jnp.concatenate([beams.finished, ends], axis=1), chosen),
    )


def _improvable(
    beams: Beams, position: Int[Array, ""], limit: Int[Array, ""], rules: Rules
) -> Bool[Array, "B 1"]:
    """Whether the best running beam may still become better than the worst finished sequence."""
    to_the_end = rules.early_stopping == "never" and rules.length_penalty > 0
    length = (limit if to_the_end else position + 1).astype(jnp.float32)
    best = beams.running[:, :1] / length ** jnp.float32(rules.length_penalty)
    worst = jnp.where(beams.finished, beams.scores.min(axis=1, keepdims=True), LOW)
    return beams.improvable & (best > worst).any(axis=1, keepdims=True)


def _taken(x: Shaped[Array, "B I *rest"], at: Int[Array, "B J"]) -> Shaped[Array, "B J *rest"]:
    """The chosen entries of each input."""
    return jnp.take_along_axis(x, at.reshape(*at.shape, *(1,) * (x.ndim - 2)), axis=1)
