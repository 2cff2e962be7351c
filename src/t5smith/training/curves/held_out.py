"""The evaluation of a run while it trains: at which steps, on which windows, against which baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any, Protocol, runtime_checkable

import numpy as np

from t5smith.model.flops import forward_flops, step_flops
from t5smith.model.params import Parameters
from t5smith.objective.batches import evaluation_batches
from t5smith.store.token_store import Split
from t5smith.training.eval_step import HeldOutScore, create_scorer, token_classes, total, unigram_nll
from t5smith.training.setup import Setup

EVALUATIONS = 20
"""The most evaluations of `train.evaluate_every = "auto"`."""
SHARE = 0.02
"""The share of the training's operations that they may take. The rest of the 3 % is for compiling."""
FEWEST_WINDOWS = 16
"""Rather than on fewer windows, there are fewer evaluations."""
COUNTED_TOKENS, COUNTED_AT_ONCE = 1 << 28, 1 << 20
"""Of a larger training split, so many tokens are counted for the baseline, in stretches of so many."""


@dataclass(frozen=True)
class EvaluationPlan:
    """Every how many steps to evaluate (0: never), and on how many held-out windows (0: all)."""

    every: int
    windows: int

    @classmethod
    def of(cls, setup: Setup, before: int | None = None) -> EvaluationPlan:
        """The recipe's plan; for "auto" one that takes `SHARE` of the training's operations.

        It depends on the recipe and the number of held-out windows alone, not on the machine.

        Args:
          setup: the run.
          before: the number of windows of earlier evaluations, with which the next ones are to compare.
        """
        train, wanted = setup.recipe.train, setup.recipe.evaluate.windows
        if train.evaluate_every != "auto":
            return cls(train.evaluate_every, wanted)
        objective, available = setup.objective, setup.store.valid.window_count(setup.objective.window)
        most = min(wanted or available, available)
        step = step_flops(setup.config, train.rows, objective.input_length, objective.target_length)
        inputs, targets = zip(*(spec.max_lengths for spec in objective.denoisers), strict=True)
        window = forward_flops(setup.config, 1, max(inputs), max(targets))
        every, windows = 0, 0
        while windows < min(FEWEST_WINDOWS, most):
            if every >= train.steps:
                return cls(0, 0)
            every = _round_up(max(train.steps / EVALUATIONS, every + 1))
            evaluations = math.ceil(train.steps / every)
            windows = int(SHARE * train.steps * step / window / evaluations)
        # A power of two, so that slightly more steps are evaluated on the same windows.
        return cls(every, min(before or 1 << (windows.bit_length() - 1), most))


def _round_up(number: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    power = 10 ** max(0, math.floor(math.log10(number)))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= number)


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    Attributes:
      row: of heldout.jsonl, without the step; `text` and `all` are means per token.
      figures: for the loggers, by their names.
    """

    row: Mapping[str, Any]
    figures: Mapping[str, float | None]


@runtime_checkable
class Evaluation(Protocol):
    """How a training is evaluated."""

    @property
    def plan(self) -> EvaluationPlan:
        """When, and on how much."""
        ...

    def due(self, step: int, last: int) -> bool:
        """Whether to evaluate after a step."""
        ...

    def evaluate(self, parameters: Parameters, stopped: Sequence[int]) -> Evaluated | None:
        """Evaluate parameters; None once a signal is in `stopped`."""
        ...

    def is_enough(self, since_best: int) -> bool:
        """Whether training ends before its last step, after so many evaluations since the best one."""
        ...


class HeldOut:
    """The evaluation of one run.

    Attributes:
      plan: when, and on how many windows.
      windows: their number; 0 if the run is not evaluated while it trains.
    """

    def __init__(self, setup: Setup, before: int | None = None) -> None:
        """Make no batch and compile nothing yet; see :meth:`EvaluationPlan.of` for `before`."""
        self.setup, self.plan = setup, EvaluationPlan.of(setup, before)
        train = setup.recipe.train
        self._scorer = create_scorer(setup.config, token_classes(setup.vocabulary), setup.compute)
        self._batches = evaluation_batches(
            setup.store.valid,
            setup.objective,
            # No larger than what training itself needs the memory for.
            batch_size=min(setup.recipe.evaluate.batch_size, train.rows // train.gradient_accumulation),
            masks_per_window=1,
            windows=self.plan.windows,
        )
        self.windows = len(self._batches.windows) if self.plan.every else 0

    def due(self, step: int, last: int) -> bool:
        """Whether to evaluate after a step: at multiples of the plan's, and at the last."""
        return bool(self.windows) and (step % self.plan.every == 0 or step == last)

    def score(self, parameters: Parameters, stopped: Sequence[int] = ()) -> HeldOutScore | None:
        """The score of parameters, with one fixed mask per window; None once a signal is in `stopped`."""
        sums = self._scorer(parameters, self._batches)
        score = total(takewhile(lambda _: not stopped, sums))
        return None if stopped else score

    def evaluate(self, parameters: Parameters, stopped: Sequence[int]) -> Evaluated | None:
        """The held-out loss; see :class:`Evaluation`."""
        score = self.score(parameters, stopped)
        if score is None:
            return None
        text, every, unigram = score.text.per_token(), score.total.per_token(), self.unigram_nll
        return Evaluated(
            {"text": text, "all": every, "windows": self.windows, "unigram_nll": unigram},
            {
                "held-out/nll": every["nll"],
                "held-out/accuracy": every["accuracy"],
                "held-out/text_nll": text["nll"],
                "held-out/text_accuracy": text["accuracy"],
                "unigram/text_nll": unigram,
            },
        )

    def is_enough(self, since_best: int) -> bool:
        """Pre-training always takes all of its steps."""
        return False

    @cached_property
    def unigram_nll(self) -> float | None:
        """The unigram baseline of the same text tokens; see `COUNTED_TOKENS`."""
        vocabulary = self.setup.vocabulary
        occurrences = np.zeros(vocabulary.size, np.int64)
        for batch in self._batches:
            occurrences += np.bincount(batch["targets"].ravel(), minlength=vocabulary.size)
        counts = sampled_counts(self.setup.store.train, vocabulary.size)
        return unigram_nll(counts, vocabulary.is_text, occurrences)


def sampled_counts(split: Split, ids: int) -> np.ndarray:
    """How often each id occurs in a split, or in evenly spread stretches of a large one."""
    stretches = -(-len(split.tokens) // COUNTED_AT_ONCE)
    every = max(1, stretches * COUNTED_AT_ONCE // COUNTED_TOKENS)
    counts = np.zeros(ids, np.int64)
    for start in range(0, len(split.tokens), COUNTED_AT_ONCE * every):
        counts += np.bincount(split.tokens[start : start + COUNTED_AT_ONCE], minlength=ids)
    return counts
