"""The expected values of span statistics, from the distribution of the masks.

n tokens are split into k non-empty parts, all C(n-1, k-1) ways equally likely. So the first j parts sum to s
in C(s-1, j-1) C(n-s-1, k-j-1) of them, and a part has l tokens with probability C(n-l-1, k-2) / C(n-1, k-1).
Everything else follows from the sums of parts of text and parts of noise, which are independent.

Shapes: W tokens per window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from t5smith.objective.denoisers import DenoiserSpec


@dataclass(frozen=True)
class Theory:
    """Expected values for one window of a denoiser, under the distribution its masks are drawn from.

    Attributes:
      masked: (W,) the probability that each token is masked.
      joined: (W,) the probability that a token and the one before it are masked, so in one span.
      span_lengths: (W + 1,) number of spans of each length.
      text_lengths: (W + 1,) number of stretches of text of each length between them.
      closing: the probability of a closing sentinel.
      inputs, targets: positions that are not padding.
    """

    masked: Float[np.ndarray, " W"]
    joined: Float[np.ndarray, " W"]
    span_lengths: Float[np.ndarray, " W_and_1"]
    text_lengths: Float[np.ndarray, " W_and_1"]
    closing: float
    inputs: float
    targets: float

    @property
    def spans(self) -> float:
        """Number of spans."""
        return float(self.span_lengths.sum())

    @property
    def noise(self) -> float:
        """Number of masked tokens."""
        return float(self.masked.sum())


def theory(task: DenoiserSpec, *, roll: bool) -> Theory:
    """The expected values of a denoiser's windows; `roll`: its masks are rotated by a random offset."""
    if task.lengths is None:
        return _prefix_lm(task)
    W, noise, k = task.lengths.window, task.lengths.noise, task.lengths.spans
    spans, text = (k * _padded(part_distribution(n, k), W + 1) for n in (noise, W - noise))
    if roll:
        spans, text = _cut_ring(spans), _cut_ring(text)
        masked, joined = np.full(W, noise / W), np.full(W, (noise - k) / W)
        closing = 1 - noise / W
    else:
        masked, joined = masked_positions(W, noise, k)
        closing = 0.0
    joined[0] = 0.0
    count = float(spans.sum())
    fixed = len(task.prefix) + task.eos
    return Theory(
        masked,
        joined,
        spans,
        text,
        closing,
        inputs=fixed + W - noise + count,
        targets=noise + count + closing + task.eos,
    )


def part_distribution(n: int, k: int) -> Float[np.ndarray, " n_and_1"]:
    """The probability of each length of a part, when n tokens are split into k."""
    return sum_distribution(n, k, 1)


def sum_distribution(n: int, k: int, j: int) -> Float[np.ndarray, " n_and_1"]:
    """The probability of each sum of the first j of k parts of n tokens."""
    distribution = np.zeros(n + 1)
    if j in (0, k):
        distribution[0 if j == 0 else n] = 1.0
        return distribution
    s = np.arange(j, n - (k - j) + 1)
    distribution[s] = np.exp(
        _log_choose(s - 1, j - 1) + _log_choose(n - s - 1, k - j - 1) - _log_choose(n - 1, k - 1)
    )
    return distribution


def masked_positions(W: int, noise: int, k: int) -> tuple[Float[np.ndarray, " W"], Float[np.ndarray, " W"]]:
    """For each position the probability that it is masked, and that it and the one before are.

    Span j begins after j + 1 parts of text and j parts of noise, and ends one part of noise later.
    """
    masked, joined = np.zeros(W + 1), np.zeros(W + 1)
    for j in range(1, k + 1):
        text = sum_distribution(W - noise, k, j)
        begun = np.cumsum(np.convolve(text, sum_distribution(noise, k, j - 1)))
        ended = np.cumsum(np.convolve(text, sum_distribution(noise, k, j)))
        masked += begun - ended
        joined[1:] += begun[:-1] - ended[1:]
    return np.clip(masked[:W], 0, 1), np.clip(joined[:W], 0, 1)


def _cut_ring(lengths: Float[np.ndarray, " W_and_1"]) -> Float[np.ndarray, " W_and_1"]:
    """Number of parts of each length, after a ring of W tokens is cut at one of W equally likely points.

    A part of l tokens has l - 1 points within it. Cut there, it becomes two parts; over all points, the
    first has every length below l once, and so has the second.
    """
    W = len(lengths) - 1
    size = np.arange(W + 1)
    longer = np.append(np.cumsum(lengths[::-1])[::-1][1:], 0.0)
    cut = lengths * (1 - np.maximum(size - 1, 0) / W) + 2 * longer / W
    cut[0] = 0.0
    return cut


def _prefix_lm(task: DenoiserSpec) -> Theory:
    """The last tokens are predicted; their number is uniform over a range."""
    W, (low, high) = task.window, task.noise_range
    distribution = np.zeros(W + 1)
    distribution[low : high + 1] = 1 / (high - low + 1)
    # Token p is predicted if W - p or more tokens are; rounding must not take the sums above 1.
    masked = np.clip(np.array([distribution[W - p :].sum() for p in range(W)]), 0, 1)
    mean = float(distribution @ np.arange(W + 1))
    return Theory(
        masked,
        np.append(0.0, masked[:-1]),
        distribution,
        distribution[::-1].copy(),
        0.0,
        inputs=len(task.prefix) + W - mean + task.eos,
        targets=mean + task.eos,
    )


def _padded(distribution: Float[np.ndarray, " n"], size: int) -> Float[np.ndarray, " size"]:
    return np.pad(distribution, (0, size - len(distribution)))


def _log_choose(n: np.ndarray | int, k: int) -> np.ndarray:
    """Ln C(n, k) for n >= k >= 0."""
    n = np.asarray(n)
    logs = np.append(0.0, np.cumsum(np.log(np.arange(1, int(n.max(initial=0)) + 1))))
    return logs[n] - logs[k] - logs[n - k]
