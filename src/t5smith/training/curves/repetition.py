"""How often training reads each corpus: its share of the windows, and its epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from t5smith.training.base_setup import TrainingSetup

MANY_EPOCHS = 4
"""Text that is read up to this often is worth nearly as much as new text (Muennighoff et al., 2023, "Scaling
Data-Constrained Language Models"); each further time is worth less."""
BY_HEART = 20
"""Above about this many, text that is read again teaches hardly anything new."""
SHOWN = 8
"""Corpora that are listed on the terminal; of more, those that are read most often."""
NAMED = 3
"""Corpora that the warning names."""


@dataclass(frozen=True)
class CorpusUse:
    """How training reads a corpus.

    Attributes:
      name: of the corpus.
      share: of the windows of training.
      epochs: how many times each of its windows is read, on average.
    """

    name: str
    share: float
    epochs: float


def corpus_use(setup: TrainingSetup, batches: int | None = None) -> list[CorpusUse]:
    """How the first `batches` batches of a run read each corpus. Default: as many as it has steps."""
    made = setup.batches()
    steps = setup.recipe.train.steps if batches is None else batches
    windows = made.first_window(steps * setup.recipe.train.rows)
    return [
        CorpusUse(corpus.name, made.order.share(number), made.order.epochs(number, windows))
        for number, corpus in enumerate(made.order.corpora)
    ]


def use_facts(uses: Iterable[CorpusUse]) -> dict[str, Any]:
    """The facts of a checkpoint: `share` and `epochs` of each corpus; of a single one its epochs."""
    found = {use.name: {"share": use.share, "epochs": use.epochs} for use in uses}
    return {"corpora": found} if len(found) > 1 else {"epochs": found.popitem()[1]["epochs"]}


def epochs_of(facts: Mapping[str, Any]) -> dict[str, float]:
    """The epochs of each corpus in the facts of a checkpoint; a single one is named "". Empty: unknown."""
    if "corpora" in facts:
        return {name: use["epochs"] for name, use in facts["corpora"].items()}
    return {"": facts["epochs"]} if "epochs" in facts else {}


def use_in_lines(uses: Iterable[CorpusUse], *, forecast: bool) -> list[str]:
    """A line for each corpus; `forecast`: the clock may change how far training gets."""
    uses = list(uses)
    often = sorted(uses, key=lambda use: -use.epochs)[:SHOWN]
    about = "about " if forecast else ""
    lines = [
        f"{use.name}: {use.share:.1%} of the windows, {about}{use.epochs:.3g} epochs"
        for use in uses
        if use in often
    ]
    if len(uses) > SHOWN:
        lines.append(
            f"{len(uses) - SHOWN} other corpora are read less often: the checkpoint's manifest has them"
        )
    return lines


def repetition_in_words(epochs: Mapping[str, float], *, past: bool = False) -> str | None:
    """Which corpora are read more than MANY_EPOCHS times, and what helps; None: no one is.

    Args:
      epochs: of each corpus by its name; a single one may be named "".
      past: whether training is over.
    """
    many = {name: times for name, times in epochs.items() if times > MANY_EPOCHS}
    if not many:
        return None
    often = sorted(many, key=lambda name: -many[name])
    if len(epochs) == 1:
        text = f"the text {'was' if past else 'is'} read {many[often[0]]:.0f} times"
        fix = "use more text or fewer steps"
    else:
        names = [f"{name!r} ({many[name]:.0f} times)" for name in often[:NAMED]]
        more = f" and {len(often) - NAMED} more" if len(often) > NAMED else ""
        text = f"training {'read' if past else 'reads'} often: {', '.join(names)}{more}"
        fix = "use more text, a lower weight (corpus.weights, corpus.temperature) or fewer steps"
    why = f"text teaches less with each time after about {MANY_EPOCHS} (Muennighoff et al., 2023)"
    if many[often[0]] > BY_HEART:
        why += f", and above about {BY_HEART} times a model learns it by heart (overfitting)"
    return f"{text}; {why}: {fix}"
