"""Held-out scores of a trained model, next to a baseline without a model.

Definitions: NLL is in nats per target token; quality is judged on text tokens (no sentinels, no `</s>`).
The unigram baseline is the NLL of the same text tokens under the frequencies of the training split, with 0.1
added to every count, over text ids. Bits per byte is the NLL of all targets in bits per UTF-8 byte of the
masked text; it compares vocabularies only roughly, since spans are drawn in tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from t5smith.base.artifact import building, find_up_to_date, fingerprint
from t5smith.base.lock import in_run_folder
from t5smith.base.phase import phase
from t5smith.base.progress import info, progress
from t5smith.base.signals import interruptible
from t5smith.evaluation.examples import fill_examples
from t5smith.interop.model import Model
from t5smith.objective.batches import Batch, Objective, evaluation_batches
from t5smith.recipe.recipe import Recipe, plain
from t5smith.store.token_store import TokenStore
from t5smith.training.eval_step import HeldOutScore, RowSums, Score, create_scorer, token_classes, total
from t5smith.training.setup import DTYPES, Run
from t5smith.vocabulary.vocabulary import Vocabulary

RESULTS = "evaluation.json"
SMOOTHING = 0.1


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
    inputs = {"checkpoint": run.model_fingerprint, "evaluate": plain(settings)}
    folder = run.folder / "evaluation"
    if find_up_to_date(folder, "evaluation", fingerprint(inputs)):
        info(f"evaluate  already done: {folder}")
        return folder

    store, objective = run.store, run.setup.objective
    batches = evaluation_batches(
        store.valid,
        objective,
        batch_size=settings.batch_size,
        masks_per_window=settings.masks_per_window,
        windows=settings.windows,
    )
    with phase("evaluate", "restoring the checkpoint", at_once=False):
        model = run.model
    rows = _score(model, batches)
    facts = scores(store, run.vocabulary, batches, total(rows)) | {
        "masks_per_window": settings.masks_per_window,
        "step": run.setup.recipe.train.steps,
    }
    if len(objective.denoisers) > 1:
        facts["denoisers"] = scores_by_denoiser(objective, batches, rows)
    with phase("evaluate", "filling in examples", at_once=False):
        facts["examples"] = fill_examples(model, objective, store.valid, settings.examples)
    with building(folder, "evaluation", inputs, facts) as work:
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        (work / RESULTS).write_text(text, encoding="utf-8")
    return folder


def _score(model: Model, batches: Sequence[Batch]) -> RowSums:
    """The sums of each row of the batches, in float32, with a progress bar."""
    scorer = create_scorer(model.config, token_classes(model.vocabulary), DTYPES["float32"])
    parts: list[RowSums] = []
    text = Score(0.0, 0.0, 0.0)
    with progress("evaluate", sum(len(batch["targets"]) for batch in batches), "examples") as bar:
        for batch in batches:
            parts.append(interruptible(partial(scorer, checked=True), model.parameters, [batch]))
            text += total(parts[-1]).text
            bar.advance(len(batch["targets"]), nll=f"{text.nll / max(text.tokens, 1):.3f}")
    return np.concatenate(parts)


def scores(
    store: TokenStore, vocabulary: Vocabulary, batches: Sequence[Batch], score: HeldOutScore
) -> dict[str, Any]:
    """The scores of held-out batches.

    Args:
      store: its training split gives the frequencies of the baseline.
      vocabulary: of the store.
      batches: held-out batches.
      score: the model's sums over them.
    """
    targets = np.concatenate([batch["targets"].ravel() for batch in batches])
    masked_bytes = int(vocabulary.piece_bytes[targets].sum())
    baseline = unigram_nll(store.train.counts(vocabulary.size), vocabulary.is_text, targets)
    return {
        "text": score.text.per_token(),
        "sentinels": score.sentinels.per_token(),
        "eos": score.eos.per_token(),
        "all": score.total.per_token(),
        "unigram_nll": baseline,
        "margin": None if baseline is None else baseline - score.text.nll / score.text.tokens,
        "bits_per_byte": score.total.nll / math.log(2) / masked_bytes if masked_bytes else None,
        "masked_bytes": masked_bytes,
        "windows": sum(len(batch["targets"]) for batch in batches),
    }


def scores_by_denoiser(objective: Objective, batches: Sequence[Batch], rows: RowSums) -> dict[str, Any]:
    """The scores of each denoiser of a mixture; they differ in how much of the text is masked."""
    denoiser = np.concatenate([batch["denoiser"][:, 0] for batch in batches])
    found: dict[str, Any] = {}
    for number, spec in enumerate(objective.denoisers):
        own = rows[denoiser == number]
        score = total(own)
        found[spec.denoiser.title] = {
            "windows": len(own),
            "text": score.text.per_token(),
            "all": score.total.per_token(),
        }
    return found


def unigram_nll(counts: np.ndarray, is_text: np.ndarray, targets: np.ndarray) -> float | None:
    """Mean NLL of the text targets, in nats per token, under the smoothed frequencies of the text ids."""
    text = targets[is_text[targets]]
    if not len(text):
        return None
    weights = (counts + SMOOTHING)[is_text].sum()
    return float(-np.log((counts[text] + SMOOTHING) / weights).mean())
