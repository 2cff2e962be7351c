"""What a run's settings and curves say about its learning: epochs, learning rate, overfitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from t5smith.base.progress import info, warn
from t5smith.base.wrapping import pluralize
from t5smith.training.base_setup import TrainingSetup
from t5smith.training.curves.held_out import EvaluationPlan
from t5smith.training.curves.repetition import corpus_use, repetition_in_words, use_in_lines
from t5smith.training.optimizer import peak_learning_rate

CHANGE = 0.02
"""A held-out loss that differs by less, in nats per token, has neither fallen nor risen."""


@dataclass(frozen=True)
class Point:
    """The mean NLL per token at a step, in nats.

    Attributes:
      step: the step.
      held_out: of all held-out targets.
      text: of held-out text tokens, by which steps are compared.
      training: of all targets of the last 20 batches; None if it was not recorded.
      score: of what the model generates for tasks, the higher the better; None for other trainings.
    """

    step: int
    held_out: float
    text: float
    training: float | None = None
    score: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Point | None:
        """The point of a row of heldout.jsonl; None if there were no text tokens."""
        if row["text"]["nll"] is None:
            return None
        return cls(
            row["step"], row["all"]["nll"], row["text"]["nll"], row.get("training_nll"), row.get("score")
        )

    @property
    def order(self) -> tuple[float, float, int]:
        """The best point has the lowest: by score or else by NLL, of equal ones the first."""
        return 0.0 if self.score is None else -self.score, self.text, self.step


@dataclass(frozen=True)
class Verdict:
    """What the curves say at the last evaluation.

    Attributes:
      trend: of the held-out loss: `falling` if the last one is the lowest, and lower than the one two
        evaluations before; `rising` if the last two are above the lowest; else `level`.
      overfitting: whether it rose while the training loss fell.
      best, last: the points with the lowest NLL of text tokens, and at the last step.
    """

    trend: Literal["falling", "level", "rising"]
    overfitting: bool
    best: Point
    last: Point

    def facts(self) -> dict[str, Any]:
        """The facts of a checkpoint."""
        return {
            "trend": self.trend,
            "overfitting": self.overfitting,
            "best_step": self.best.step,
            "best_loss": self.best.held_out,
            "last_loss": self.last.held_out,
        }

    def overfitting_in_words(self) -> str:
        """From where to where both losses went, for people."""
        assert self.best.training is not None
        assert self.last.training is not None
        return (
            f"overfitting: held-out loss rose from {self.best.held_out:.3f} at step {self.best.step:,} to "
            f"{self.last.held_out:.3f} at step {self.last.step:,}, while training loss fell from "
            f"{self.best.training:.3f} to {self.last.training:.3f}"
        )


def verdict(points: Sequence[Point]) -> Verdict | None:
    """What the points of a run say, in the order of their steps; None for fewer than three."""
    if len(points) < 3:
        return None
    best, last = min(points, key=lambda point: (point.text, point.step)), points[-1]
    rising = min(point.held_out for point in points[-2:]) > best.held_out + CHANGE
    falling = best is last and last.held_out < points[-3].held_out - CHANGE
    learned = best.training is not None and last.training is not None and last.training < best.training
    return Verdict("rising" if rising else "falling" if falling else "level", rising and learned, best, last)


def print_outlook(setup: TrainingSetup, plan: EvaluationPlan) -> None:
    """Print before training how often the text is read and evaluated, and the rate; warn of many epochs."""
    steps, forecast = setup.recipe.train.steps, setup.hours is not None
    uses = corpus_use(setup)
    if len(uses) > 1:
        for line in use_in_lines(uses, forecast=forecast):
            info(f"train     {line}")
    plan_words = "evaluated only after training"
    if plan.every:
        plan_words = "evaluated at the last step"
        if plan.every < steps:
            plan_words = f"evaluated every {pluralize(plan.every, 'step')}"
    optimizer = setup.recipe.train.optimizer
    rate = f"{optimizer.name} at {peak_learning_rate(setup.recipe):g}"
    if optimizer.learning_rate is None:
        rate += ", the default rate for so many tokens"
    epochs = f"{'about ' if forecast else ''}{uses[0].epochs:.3g} epochs; " if len(uses) == 1 else ""
    info(f"train     {epochs}{plan_words}; {rate}")
    many = repetition_in_words({use.name: use.epochs for use in uses})
    if many is not None and setup.reads_text:
        warn(many)


def print_verdict(found: Verdict | None, *, keep_best: bool) -> None:
    """Warn after training of overfitting."""
    if found is None or not found.overfitting:
        return
    step = found.best.step
    kept = (
        f"the checkpoint of step {step:,} is kept"
        if keep_best
        else "--train.keep-best keeps the checkpoint of the best step"
    )
    warn(f"{found.overfitting_in_words()}; use more text or fewer steps; {kept}")
