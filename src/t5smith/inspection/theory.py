"""What counts of spans must come to, from the law of the masks alone.

n tokens are split into k non-empty parts, all C(n-1, k-1) ways equally likely. So the first j parts sum to s
in C(s-1, j-1) C(n-s-1, k-j-1) of them, and a part has l tokens with chance C(n-l-1, k-2) / C(n-1, k-1).
Everything else follows from the sums of parts of text and parts of noise, which are independent.

Shapes: W tokens a window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from t5smith.objective.denoisers import DenoiserSpec


@dataclass(frozen=True)
class Theory:
    """Expected values for one window of a denoiser, its masks as they are drawn.

    Attributes:
      masked: (W,) the chance that each token is masked.
      joined: (W,) the chance that a token and the one before it are masked, and so in one span.
      span_lengths: (W + 1,) how many spans there are of each length.
      text_lengths: (W + 1,) how many stretches of text between them.
      closing: the chance of a closing sentinel.
      inputs, targets: positions in use.
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
        """How many spans."""
        return float(self.span_lengths.sum())

    @property
    def noise(self) -> float:
        """How many masked tokens."""
        return float(self.masked.sum())


def theory(task: DenoiserSpec, *, roll: bool) -> Theory:
    """What to expect of a denoiser's windows."""
    if task.lengths is None:
        return _prefix_lm(task)
    W, noise, k = task.lengths.window, task.lengths.noise, task.lengths.spans
    spans, text = (k * _padded(part_law(n, k), W + 1) for n in (noise, W - noise))
    if roll:
        spans, text = _cut(spans), _cut(text)
        masked, joined = np.full(W, noise / W), np.full(W, (noise - k) / W)
        closing = 1 - noise / W
    else:
        masked, joined = places(W, noise, k)
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


def part_law(n: int, k: int) -> Float[np.ndarray, " n_and_1"]:
    """The chance of each length for a part of n tokens split into k."""
    return sum_law(n, k, 1)


def sum_law(n: int, k: int, j: int) -> Float[np.ndarray, " n_and_1"]:
    """The chance of each sum of the first j of k parts of n tokens."""
    law = np.zeros(n + 1)
    if j in (0, k):
        law[0 if j == 0 else n] = 1.0
        return law
    s = np.arange(j, n - (k - j) + 1)
    law[s] = np.exp(_log_choose(s - 1, j - 1) + _log_choose(n - s - 1, k - j - 1) - _log_choose(n - 1, k - 1))
    return law


def places(W: int, noise: int, k: int) -> tuple[Float[np.ndarray, " W"], Float[np.ndarray, " W"]]:
    """For every place the chance that it is masked, and that it and the one before are.

    Span j begins where j + 1 parts of text and j parts of noise end, and ends a part of noise later.
    """
    masked, joined = np.zeros(W + 1), np.zeros(W + 1)
    for j in range(1, k + 1):
        text = sum_law(W - noise, k, j)
        begun = np.cumsum(np.convolve(text, sum_law(noise, k, j - 1)))
        ended = np.cumsum(np.convolve(text, sum_law(noise, k, j)))
        masked += begun - ended
        joined[1:] += begun[:-1] - ended[1:]
    return np.clip(masked[:W], 0, 1), np.clip(joined[:W], 0, 1)


def _cut(lengths: Float[np.ndarray, " W_and_1"]) -> Float[np.ndarray, " W_and_1"]:
    """Parts of a ring of W tokens when it is cut at one place of W, each equally likely.

    A part of l tokens has l - 1 places within it; cut there, it becomes two, which are of every length
    below l once each as the first and once as the second.
    """
    W = len(lengths) - 1
    size = np.arange(W + 1)
    longer = np.append(np.cumsum(lengths[::-1])[::-1][1:], 0.0)
    cut = lengths * (1 - np.maximum(size - 1, 0) / W) + 2 * longer / W
    cut[0] = 0.0
    return cut


def _prefix_lm(task: DenoiserSpec) -> Theory:
    """The last tokens are to be told, as many as not: all numbers between two are equally likely."""
    W, (low, high) = task.window, task.noise_range
    law = np.zeros(W + 1)
    law[low : high + 1] = 1 / (high - low + 1)
    # Token p is to be told if W - p tokens or more are; sums of many shares must not pass 1.
    masked = np.clip(np.array([law[W - p :].sum() for p in range(W)]), 0, 1)
    mean = float(law @ np.arange(W + 1))
    return Theory(
        masked,
        np.append(0.0, masked[:-1]),
        law,
        law[::-1].copy(),
        0.0,
        inputs=len(task.prefix) + W - mean + task.eos,
        targets=mean + task.eos,
    )


def _padded(law: Float[np.ndarray, " n"], size: int) -> Float[np.ndarray, " size"]:
    return np.pad(law, (0, size - len(law)))


def _log_choose(n: np.ndarray | int, k: int) -> np.ndarray:
    """Ln C(n, k) for n >= k >= 0."""
    n = np.asarray(n)
    logs = np.append(0.0, np.cumsum(np.log(np.arange(1, int(n.max(initial=0)) + 1))))
    return logs[n] - logs[k] - logs[n - k]
