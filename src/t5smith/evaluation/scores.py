"""Held-out scores of a trained model, next to a baseline without a model.

Definitions: NLL is in nats per target token; quality is judged on text tokens (no sentinels, no `</s>`).
The unigram baseline is the NLL of the same text tokens under the frequencies of the training split, with 0.1
added to every count, over text ids. Bits per byte is the NLL of all targets in bits per UTF-8 byte of the
masked text; it compares vocabularies only roughly, since spans are drawn in tokens.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from t5smith.base.artifact import building, find_up_to_date, fingerprint
from t5smith.base.lock import in_run_folder
from t5smith.base.phase import phase
from t5smith.base.progress import info, progress
from t5smith.base.signals import interruptible
from t5smith.base.wrapping import pluralize
from t5smith.evaluation.examples import fill_examples
from t5smith.interop.model import Model
from t5smith.objective.batches import Batch, EvaluationBatches, Objective, evaluation_batches
from t5smith.parallel.backend import compute_in
from t5smith.recipe.evaluate import EvaluateSettings
from t5smith.recipe.recipe import Recipe, plain
from t5smith.store.token_store import TokenStore
from t5smith.training.eval_step import RowSums, create_scorer, token_classes, total, unigram_nll
from t5smith.training.setup import Run
from t5smith.vocabulary.vocabulary import Vocabulary

RESULTS = "evaluation.json"


@in_run_folder
def evaluate(recipe: Recipe | Run) -> Path:
    """Score the trained model on the held-out split.

    Returns:
      The evaluation folder, whose `evaluation.json` holds the scores and the examples.

    Raises:
      T5smithError: the model is not trained yet, or the held-out split is shorter than a window.
    """
    run = Run.of(recipe)
    settings = run.recipe.evaluate
    store, objective = run.store, run.setup.objective
    inputs = {"checkpoint": run.model_fingerprint, "evaluate": _which(settings, store, objective)}
    folder = run.folder / "evaluation"
    if find_up_to_date(folder, "evaluation", fingerprint(inputs)):
        info(f"evaluate  already done: {folder}")
        return folder

    with phase("evaluate", "restoring the checkpoint", at_once=False):
        model = run.model
    facts = score_model(run, model, run.setup.recipe.train.steps)
    with building(folder, "evaluation", inputs, facts) as work:
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        (work / RESULTS).write_text(text, encoding="utf-8")
    return folder


def score_model(run: Run, model: Model, step: int) -> dict[str, Any]:
    """The scores of a model on a run's held-out split, and examples.

    Args:
      run: names the text, the objective and how much is scored.
      model: of the run.
      step: after which it was trained.

    Raises:
      T5smithError: the held-out split is shorter than a window.
    """
    settings, store, objective = run.recipe.evaluate, run.store, run.setup.objective
    available = store.valid.window_count(objective.window)
    batches = evaluation_batches(
        store.valid,
        objective,
        batch_size=settings.batch_size,
        masks_per_window=settings.masks_per_window,
        windows=settings.windows,
    )
    info(f"evaluate  {_chosen(batches, available)}")
    tally = _score(model, batches)
    facts = scores(store, run.vocabulary, tally) | {
        "masks_per_window": settings.masks_per_window,
        "scored_windows": len(batches.windows),
        "held_out_windows": available,
        "step": step,
    }
    if len(objective.denoisers) > 1:
        facts["denoisers"] = scores_by_denoiser(objective, tally)
    with phase("evaluate", "filling in examples", at_once=False):
        facts["examples"] = fill_examples(model, objective, store.valid, settings.examples)
    return facts


def _which(settings: EvaluateSettings, store: TokenStore, objective: Objective) -> dict[str, Any]:
    """The settings, with 0 for any number of windows that is not a choice among them."""
    chosen = settings.windows < store.valid.window_count(objective.window) and settings.windows > 0
    which = plain(settings) | {"windows": settings.windows if chosen else 0}
    # Before windows were chosen by hash, `windows` were the first ones.
    return which | ({"chosen": "by hash"} if chosen else {})


def _chosen(batches: EvaluationBatches, available: int) -> str:
    """What is scored, in words."""
    scored, masks = len(batches.windows), pluralize(batches.masks_per_window, "mask")
    if scored == available:
        return f"all {pluralize(scored, 'held-out window')}, {masks} each"
    return f"{scored:,} of {available:,} held-out windows, chosen by hash, {masks} each"


class Tally:
    """What is kept of the scored batches, however many they are.

    Attributes:
      sums: (denoisers, 3, 3), sums of `RowSums` by denoiser.
      rows: (denoisers,), number of rows.
      targets: (ids,), how often each id occurs among the targets.
    """

    def __init__(self, denoisers: int, ids: int) -> None:
        self.sums = np.zeros((denoisers, 3, 3))
        self.rows = np.zeros(denoisers, np.int64)
        self.targets = np.zeros(ids, np.int64)

    def add(self, batch: Batch, rows: RowSums) -> None:
        """Add a batch and the sums of its rows."""
        denoiser = batch["denoiser"][:, 0] if "denoiser" in batch else np.zeros(len(rows), np.int64)
        np.add.at(self.sums, denoiser, rows)
        self.rows += np.bincount(denoiser, minlength=len(self.rows))
        self.targets += np.bincount(batch["targets"].ravel(), minlength=len(self.targets))


def _score(model: Model, batches: EvaluationBatches) -> Tally:
    """The sums over the batches, in float32, with a progress bar."""
    scorer = create_scorer(model.config, token_classes(model.vocabulary), compute_in("float32"))
    tally = Tally(len(batches.objective.denoisers), model.vocabulary.size)
    scored: deque[Batch] = deque()

    def remembered() -> Iterator[Batch]:
        for batch in batches:
            scored.append(batch)
            yield batch

    sums = scorer(model.parameters, remembered(), checked=True)
    with progress("evaluate", batches.rows, "examples") as bar:
        while (rows := interruptible(lambda: next(sums, None))) is not None:
            tally.add(scored.popleft(), rows)
            text = total([tally.sums]).text
            bar.advance(len(rows), **{"NLL of text": f"{text.nll / max(text.tokens, 1):.3f}"})
    return tally


def scores(store: TokenStore, vocabulary: Vocabulary, tally: Tally) -> dict[str, Any]:
    """The scores of held-out batches.

    Args:
      store: its training split gives the frequencies of the baseline.
      vocabulary: of the store.
      tally: the model's sums over the batches.
    """
    score = total([tally.sums])
    masked_bytes = int((tally.targets * vocabulary.piece_bytes).sum())
    baseline = unigram_nll(store.train.counts(vocabulary.size), vocabulary.is_text, tally.targets)
    return {
        "text": score.text.per_token(),
        "sentinels": score.sentinels.per_token(),
        "eos": score.eos.per_token(),
        "all": score.total.per_token(),
        "unigram_nll": baseline,
        "margin": None if baseline is None else baseline - score.text.nll / score.text.tokens,
        "bits_per_byte": score.total.nll / math.log(2) / masked_bytes if masked_bytes else None,
        "masked_bytes": masked_bytes,
        "windows": int(tally.rows.sum()),
    }


def scores_by_denoiser(objective: Objective, tally: Tally) -> dict[str, Any]:
    """The scores of each denoiser of a mixture; they differ in how much of the text is masked."""
    found: dict[str, Any] = {}
    for spec, rows, sums in zip(objective.denoisers, tally.rows, tally.sums, strict=True):
        score = total([sums[None]])
        found[spec.denoiser.title] = {
            "windows": int(rows),
            "text": score.text.per_token(),
            "all": score.total.per_token(),
        }
    return found
