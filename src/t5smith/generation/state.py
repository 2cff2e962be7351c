"""The trees of arrays that decoding reads and carries from token to token.

Shapes: B inputs, K sequences per input, R = B K sequences, S input positions, T new tokens, T1 = T + 1,
V vocabulary, H heads, C d_kv, D d_model, N stop strings of up to M bytes. The cache of self-attention has
G groups of P sequences that may see each other's keys: the beams of an input (G = B, P = K), or every
sequence alone (G = R, P = 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jaxtyping import Array, Bool, Float, Int, UInt32

from t5smith.model.params import DecoderLayer


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecoderWeights:
    """The decoder with an array per layer and its matrices in the precision of decoding.

    A loop over stacked layers would copy every weight for every token, and convert it.
    """

    embedding: Float[Array, "V D"]
    layers: tuple[DecoderLayer, ...]
    relative_attention_bias: Float[Array, "N H"] | None
    final_norm: Float[Array, " D"]
    head: Float[Array, "D V"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Memory:
    """What the decoder reads of the inputs: keys and values of cross-attention per layer, and their mask."""

    keys: tuple[Float[Array, "B S H C"], ...]
    values: tuple[Float[Array, "B S H C"], ...]
    bias: Float[Array, "B 1 1 S"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of self-attention per layer."""

    keys: tuple[Float[Array, "G T P H C"], ...]
    values: tuple[Float[Array, "G T P H C"], ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Slots:
    """The sentinels that an output must have.

    Attributes:
      order: the sentinels in order, then the one that may close the output, or -1.
      count: how many must be written; 0: the output is free.
      text: whether an id is text.
    """

    order: Int[Array, "R M"]
    count: Int[Array, " R"]
    text: Bool[Array, " V"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stops:
    """Tables of N strings of up to M bytes.

    Attributes:
      tables: the state after a state and a token.
      ends: the state in which each string has occurred; it is never left.
    """

    tables: Int[Array, "N M V"]
    ends: Int[Array, " N"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Beams:
    """The state of beam search beside the running sequences.

    Attributes:
      running: the sum of log probabilities of each running beam.
      source: the beam under which the key and value of each position were written.
      finished_tokens, finished_log_probs: the best finished sequences, as those that run.
      scores: of the finished sequences, with the length penalty.
      finished: whether there is such a sequence.
      improvable: whether a running beam may become better than the worst finished one.
      last: whether no candidate of the last step could go on.
    """

    running: Float[Array, "B K"]
    source: Int[Array, "B K T"]
    finished_tokens: Int[Array, "B K T1"]
    finished_log_probs: Float[Array, "B K T"]
    scores: Float[Array, "B K"]
    finished: Bool[Array, "B K"]
    improvable: Bool[Array, "B 1"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Given:
    """What a batch is decoded with beside the model.

    Attributes:
      limit: the largest number of tokens of this batch.
      seed: of the draws.
      rows: the number of each input among all that are generated, which its draws depend on.
      slots: the sentinels that outputs must have; None: outputs are free.
      stops: the stop strings; None: there are none.
    """

    limit: Int[Array, ""]
    seed: UInt32[Array, 2]
    rows: Int[Array, " B"]
    slots: Slots | None = None
    stops: Stops | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """The loop between two tokens.

    Attributes:
      position: the number of tokens so far.
      tokens: the start token, the tokens so far, padding.
      log_probs: of the tokens so far, by the model alone; zeros unless they are asked for.
      ended: whether a sequence has ended.
      stops: the state of each stop string.
      cache: keys and values of the tokens so far.
      beams: the rest of beam search.
    """

    position: Int[Array, ""]
    tokens: Int[Array, "B K T1"]
    log_probs: Float[Array, "B K T"]
    ended: Bool[Array, "B K"]
    stops: Int[Array, "B K N"]
    cache: Cache
    beams: Beams | None
