"""The contents of a run's report as plain values, gathered from the run folder."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from t5smith import __version__
from t5smith.inspection.text import inspect_text
from t5smith.inspection.trace import Trace
from t5smith.pages.facts import Facts
from t5smith.recipe.toml import dump
from t5smith.reports.advice import no_better_than_unigrams, overfitting_in_words
from t5smith.store.statistics import read_figures
from t5smith.training.curves.repetition import epochs_of, repetition_in_words
from t5smith.training.metrics import HELD_OUT, STEPS, read_columns, read_rows
from t5smith.training.setup import Run

LIBRARIES = ("jax", "jaxlib", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")
PROMPT = "The <extra_id_0> ruined my sleep."


Columns = Mapping[str, np.ndarray]
"""Columns of numbers of equal length, by name; NaN where there is none."""


@dataclass(frozen=True)
class Example:
    """A held-out text with its masked spans, and what the model filled in.

    Attributes:
      kept: the text before, between and after the spans: one part more than there are spans. Spaces at
        the ends of parts do not matter.
      truth: the original text of each span; spans begin at words.
      filled: the model's text for each; empty if it wrote nothing.
    """

    kept: Sequence[str]
    truth: Sequence[str]
    filled: Sequence[str]

    def __post_init__(self) -> None:
        assert len(self.kept) == len(self.truth) + 1 == len(self.filled) + 1


@dataclass(frozen=True)
class Report:
    """What a report shows. Every fact of every stage is listed; those named here are prominent.

    Attributes:
      name: of the run.
      created: date and time, as text.
      recipe: the settings as TOML.
      vocab: facts: `requested`, `pieces`, `ids`, …
      store: facts: `train` and `valid`, each with `documents`, `tokens`, `unknown_rate`, …
      corpus: statistics of the text, as :mod:`t5smith.store.statistics` writes them.
      train: facts: `parameters`, `steps`, `tokens`, `tokens_per_second`, `first_loss`, `ln_vocab`, …
      evaluation: facts: `text`, `sentinels`, `eos` and `total`, each with `nll`, `accuracy` and `tokens`;
        `unigram_nll` of the same text tokens; `bits_per_byte`; …
      export: facts: …
      metrics: columns with a number per step: `step`, `loss` (the NLL of all targets), `learning_rate`,
        `grad_norm`, `tokens_per_second`.
      held_out: columns with a number per evaluation: `step`, `loss` (the NLL of all targets), `text`
        (that of text tokens), `unigram` (the unigram baseline of the same tokens; NaN if it is unknown).
      examples: filled-in texts.
      trace: one text as the model sees it.
      warnings: what the user must know.
      versions: name -> version of the software.
      seconds: training time.
      model: the folder of the exported model.
      prompt: a text to fill in, for the code that loads the model.
    """

    name: str
    created: str = ""
    recipe: str = ""
    vocab: Facts = field(default_factory=dict[str, Any])
    store: Facts = field(default_factory=dict[str, Any])
    corpus: Facts = field(default_factory=dict[str, Any])
    train: Facts = field(default_factory=dict[str, Any])
    evaluation: Facts = field(default_factory=dict[str, Any])
    export: Facts = field(default_factory=dict[str, Any])
    metrics: Columns = field(default_factory=dict[str, np.ndarray])
    held_out: Columns = field(default_factory=dict[str, np.ndarray])
    examples: Sequence[Example] = ()
    trace: Trace | None = None
    warnings: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float | None = None
    model: str = ""
    prompt: str = PROMPT


def run_report(run: Run, facts: Mapping[str, Any]) -> Report:
    """The contents of the report of a run; `facts` is the summary of :func:`t5smith.pipeline.summary`."""
    folder = run.folder
    vocab_facts, evaluation = dict(facts["vocab"]), dict(facts["evaluation"])
    examples = evaluation.pop("examples")
    warnings: list[str] = []
    if why := vocab_facts.get("why_smaller"):
        requested, pieces = vocab_facts["requested"], vocab_facts["pieces"]
        warnings.append(f"the vocabulary has {pieces:,} pieces, {requested:,} were requested: {why}")
    train_facts = dict(facts["train"])
    curve = train_facts.get("held_out_curve")
    if (margin := evaluation["margin"]) is not None and margin <= 0:
        warnings.append(f"the model predicts held-out text {no_better_than_unigrams(curve)}")
    if (overfitting := overfitting_in_words(curve)) is not None:
        warnings.append(overfitting)
    if skipped := sum(last - first + 1 for first, last in train_facts.pop("skipped_batches", ())):
        batches = "1 batch" if skipped == 1 else f"{skipped:,} batches"
        warnings.append(f"training skipped {batches}: gradient not finite or too large")
    if (many := repetition_in_words(epochs_of(train_facts), past=True)) is not None:
        warnings.append(many)
    train_facts.pop("skipped_in_a_row", None)
    train_facts["steps"] = train_facts.pop("step")
    return Report(
        name=run.recipe.name,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        recipe=dump(run.recipe),
        vocab=vocab_facts,
        store=facts["store"],
        corpus=read_figures(folder / "store"),
        train=train_facts,
        evaluation={**evaluation, "total": evaluation["all"]},
        export=facts["export"],
        metrics=_metrics(folder / "train" / STEPS),
        held_out=_held_out(folder / "train" / HELD_OUT, evaluation),
        examples=[Example(kept=one["kept"], truth=one["truth"], filled=one["fills"]) for one in examples],
        trace=_trace(run, examples),
        warnings=warnings,
        versions=versions(),
        seconds=train_facts["seconds"],
        model=facts["model"],
        prompt=examples[0]["input"] if examples else PROMPT,
    )


def _metrics(path: Path) -> Columns:
    """The training log with the report's names."""
    found = read_columns(path, ("step", "nll", "learning_rate", "gradient_norm", "tokens", "seconds"))
    tokens, seconds = found.pop("tokens"), found.pop("seconds")
    rate = np.divide(tokens, seconds, out=np.full(len(tokens), np.nan), where=seconds > 0)
    names = {"nll": "loss", "gradient_norm": "grad_norm"}
    return {names.get(name, name): column for name, column in found.items()} | {"tokens_per_second": rate}


def _held_out(path: Path, evaluation: Facts) -> Columns:
    """The evaluations while the model trained; the one after training only if there is none of its step.

    It is of other windows and masks, and would put a kink into the curves.
    """
    rows: list[Facts] = [*read_rows(path)]
    if not any(row["step"] == evaluation["step"] for row in rows):
        rows.append(evaluation)
    values = [(row["step"], row["all"]["nll"], row["text"]["nll"], row.get("unigram_nll")) for row in rows]
    return dict(zip(("step", "loss", "text", "unigram"), np.array(values, np.float64).T, strict=True))


def _trace(run: Run, examples: list[dict[str, Any]]) -> Trace | None:
    """One held-out text as the model sees it."""
    if not examples:
        return None
    recipe = run.recipe
    return inspect_text(examples[0]["text"], recipe.objective, run.vocabulary, seed=recipe.seed)[0]


def versions() -> dict[str, str]:
    """Versions of t5smith, Python and the libraries."""
    found = {"t5smith": __version__, "Python": platform.python_version()}
    for name in LIBRARIES:
        found[name] = importlib.metadata.version(name)
    return found
