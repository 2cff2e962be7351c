"""The decoding loop: the encoder once, then a token at a time until every sequence has ended.

Shapes: B inputs, K sequences per input, S input positions, T new tokens, V vocabulary, N stop strings. The
loop runs up to a position that is an argument, so that one program serves any `max_new_tokens` up to T, and
can be left and entered again.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from t5smith.generation.beams import advance_beams, entering, first_beams, searching, seen_by
from t5smith.generation.cache import decode_step, distance_bias, empty_cache, read_inputs
from t5smith.generation.processors import Rules, process, warp
from t5smith.generation.state import DecoderWeights, Given, Memory, Slots, State
from t5smith.generation.stops import reached, step
from t5smith.model.compute import Compute
from t5smith.model.config import ModelConfig
from t5smith.model.params import Parameters
from t5smith.model.t5 import PAD_ID


@partial(jax.jit, static_argnames=("config", "rules", "length", "compute"))
def start(
    parameters: Parameters,
    weights: DecoderWeights,
    input_ids: Int[Array, "B S"],
    given: Given,
    *,
    config: ModelConfig,
    rules: Rules,
    length: int,
    compute: Compute,
) -> tuple[Memory, State]:
    """Read the inputs. A row without any is no input, and has ended."""
    (B, _), K = input_ids.shape, rules.sequences
    is_search = rules.num_beams > 1
    none = (input_ids == PAD_ID).all(axis=1)
    strings = 0 if given.stops is None else given.stops.ends.shape[0]
    state = State(
        position=jnp.int32(0),
        tokens=jnp.full((B, K, length + 1), PAD_ID, jnp.int32),
        log_probs=jnp.zeros((B, K, length), jnp.float32),
        ended=jnp.broadcast_to(none[:, None], (B, K)),
        stops=jnp.zeros((B, K, strings), jnp.int32),
        cache=empty_cache(config, *((B, K) if is_search else (B * K, 1)), length, compute),
        beams=first_beams(B, K, length, none) if is_search else None,
    )
    return read_inputs(parameters, weights, config, input_ids, compute), state


@partial(jax.jit, static_argnames=("config", "rules", "compute"), donate_argnames=("state",))
def run(
    weights: DecoderWeights,
    memory: Memory,
    given: Given,
    state: State,
    until: Int[Array, ""],
    *,
    config: ModelConfig,
    rules: Rules,
    compute: Compute,
) -> State:
    """Generate up to the position `until`, at most `given.limit`, or until every sequence has ended."""
    bias = distance_bias(weights, config, state.log_probs.shape[2])

    def goes_on(state: State) -> Bool[Array, ""]:
        open_ = ~state.ended.all() if state.beams is None else searching(state.beams, rules)
        return (state.position < jnp.minimum(until, given.limit)) & open_

    def body(state: State) -> State:
        K, T = state.tokens.shape[1], state.log_probs.shape[2]
        newest = jax.lax.dynamic_index_in_dim(state.tokens, state.position, axis=2, keepdims=False)
        if state.beams is None:
            seen = (jnp.arange(T) <= state.position)[None, None, :, None]
        else:
            beams = entering(state.beams, state.position)
            state = replace(state, beams=beams)
            seen = seen_by(beams, state.position)
        logits, cache = decode_step(
            weights, config, memory, state.cache, bias, seen, newest, state.position, compute
        )
        state = replace(state, cache=cache)
        if state.beams is None:
            return _advance(state, logits, given, rules)
        tokens, log_probs, stops, beams = advance_beams(
            state.beams,
            state.tokens,
            state.log_probs,
            state.stops,
            logits,
            state.position,
            given.limit,
            rules,
            _slots_of_sequences(given.slots, K),
            given.stops,
        )
        return replace(
            state, position=state.position + 1, tokens=tokens, log_probs=log_probs, stops=stops, beams=beams
        )

    return jax.lax.while_loop(goes_on, body, state)


def _advance(state: State, logits: Float[Array, "R V"], given: Given, rules: Rules) -> State:
    """Take or draw a token for every sequence that has not ended."""
    B, K, _ = state.tokens.shape
    position = state.position
    slots = _slots_of_sequences(given.slots, K)
    scores = process(logits, state.tokens.reshape(B * K, -1), position, given.limit, rules, slots)
    if rules.sample:
        scores = warp(scores, rules) + _noise(given, position, B, K, scores.shape[1])
    token = jnp.argmax(scores, axis=1).astype(jnp.int32)
    ended = state.ended
    new = jnp.where(ended, PAD_ID, token.reshape(B, K))
    log_probs = state.log_probs
    if rules.log_probs:
        own = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=1), token[:, None], axis=1)
        own = jnp.where(ended, 0.0, own.reshape(B, K))
        log_probs = jax.lax.dynamic_update_index_in_dim(log_probs, own, position, axis=2)
    stops, now_ended = state.stops, ended | (new == rules.eos_id)
    if given.stops is not None:
        stops = step(given.stops, stops.reshape(B * K, -1), new.reshape(-1)).reshape(stops.shape)
        now_ended |= reached(given.stops, stops)
    tokens = jax.lax.dynamic_update_index_in_dim(state.tokens, new, position + 1, axis=2)
    return replace(
        state, position=position + 1, tokens=tokens, log_probs=log_probs, ended=now_ended, stops=stops
    )


def _noise(given: Given, position: Int[Array, ""], B: int, K: int, V: int) -> Float[Array, "R V"]:
    """Gumbel noise: the argmax of logits plus it is a draw from their softmax (Gumbel 1954; Maddison 2014).

    The key of a draw is made of the seed, the input's number, the sequence's and the position, so that it is
    the same in any batch.
    """

    def draw(row: Int[Array, ""], sequence: Int[Array, ""]) -> Float[Array, " V"]:
        key = jax.random.fold_in(jax.random.fold_in(given.seed, row), sequence)
        return jax.random.gumbel(jax.random.fold_in(key, position), (V,), jnp.float32)

    rows, sequences = jnp.repeat(given.rows, K), jnp.tile(jnp.arange(K), B)
    return jax.vmap(draw)(rows, sequences)


def _slots_of_sequences(slots: Slots | None, K: int) -> Slots | None:
    """The slots of inputs, repeated for the sequences of each."""
    if slots is None:
        return None
    return Slots(jnp.repeat(slots.order, K, axis=0), jnp.repeat(slots.count, K), slots.text)
