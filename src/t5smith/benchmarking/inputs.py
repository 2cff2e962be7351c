"""The speed of the input pipeline, from a token store to batches, in one process or several."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from t5smith.base.progress import info
from t5smith.benchmarking.checks import check_at_least_one, check_one_of
from t5smith.model.config import ModelConfig
from t5smith.model.flops import step_flops
from t5smith.objective.batches import TrainingBatches, prefetched
from t5smith.objective.objective import Objective
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.store.token_store import Corpus, Split, TokenStore
from t5smith.vocabulary.vocabulary import Vocabulary

BASE = ModelSettings(size="t5-v1.1-base")
"""T5-v1.1-base."""
TOKENS = 50_000_000
FEWEST_TOKENS = 5_000_000
"""Of the synthetic store where only the time of a batch is asked for."""
LEAST_INPUTS = 3
"""A token, a sentinel and `</s>`."""
DOCUMENT = 800
"""Mean length of a document in the synthetic store, in tokens."""


def bench_input(
    store: Path | None = None,
    objective: str = "span_corruption",
    batch: int = 128,
    corpora: int = 1,
    workers: int = 0,
    seconds: float = 2.0,
    repeats: int = 5,
    device_tflops: float = 495.0,
) -> dict[str, Any]:
    """Window tokens per second from a store to shuffled, corrupted batches.

    By default the store is synthetic: 50 million random ids in a temporary folder. The share of a training
    step compares the time of a batch with that of a step of T5-v1.1-base on as many examples at the lengths
    of the objective, at a speed of `device_tflops`: it is what one process costs that does nothing else.

    Args:
      store: a run folder or its store.
      objective: `span_corruption`, `prefix_lm` or `ul2`.
      batch: examples per batch.
      corpora: the number of equal corpora that the text is split into.
      workers: processes that make batches; 0: this process, in the foreground.
      seconds: time per measurement.
      repeats: the number of measurements.
      device_tflops: the device's speed in 10^12 operations per second; 495 is half of what an H100 SXM's data
        sheet gives for dense bfloat16.

    Raises:
      T5smithError: the store does not exist, or settings out of range.
    """
    check_at_least_one(batch=batch, corpora=corpora, repeats=repeats)
    check_one_of(("span_corruption", "prefix_lm", "ul2"), objective=objective)
    with tempfile.TemporaryDirectory(prefix="t5smith-bench-") as folder:
        split, vocabulary = _open(store, Path(folder))
        made = Objective.create(ObjectiveSettings.model_validate({"name": objective}), vocabulary)
        mixed = Split(split.name, split.tokens, split.ends, split.text_bytes, _equal_parts(split, corpora))
        batches = TrainingBatches(mixed, made, batch, 0, weights=[1.0] * corpora)
        rates = [_rate(batches, seconds, workers, start=1_000 * i) for i in range(repeats)]
        share = _non_pad_share(batches)
    per_second = statistics.median(rates)
    window_tokens = made.plan.first_window(batch * 1_000) / 1_000 * made.window
    return {
        "tokens_per_second": round(window_tokens * per_second),
        "batches_per_second": round(per_second, 1),
        "seconds_per_batch": round(1 / per_second, 6),
        "real_token_share": round(share, 4),
        "objective": objective,
        "batch": batch,
        "window": made.window,
        "windows_per_row": round(made.plan.windows / len(made.plan.rows), 3),
        "input_length": made.input_length,
        "target_length": made.target_length,
        "corpora": corpora,
        "workers": workers,
        "repeats": repeats,
        "t5_v1_1_base_step": _share_of_step(made, vocabulary.size, batch, device_tflops, per_second),
    }


def _share_of_step(
    objective: Objective, vocab_size: int, batch: int, device_tflops: float, per_second: float
) -> dict[str, float]:
    """The time of a batch as a share of the time of a training step of T5-v1.1-base."""
    config = ModelConfig.create(BASE, vocab_size)
    flops = step_flops(config, batch, objective.input_length, objective.target_length)
    seconds = flops / (device_tflops * 1e12)
    return {
        "device_tflops": device_tflops,
        "step_tflop": round(flops / 1e12, 2),
        "step_seconds": round(seconds, 4),
        "share_of_step": round(1 / per_second / seconds, 5),
    }


def _open(store: Path | None, folder: Path) -> tuple[Split, Vocabulary]:
    """The training split and vocabulary of a run or store, or synthetic ones."""
    if store is None:
        info(f"bench     writing a synthetic store of {TOKENS:,} tokens")
        return synthetic_store(folder), Vocabulary.bundled()
    own = store / "store" if (store / "store").is_dir() else store
    return TokenStore.open(own).train, Vocabulary.load(own.parent / "vocab")


def synthetic_store(folder: Path, tokens: int | None = None) -> Split:
    """A split of `TOKENS` or fewer random ids on disk; lengths of documents are distributed geometrically."""
    tokens = tokens or TOKENS
    rng = np.random.default_rng(0)
    file = folder / "train.ids.bin"
    rng.integers(3, 32_000, tokens, np.uint16).tofile(file)
    ends = np.cumsum(rng.geometric(1 / DOCUMENT, tokens // DOCUMENT))
    ends = np.append(ends[ends < tokens], tokens).astype(np.int64)
    return Split("train", np.memmap(file, "<u2", "r"), ends, 4 * tokens)


def seconds_per_batch(batch: int, input_length: int, seconds: float) -> float:
    """The time that this process needs for a batch of span corruption, measured over at least `seconds`.

    Windows are those whose inputs fill `input_length` positions; the store is synthetic. Spans are longer
    than usual where the inputs would need more sentinels than the bundled vocabulary has.
    """
    vocabulary = Vocabulary.bundled()
    settings = ObjectiveSettings(
        input_length=max(input_length, LEAST_INPUTS),
        # At most 0.17 of the inputs' length is masked, so that there are at most 85 spans.
        mean_noise_span_length=max(3.0, 0.2 * input_length / len(vocabulary.sentinel_ids)),
    )
    objective = Objective.create(settings, vocabulary)
    with tempfile.TemporaryDirectory(prefix="t5smith-bench-") as folder:
        split = synthetic_store(Path(folder), max(FEWEST_TOKENS, 10 * objective.window))
        return 1 / _rate(TrainingBatches(split, objective, batch, 0), seconds, 0, start=0)


def _equal_parts(split: Split, corpora: int) -> tuple[Corpus, ...]:
    """A split cut into equal corpora."""
    edges = np.linspace(0, len(split.tokens), corpora + 1).astype(int).tolist()
    return tuple(Corpus(f"part-{i}", edges[i], edges[i + 1]) for i in range(corpora))


def _rate(batches: TrainingBatches, seconds: float, workers: int, start: int) -> float:
    """Batches per second, measured over at least `seconds`."""
    made = (
        prefetched(batches, start, start + 1_000_000, ahead=2, workers=workers)
        if workers
        else (batches[b] for b in range(start, start + 1_000_000))
    )
    next(made)
    begun = time.perf_counter()
    for done, _ in enumerate(made, 1):
        if (passed := time.perf_counter() - begun) >= seconds:
            return done / passed
    raise AssertionError("a million batches are enough")


def _non_pad_share(batches: TrainingBatches) -> float:
    """The share of the positions of inputs and targets that are not padding."""
    pad = batches.objective.pad_id
    arrays = [batch[name] for batch in (batches[0], batches[1]) for name in ("input_ids", "targets")]
    return sum(int((ids != pad).sum()) for ids in arrays) / sum(ids.size for ids in arrays)
