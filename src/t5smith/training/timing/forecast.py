"""The time that training still takes: steps, evaluations and checkpoints, by what they took so far."""

from __future__ import annotations

import math
from collections import deque

from t5smith.recipe.train import TrainSettings

RECENT_SECONDS = 60.0
"""The pace of training is that of the steps of so many last seconds: the machine may become busy or calm."""
ENOUGH_SECONDS = 2.0
"""Before training has run for so long, the trial tells more than its own steps."""
CHECKPOINT_SECONDS, BYTES_PER_SECOND = 0.3, 300e6
"""A first guess of what a checkpoint takes: a constant, and hashing and writing it."""


class Forecast:
    """The time left, corrected with each step, evaluation and checkpoint."""

    def __init__(
        self,
        train: TrainSettings,
        step: float | None,
        *,
        evaluate_every: int = 0,
        evaluation: float = 0.0,
        state_bytes: int = 0,
    ) -> None:
        """Start with guesses.

        Args:
          train: the settings, with the number of steps.
          step: seconds of a step; None: the first steps will tell. Until then nothing is foretold.
          evaluate_every: steps between two evaluations; 0: none while training.
          evaluation: seconds that an evaluation probably takes.
          state_bytes: size of a checkpoint.
        """
        self.steps, self.evaluate_every, self.checkpoint_every = (
            train.steps,
            evaluate_every,
            train.checkpoint_every,
        )
        self._trial, self._recent, self._sum = step, deque[float](), 0.0
        self.evaluation, self._evaluations = evaluation, 0
        self.last_checkpoint = self.checkpoint = CHECKPOINT_SECONDS + state_bytes / BYTES_PER_SECOND

    @property
    def known(self) -> bool:
        """Whether the seconds of a step are known."""
        return self._trial is not None

    def measured(self, step: float, evaluation: float) -> None:
        """Take over the seconds of a step, and those that an evaluation probably takes."""
        self._trial = step
        if self._evaluations < 2:  # the first one also compiled
            self.evaluation = min(evaluation, self.evaluation) if self._evaluations else evaluation

    @property
    def step(self) -> float:
        """Seconds per step."""
        if self._trial is None:
            return math.inf
        if self._sum < ENOUGH_SECONDS and len(self._recent) < 2:
            return self._trial
        return self._sum / len(self._recent)

    def stepped(self, seconds: float) -> None:
        """Take a step into account that took so many seconds."""
        self._recent.append(seconds)
        self._sum += seconds
        while self._sum - self._recent[0] > RECENT_SECONDS:
            self._sum -= self._recent.popleft()

    def evaluated(self, seconds: float) -> None:
        """Take an evaluation into account; the first one also compiles."""
        self._evaluations += 1
        guessed = self._evaluations == 1 and self.known
        self.evaluation = min(self.evaluation, seconds) if guessed else seconds

    def saved(self, seconds: float) -> None:
        """Take into account how long training waited for a checkpoint."""
        self.checkpoint = seconds

    def left(self, done: int) -> float:
        """Seconds until the last step and its checkpoint, after so many steps."""
        return self._until(self.steps, done)

    def last_step(self, done: int, seconds: float) -> int:
        """The most steps that end, with evaluations and checkpoints, so many seconds after `done` steps."""
        low, high = done, done + max(0, int(seconds / max(self.step, 1e-9)))
        while low < high:
            middle = (low + high + 1) // 2
            if self._until(middle, done) <= seconds:
                low = middle
            else:
                high = middle - 1
        return low

    def _until(self, last: int, done: int) -> float:
        return (
            (last - done) * self.step
            + (_multiples(self.evaluate_every, done, last) if self.evaluate_every else 0) * self.evaluation
            + _multiples(self.checkpoint_every, done, last) * self.checkpoint
        )

    def evaluations_left(self, done: int) -> int:
        """Number of evaluations while training, after so many steps."""
        return _multiples(self.evaluate_every, done, self.steps) if self.evaluate_every else 0

    def checkpoints_left(self, done: int) -> int:
        """Number of checkpoints, after so many steps."""
        return _multiples(self.checkpoint_every, done, self.steps)


def _multiples(every: int, done: int, last: int) -> int:
    """How many steps after `done` are multiples of `every` or the last one."""
    if done >= last:
        return 0
    return last // every - done // every + (last % every > 0)
