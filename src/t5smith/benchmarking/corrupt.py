"""How fast windows become inputs and targets, beside a row-at-a-time implementation in the same run."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.benchmarking.peer import corrupt_batch
from t5smith.objective.corruption import corrupt
from t5smith.objective.lengths import Masking, check_sentinels, lengths_for_inputs
from t5smith.objective.rng import TRAINING, uniforms
from t5smith.objective.spans import draw_spans, draws_needed
from t5smith.recipe.symbols import SENTINELS

VOCABULARY = 32_000
EOS, PAD = 1, 0


def bench_corrupt(
    batch: int = 128,
    input_length: int = 512,
    noise_density: float = 0.15,
    mean_noise_span_length: float = 3.0,
    seconds: float = 1.0,
    repeats: int = 5,
) -> dict[str, Any]:
    """Tokens a second of span corruption on one core: ours and the peer's in turn, medians.

    Counted are the tokens of the windows. The work is all that lies between windows of ids and finished
    arrays: drawing random numbers, placing spans, writing inputs and targets. NumPy does it in one thread.

    Args:
      batch: windows at a time.
      input_length: encoder positions.
      noise_density: share of the tokens masked.
      mean_noise_span_length: in tokens.
      seconds: how long each of the two is run, each time.
      repeats: how many times they take turns.

    Raises:
      T5smithError: settings that cannot be used.
    """
    _at_least_one(batch=batch, repeats=repeats)
    masking = Masking(noise_density, mean_noise_span_length)
    lengths = lengths_for_inputs(input_length, masking)
    check_sentinels(lengths, SENTINELS, masking, fixed="input_length")
    sentinels = np.arange(VOCABULARY + SENTINELS - 1, VOCABULARY - 1, -1, dtype=np.int32)
    windows = np.random.default_rng(0).integers(3, VOCABULARY, (batch, lengths.window), np.int32)
    draws = draws_needed(lengths)
    rng = np.random.default_rng(0)

    def ours(step: int) -> None:
        numbers = uniforms(0, TRAINING, step * batch, batch, draws)
        corrupt(
            windows,
            draw_spans(numbers, lengths),
            sentinel_ids=sentinels,
            eos_id=EOS,
            pad_id=PAD,
            input_length=lengths.inputs,
            target_length=lengths.targets,
        )

    def peer(step: int) -> None:
        corrupt_batch(rng, windows, lengths, sentinels, EOS)

    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(repeats):
        rates["ours"].append(batch * lengths.window * per_second(ours, seconds))
        rates["peer"].append(batch * lengths.window * per_second(peer, seconds))
    ratios = [a / b for a, b in zip(rates["ours"], rates["peer"], strict=True)]
    return {
        "tokens_per_second": round(statistics.median(rates["ours"])),
        "batch": batch,
        "window": lengths.window,
        "input_length": lengths.inputs,
        "target_length": lengths.targets,
        "spans": lengths.spans,
        "peer_tokens_per_second": round(statistics.median(rates["peer"])),
        "ratio": round(statistics.median(ratios), 2),
        "repeats": repeats,
        "threads": 1,
        "machine": platform.machine(),
        "numpy": np.__version__,
    }


def per_second(one: Callable[[int], object], seconds: float) -> float:
    """How often a second something is done, measured over at least so long, after doing it once."""
    one(0)
    done, start = 0, time.perf_counter()
    while True:
        one(done + 1)
        done += 1
        if (passed := time.perf_counter() - start) >= seconds:
            return done / passed


def _at_least_one(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            flag = "--" + name.replace("_", "-")
            raise T5smithError(f"{value} cannot be used", where=flag, expected="1 or more")
