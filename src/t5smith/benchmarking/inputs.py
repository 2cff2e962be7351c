"""How fast a store becomes batches: reading, order, masks and arrays, in one process or several."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.base.progress import info
from t5smith.model.config import ModelConfig
from t5smith.model.flops import step_flops
from t5smith.objective.batches import TrainingBatches, prefetched
from t5smith.objective.objective import Objective
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.store.token_store import Corpus, Split, TokenStore
from t5smith.vocabulary.vocabulary import Vocabulary

BASE = ModelSettings(d_model=768, d_ff=2048, num_layers=12, num_decoder_layers=12, num_heads=12)
"""T5-v1.1-base."""
TOKENS = 50_000_000
DOCUMENT = 800
"""Mean length of a document in the store that is made up, in tokens."""


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
    """Window tokens a second from a store to shuffled, corrupted, batched arrays.

    Without a store one of 50 million random ids is made up in a temporary folder and read from there. The
    share of a training step compares a batch's time with that of a step of T5-v1.1-base on as many rows at
    512 and 114 positions, or those of the objective, at the speed `device_tflops`; it is what one process
    costs if nothing else is to be done in it.

    Args:
      store: a run folder or its store.
      objective: `span_corruption`, `prefix_lm` or `ul2`.
      batch: rows of a batch.
      corpora: into how many corpora, equally mixed, the text is parted.
      workers: processes that make batches; 0: this one, in the foreground.
      seconds: how long batches are made, each time.
      repeats: how many times.
      device_tflops: the device's speed in 10^12 operations a second; 495 is half of what an H100 SXM's data
        sheet gives for dense bfloat16.

    Raises:
      T5smithError: no store there, or settings that cannot be used.
    """
    for name, value in (("batch", batch), ("corpora", corpora), ("repeats", repeats)):
        if value < 1:
            raise T5smithError(f"{value} cannot be used", where=f"--{name}", expected="1 or more")
    if objective not in ("span_corruption", "prefix_lm", "ul2"):
        raise T5smithError(
            f"{objective!r} cannot be used", where="--objective", expected="span_corruption, prefix_lm or ul2"
        )
    settings = ObjectiveSettings.model_validate({"name": objective})
    with tempfile.TemporaryDirectory(prefix="t5smith-bench-") as folder:
        if store is None:
            info(f"bench     making up a store of {TOKENS:,} tokens")
            split, vocabulary = _made_up(Path(folder)), Vocabulary.bundled()
        else:
            own = store / "store" if (store / "store").is_dir() else store
            split = TokenStore.open(own).train
            vocabulary = Vocabulary.load(own.parent / "vocab")
        made = Objective.create(settings, vocabulary)
        parted = Split(split.name, split.tokens, split.ends, split.text_bytes, _parts(split, corpora))
        batches = TrainingBatches(parted, made, batch, 0, weights=[1.0] * corpora)
        rates = [_rate(batches, seconds, workers, start=1_000 * i) for i in range(repeats)]
        share = _real_share(batches)
    per_second = statistics.median(rates)
    window_tokens = made.plan.first_window(batch * 1_000) / 1_000 * made.window
    config = ModelConfig.create(BASE, vocabulary.size)
    step = step_flops(config, batch, made.input_length, made.target_length) / (device_tflops * 1e12)
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
        "t5_v1_1_base_step": {
            "device_tflops": device_tflops,
            "step_tflop": round(step * device_tflops, 2),
            "step_seconds": round(step, 4),
            "share_of_step": round(1 / per_second / step, 5),
        },
    }


def _made_up(folder: Path) -> Split:
    """A split of random ids on disk, with documents of all lengths."""
    rng = np.random.default_rng(0)
    file = folder / "train.ids.bin"
    rng.integers(3, 32_000, TOKENS, np.uint16).tofile(file)
    ends = np.cumsum(rng.geometric(1 / DOCUMENT, TOKENS // DOCUMENT))
    ends = np.append(ends[ends < TOKENS], TOKENS).astype(np.int64)
    return Split("train", np.memmap(file, "<u2", "r"), ends, 4 * TOKENS)


def _parts(split: Split, corpora: int) -> tuple[Corpus, ...]:
    """Equal stretches of a split as corpora."""
    edges = np.linspace(0, len(split.tokens), corpora + 1).astype(int).tolist()
    return tuple(Corpus(f"part-{i}", edges[i], edges[i + 1]) for i in range(corpora))


def _rate(batches: TrainingBatches, seconds: float, workers: int, start: int) -> float:
    """Batches a second over at least so long."""
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


def _real_share(batches: TrainingBatches) -> float:
    """The share of the positions of inputs and targets that are not padding."""
    pad = batches.objective.pad_id
    arrays = [batch[name] for batch in (batches[0], batches[1]) for name in ("input_ids", "targets")]
    return sum(int((ids != pad).sum()) for ids in arrays) / sum(ids.size for ids in arrays)
