"""The order of the windows: shuffled in every epoch, corpora mixed by their weights.

Window q of a run is a function of (store, settings, seed, q), so there is no state to restore on resume. The
shuffle is grain's `index_shuffle`, a permutation computed entry by entry, which takes no memory.

Shapes: n windows.
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
"""The mix of corpora repeats after this many windows, so shares are exact to a hundredth of a percent.

It is prime, so that the mix of corpora and the cycle of denoisers do not line up."""


@dataclass(frozen=True)
class WindowOrder:
    """The first token of each window of a run.

    Every epoch of a corpus visits its windows in a different order and, with `shift_windows`, cuts the text
    into windows at a different offset. Without it the same words would always be at the edges of windows,
    which costs much when a small text is read many times (docs/decisions.md has the figure).

    Attributes:
      corpora: their position in the split's tokens.
      weights: the share of the windows of each corpus; any positive numbers.
      window: tokens per window.
      seed: the seed of the run.
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
    _per_period: Int[np.ndarray, " corpora"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for corpus in self.corpora:
            if corpus.tokens < self.window:
                raise T5smithError(
                    f"the corpus {corpus.name!r} has {corpus.tokens:,} tokens, fewer than one window of "
                    f"{self.window:,}",
                    where="corpus.train",
                    fix="use more text, or lower objective.input_length",
                )
        per_period = _apportion(self.weights, PERIOD if len(self.corpora) > 1 else 1)
        pattern = np.repeat(np.arange(len(per_period)), per_period)
        generator(self.seed, ORDER, 0).shuffle(pattern)
        rank = np.zeros_like(pattern)
        for corpus, count in enumerate(per_period):
            rank[pattern == corpus] = np.arange(count)
        object.__setattr__(self, "_pattern", pattern)
        object.__setattr__(self, "_rank", rank)
        object.__setattr__(self, "_per_period", per_period)

    def windows_per_epoch(self, corpus: int = 0) -> int:
        """Windows of a corpus that are visited before any is repeated."""
        tokens = self.corpora[corpus].tokens
        if self.shift_windows:
            # Room for the largest shift, unless the text is too short for it.
            return max(1, (tokens - self.window + 1) // self.window)
        return tokens // self.window

    def share(self, corpus: int) -> float:
        """The share of the windows of a run that are of a corpus."""
        return float(self._per_period[corpus] / len(self._pattern))

    def epochs(self, corpus: int, windows: int) -> float:
        """How many times the first `windows` windows of a run visit each window of a corpus, on average."""
        return windows * self.share(corpus) / self.windows_per_epoch(corpus)

    def corpus_of(self, q: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The index of the corpus of each window q."""
        return self._pattern[q % len(self._pattern)]

    def visits(self, q: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """How many windows of its corpus come before each window q."""
        position = q % len(self._pattern)
        corpora = self._pattern[position]
        return q // len(self._pattern) * self._per_period[corpora] + self._rank[position]

    def starts(self, q: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The first token in the split of each window q."""
        corpora, visits = self.corpus_of(q), self.visits(q)
        starts = np.empty(len(q), np.int64)
        for corpus in np.unique(corpora):
            chosen = corpora == corpus
            starts[chosen] = self._starts_in(int(corpus), visits[chosen])
        return starts

    def _starts_in(self, corpus: int, visits: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The first tokens of the windows of a corpus, by the number of the visit to the corpus."""
        count = self.windows_per_epoch(corpus)
        epochs, positions = np.divmod(visits, count)
        seeds = {epoch: self._epoch(corpus, epoch) for epoch in np.unique(epochs).tolist()}
        windows = [
            index_shuffle(position, max_index=count - 1, seed=seeds[epoch][0], rounds=4)
            for position, epoch in zip(positions.tolist(), epochs.tolist(), strict=True)
        ]
        shifts = np.array([seeds[epoch][1] for epoch in epochs.tolist()], np.int64)
        return self.corpora[corpus].start + shifts + np.array(windows, np.int64) * self.window

    def _epoch(self, corpus: int, epoch: int) -> tuple[int, int]:
        """The shuffle's seed of an epoch, and the tokens skipped before its first window."""
        seed, shift = _draw_epoch(self.seed, corpus, epoch)
        if not self.shift_windows or epoch == 0:
            return seed, 0
        tokens = self.corpora[corpus].tokens
        room = min(self.window - 1, tokens - self.windows_per_epoch(corpus) * self.window)
        return seed, int(shift * (room + 1))


@lru_cache(maxsize=1024)
def _draw_epoch(seed: int, corpus: int, epoch: int) -> tuple[int, float]:
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, SHIFTS, corpus, epoch))))
    return int(rng.integers(2**32)), float(rng.random())


def _apportion(weights: Sequence[float], total: int) -> Int[np.ndarray, " n"]:
    """Split a total into whole numbers in proportion to weights, none zero, by the largest remainders."""
    share = np.asarray(weights, np.float64) / np.sum(weights) * total
    whole = np.maximum(np.floor(share).astype(np.int64), 1)
    by_remainder = np.argsort(-(share - whole), kind="stable")
    while (lack := total - int(whole.sum())) != 0:
        if lack > 0:
            whole[by_remainder[:lack]] += 1
        else:
            whole[np.argmax(whole)] -= 1
    return whole


def temperature_weights(tokens: Sequence[int], temperature: float) -> list[float]:
    """Shares in proportion to size^(1/temperature): 1 is by size, a high temperature nearly equal.

    mT5's alpha is 1/temperature; it used 0.3 (Xue et al. 2021, section 3.2).
    """
    powers = np.asarray(tokens, np.float64) ** (1 / temperature)
    return (powers / powers.sum()).tolist()
