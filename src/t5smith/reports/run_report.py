"""The report of a run, gathered from its folder: what each stage made, the curves, the examples."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from t5smith import __version__
from t5smith.inspection.text import inspect_text
from t5smith.inspection.trace import Trace
from t5smith.recipe.toml import dump
from t5smith.reports.contents import Example, Report
from t5smith.store.statistics import read_figures
from t5smith.training.metrics import HELD_OUT, STEPS, read_rows
from t5smith.training.setup import Run

LIBRARIES = ("jax", "jaxlib", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")


def run_report(run: Run, facts: Mapping[str, Any]) -> Report:
    """What the report of a run shows; `facts` is the run's summary."""
    folder = run.folder
    vocab_facts, evaluation = dict(facts["vocab"]), dict(facts["evaluation"])
    examples = evaluation.pop("examples")
    warnings: list[str] = []
    if why := vocab_facts.get("why_smaller"):
        asked, got = vocab_facts["requested"], vocab_facts["pieces"]
        warnings.append(f"asked for a vocabulary of {asked:,} pieces, got {got:,}: {why}")
    if (margin := evaluation["margin"]) is not None and margin <= 0:
        warnings.append(
            "the model predicts held-out text no better than the frequencies of pieces do; train it longer"
        )
    train_facts = dict(facts["train"])
    if passed := sum(last - first + 1 for first, last in train_facts.pop("skipped_batches", ())):
        warnings.append(f"training passed over {passed:,} batches whose gradients could not be followed")
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
        metrics=[_row(row) for row in read_rows(folder / "train" / STEPS)],
        held_out=[
            *(
                {"step": row["step"], "nll": row["text"]["nll"]}
                for row in read_rows(folder / "train" / HELD_OUT)
            ),
            {"step": evaluation["step"], "nll": evaluation["text"]["nll"]},
        ],
        examples=[Example(kept=one["kept"], truth=one["truth"], filled=one["fills"]) for one in examples],
        trace=_trace(run, examples),
        warnings=warnings,
        versions=versions(),
        seconds=train_facts["seconds"],
        model=facts["model"],
        prompt=examples[0]["input"] if examples else "The <extra_id_0> ruined my sleep.",
    )


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A training row in the report's terms."""
    return {
        "step": row["step"],
        "loss": row["nll"],
        "learning_rate": row["learning_rate"],
        "grad_norm": row["gradient_norm"],
        "tokens_per_second": row["tokens"] / row["seconds"] if row["seconds"] else None,
    }


def _trace(run: Run, examples: list[dict[str, Any]]) -> Trace | None:
    """One held-out text as the model sees it."""
    if not examples:
        return None
    objective, seed = run.recipe.objective, run.recipe.seed
    _, traces = inspect_text(examples[0]["text"], objective, run.vocabulary, seed=seed)
    return traces[0]


def versions() -> dict[str, str]:
    """Versions of what a run is made with."""
    found = {"t5smith": __version__, "Python": platform.python_version()}
    for name in LIBRARIES:
        found[name] = importlib.metadata.version(name)
    return found
