"""The speed of span corruption, beside an implementation that works row by row."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from t5smith.benchmarking.checks import check_at_least_one
from t5smith.benchmarking.peer import corrupt_batch
from t5smith.objective.corruption import corrupt
from t5smith.objective.lengths import Masking, SpanLengths, check_sentinels, lengths_for_inputs
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
    """Tokens per second of span corruption on one core: medians of ours and the peer's, in alternation.

    The tokens are those of the windows. Timed is all work from windows of ids to finished arrays: drawing
    random numbers, placing spans, writing inputs and targets. NumPy does it in one thread.

    Args:
      batch: windows per batch.
      input_length: encoder positions.
      noise_density: share of the tokens that are masked.
      mean_noise_span_length: in tokens.
      seconds: time per measurement.
      repeats: measurements of each of the two.

    Raises:
      T5smithError: settings out of range.
    """
    check_at_least_one(batch=batch, repeats=repeats)
    masking = Masking(noise_density, mean_noise_span_length)
    lengths = lengths_for_inputs(input_length, masking)
    check_sentinels(lengths, SENTINELS, masking, fixed="input_length")
    ours, peer = _contenders(batch, lengths)
    rates: list[tuple[float, float]] = []
    for _ in range(repeats):
        rates.append((per_second(ours, seconds), per_second(peer, seconds)))
    tokens = batch * lengths.window
    return {
        "tokens_per_second": round(tokens * statistics.median(rate for rate, _ in rates)),
        "batch": batch,
        "window": lengths.window,
        "input_length": lengths.inputs,
        "target_length": lengths.targets,
        "spans": lengths.spans,
        "peer_tokens_per_second": round(tokens * statistics.median(rate for _, rate in rates)),
        "ratio": round(statistics.median(rate / peer_rate for rate, peer_rate in rates), 2),
        "repeats": repeats,
        "threads": 1,
        "machine": platform.machine(),
        "numpy": np.__version__,
    }


def _contenders(batch: int, lengths: SpanLengths) -> tuple[Callable[[int], object], Callable[[int], object]]:
    """Ours and the peer, each a function that makes one batch."""
    sentinels = np.arange(VOCABULARY + SENTINELS - 1, VOCABULARY - 1, -1, dtype=np.int32)
    windows = np.random.default_rng(0).integers(3, VOCABULARY, (batch, lengths.window), np.int32)
    draws = draws_needed(lengths)
    rng = np.random.default_rng(0)

    def ours(step: int) -> None:
        corrupt(
            windows,
            draw_spans(uniforms(0, TRAINING, step * batch, batch, draws), lengths),
            sentinel_ids=sentinels,
            eos_id=EOS,
            pad_id=PAD,
            input_length=lengths.inputs,
            target_length=lengths.targets,
        )

    def peer(step: int) -> None:
        corrupt_batch(rng, windows, lengths, sentinels, EOS)

    return ours, peer


def per_second(run: Callable[[int], object], seconds: float) -> float:
    """Calls per second, measured over at least `seconds` after one call that is not counted."""
    run(0)
    done, start = 0, time.perf_counter()
    while True:
        run(done + 1)
        done += 1
        if (passed := time.perf_counter() - start) >= seconds:
            return done / passed
