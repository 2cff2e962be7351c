"""Which stretch of text each window is: shuffled, reshuffled every epoch, corpora mixed by their weights.

Window q of a run is a function of (store, settings, seed, q), so that nothing has to be remembered to go
on. The shuffle is grain's, a permutation that is computed place by place and takes no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from grain.experimental import index_shuffle
from jaxtyping import Int

from t5smith.base.errors import T5smithError
from t5smith.objective.rng import ORDER, SHIFTS, generator
from t5smith.store.token_store import Corpus

PERIOD = 10_007
"""Corpora take turns in a pattern of so many windows: shares are right to a hundredth of a percent.

A prime number, so that it cannot fall into step with the cycle in which denoisers take turns."""


@dataclass(frozen=True)
class WindowOrder:
    """Where each window of a run begins.

    Every epoch of a corpus visits its windows in an order of its own and, with `shift_windows`, cuts the
    text into windows at another place: else the same words would always meet the same edge, which costs
    much when a small text is read many times (docs/decisions.md has the figure).

    Attributes:
      corpora: where each lies in the split's tokens.
      weights: shares of the windows, one a corpus; any positive numbers.
      window: tokens of one.
      seed: of the run.
      shift_windows: see above.

    Raises:
      T5smithError: a corpus is too short for one window.
    """

    corpora: Sequence[Corpus]
    weights: Sequence[float]
    window: int
    seed: int
    shift_windows: bool = True
    _pattern: Int[np.ndarray, " period"] = field(init=False, repr=False, compare=False)
    _rank: Int[np.ndarray, " period"] = field(init=False, repr=False, compare=False)
    _turns: Int[np.ndarray, " corpora"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for corpus in self.corpora:
            if corpus.tokens < self.window:
                raise T5smithError(
                    f"the corpus {corpus.name!r} has {corpus.tokens:,} tokens, fewer than one window of "
                    f"{self.window:,}",
                    where="corpus.train",
                    fix="give more text, or lower objective.input_length",
                )
        turns = _apportion(self.weights, PERIOD if len(self.corpora) > 1 else 1)
        pattern = np.repeat(np.arange(len(turns)), turns)
        generator(self.seed, ORDER, 0).shuffle(pattern)
        rank = np.zeros_like(pattern)
        for corpus, count in enumerate(turns):
            rank[pattern == corpus] = np.arange(count)
        object.__setattr__(self, "_pattern", pattern)
        object.__setattr__(self, "_rank", rank)
        object.__setattr__(self, "_turns", turns)

    def windows_per_epoch(self, corpus: int = 0) -> int:
        """Windows of a corpus that are visited before any is visited again."""
        tokens = self.corpora[corpus].tokens
        # Shifted windows need room for the largest shift, if there is any to spare.
        return (
            max(1, (tokens - self.window + 1) // self.window) if self.shift_windows else tokens // self.window
        )

    def corpus_of(self, q: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The number of the corpus that each window of the run is from."""
        return self._pattern[q % len(self._pattern)]

    def starts(self, q: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The place in the split's tokens where each window of the run begins."""
        place = q % len(self._pattern)
        corpora = self._pattern[place]
        visits = q // len(self._pattern) * self._turns[corpora] + self._rank[place]
        starts = np.empty(len(q), np.int64)
        for corpus in np.unique(corpora):
            mine = corpora == corpus
            starts[mine] = self._visited(int(corpus), visits[mine])
        return starts

    def _visited(self, corpus: int, visits: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Where the windows of some visits to a corpus begin."""
        count = self.windows_per_epoch(corpus)
        epochs, places = np.divmod(visits, count)
        seeds = {epoch: self._epoch(corpus, epoch) for epoch in np.unique(epochs).tolist()}
        windows = [
            index_shuffle(place, max_index=count - 1, seed=seeds[epoch][0], rounds=4)
            for place, epoch in zip(places.tolist(), epochs.tolist(), strict=True)
        ]
        shifts = np.array([seeds[epoch][1] for epoch in epochs.tolist()], np.int64)
        return self.corpora[corpus].start + shifts + np.array(windows, np.int64) * self.window

    def _epoch(self, corpus: int, epoch: int) -> tuple[int, int]:
        """An epoch's seed of the shuffle, and the tokens passed over before its first window."""
        shuffle, shift = _drawn(self.seed, corpus, epoch)
        if not self.shift_windows or epoch == 0:
            return shuffle, 0
        tokens = self.corpora[corpus].tokens
        room = min(self.window - 1, tokens - self.windows_per_epoch(corpus) * self.window)
        return shuffle, int(shift * (room + 1))


@lru_cache(maxsize=1024)
def _drawn(seed: int, corpus: int, epoch: int) -> tuple[int, float]:
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, SHIFTS, corpus, epoch))))
    return int(rng.integers(2**32)), float(rng.random())


def _apportion(weights: Sequence[float], total: int) -> Int[np.ndarray, " n"]:
    """Whole numbers in proportion to weights that sum to a total; none is zero. Largest remainders first."""
    share = np.asarray(weights, np.float64) / np.sum(weights) * total
    whole = np.maximum(np.floor(share).astype(np.int64), 1)
    rest = np.argsort(-(share - whole), kind="stable")
    while (lack := total - int(whole.sum())) != 0:
        if lack > 0:
            whole[rest[:lack]] += 1
        else:
            whole[np.argmax(whole)] -= 1
    return whole


def temperature_weights(tokens: Sequence[int], temperature: float) -> list[float]:
    """Shares in proportion to size^(1/temperature): 1 is by size, large ones are nearly equal shares.

    mT5's alpha is 1/temperature; it used 0.3 (Xue et al. 2021, section 3.2).
    """
    powers = np.asarray(tokens, np.float64) ** (1 / temperature)
    return (powers / powers.sum()).tolist()
