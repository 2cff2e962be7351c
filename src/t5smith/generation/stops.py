"""Stop strings as tables that a compiled loop can read: one automaton per string, stepped by tokens.

Knuth, Morris & Pratt 1977: the state is how much of the string the text ends with. A token moves it by all of
its bytes at once, so that a string may begin and end inside tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from t5smith.generation.state import Stops
from t5smith.vocabulary.vocabulary import Vocabulary


def step(stops: Stops, states: Int[Array, "R N"], token: Int[Array, " R"]) -> Int[Array, "R N"]:
    """The states after one more token."""
    numbers = jnp.arange(stops.ends.shape[0])[None]
    return stops.tables[numbers, states, token[:, None]]


def reached(stops: Stops, states: Int[Array, "B K N"]) -> Bool[Array, "B K"]:
    """Whether one of the strings has occurred."""
    return (states == stops.ends[None, None]).any(axis=-1)


def create_stops(strings: Sequence[str], vocabulary: Vocabulary, rows: int) -> Stops:
    """The tables of stop strings, for a model with `rows` rows of its embedding."""
    data, lengths = _token_bytes(vocabulary)
    longest = max(len(text.encode()) for text in strings)
    tables = np.zeros((len(strings), longest + 1, rows), np.int32)
    for number, text in enumerate(strings):
        automaton = _automaton(text.encode())
        last = len(automaton) - 1
        states = np.broadcast_to(np.arange(last + 1)[:, None], (last + 1, vocabulary.size)).copy()
        for at in range(data.shape[1]):
            moved = automaton[states, data[None, :, at]]
            states = np.where((at < lengths)[None], moved, states)
        tables[number, : last + 1, : vocabulary.size] = states
    return Stops(jnp.asarray(tables), jnp.asarray([len(text.encode()) for text in strings], jnp.int32))


def _automaton(pattern: bytes) -> Int[np.ndarray, "states bytes"]:
    """The next state by state and byte."""
    table = np.zeros((len(pattern) + 1, 256), np.int32)
    table[0, pattern[0]] = 1
    fallback = 0
    for state in range(1, len(pattern)):
        table[state] = table[fallback]
        table[state, pattern[state]] = state + 1
        fallback = int(table[fallback, pattern[state]])
    table[len(pattern)] = len(pattern)
    return table


@lru_cache(maxsize=2)
def _token_bytes(vocabulary: Vocabulary) -> tuple[Int[np.ndarray, "V longest"], Int[np.ndarray, " V"]]:
    """The bytes of each id's text, padded, and their number. Control pieces have their names."""
    texts = [vocabulary.token_bytes(number) for number in range(vocabulary.size)]
    lengths = np.array([len(text) for text in texts])
    data = np.zeros((len(texts), max(1, lengths.max())), np.int32)
    for number, text in enumerate(texts):
        data[number, : len(text)] = list(text)
    return data, lengths


def kept_tokens(strings: Sequence[str], vocabulary: Vocabulary, ids: Sequence[int]) -> tuple[int, str] | None:
    """The number of tokens up to the end of the first stop string, and that string; None if there is none."""
    text, patterns = b"", [string.encode() for string in strings]
    for number, token in enumerate(ids, 1):
        text += vocabulary.token_bytes(token)
        if found := [at for at, pattern in enumerate(patterns) if pattern in text]:
            return number, strings[min(found, key=lambda at: text.find(patterns[at]))]
    return None
