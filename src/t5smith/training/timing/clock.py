"""The clock of a training of `train.hours`: it corrects the last step while training runs."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from t5smith.training.timing.forecast import ENOUGH_SECONDS, Forecast
from t5smith.training.timing.record import Record

INTERVAL = 0.02
"""Share of the hours between two corrections."""
OF_THE_REST = 0.25
"""Near the end the next correction comes after this share of the time left."""

now = time.monotonic


class Clock:
    """The seconds that are spent, and the points at which the last step was corrected.

    Attributes:
      record: all points, those of earlier starts included.
    """

    def __init__(
        self,
        record: Record,
        forecast: Forecast,
        peak: float,
        warmup: int,
        *,
        spent: float,
        begun: float,
        save: Callable[[Record], None],
    ) -> None:
        """Go on with a record.

        Args:
          record: the points so far; those after the checkpoint are used again as they are.
          forecast: of the time left, corrected by the loop.
          peak: the learning rate after the warm-up.
          warmup: number of steps of the warm-up. Neither is ever corrected.
          spent: seconds of training until the checkpoint.
          begun: the moment at which this start began, by `now`.
          save: keeps the record; called before a step uses a new point.
        """
        self.record, self.forecast, self._save = record, forecast, save
        self.peak, self.warmup = peak, warmup
        self._begun = begun - spent
        forecast.steps = record.end
        self._limit = record.hours * 3600
        self._due = self.elapsed() + min(ENOUGH_SECONDS, OF_THE_REST * max(0.0, self.left()))

    @property
    def end(self) -> int:
        """Number of steps, as far as it is known."""
        return self.record.end

    def elapsed(self) -> float:
        """Seconds spent on this training, over all its starts."""
        return now() - self._begun

    def left(self) -> float:
        """Seconds left for steps, evaluations and checkpoints; the last checkpoint is waited for."""
        waiting = max(0.0, self.forecast.last_checkpoint - self.forecast.checkpoint)
        return self._limit - self.elapsed() - waiting

    def updated(self, done: int) -> bool:
        """Correct the last step if it is time, after so many updates; returns whether it was corrected.

        The next update may be under way already, so the correction holds from the one after it.
        """
        first = done + 1
        if self.record.finished or self.elapsed() < self._due or first >= self.end:
            return False
        if first < self.record.points[-1][0] + 2:
            return False
        left = max(0.0, self.left())
        self._due = self.elapsed() + min(INTERVAL * self._limit, OF_THE_REST * left)
        end = max(first + 1, self.warmup + 1, self.forecast.last_step(done, left))
        if end == self.end:
            return False
        point = first, progress(self.record, self.warmup, first), end
        self.record = replace(self.record, points=(*self.record.points, point))
        self._save(self.record)
        self.forecast.steps = end
        return True

    def finish(self) -> None:
        """Record that the last step was made."""
        if not self.record.finished:
            self.record = replace(self.record, finished=True)
            self._save(self.record)

    def points(self, done: int) -> Float[np.ndarray, " 8"]:
        """See :func:`points_after`."""
        return points_after(self.record, self.peak, self.warmup, done)

    def facts(self) -> dict[str, Any]:
        """The record and the seconds spent, for a checkpoint."""
        return {**self.record.to_json(), "seconds": round(self.elapsed(), 3)}


def points_after(record: Record, peak: float, warmup: int, done: int) -> Float[np.ndarray, " 8"]:
    """What the step needs to know: the peak, the warm-up, and two points (step, progress, last step).

    The peak is among them because the program is compiled before the first estimate of the steps, which the
    default peak follows from.

    Args:
      record: the points.
      peak: the learning rate after the warm-up.
      warmup: number of steps of the warm-up.
      done: updates whose figures were read. One more may be under way, or was skipped; so the step chooses
        between the newest point up to there and the one before it.
    """
    newest = max(1, bisect_right([point[0] for point in record.points], done + 1))
    pair = record.points[max(0, newest - 2)], record.points[newest - 1]
    return np.array([peak, warmup, *pair[0], *pair[1]], np.float32)


def progress(record: Record, warmup: int, step: int) -> float:
    """The share of the schedule after the warm-up that is behind before a step, from 0 to 1."""
    newest = max(1, bisect_right([point[0] for point in record.points], step))
    start, begun, end = record.points[newest - 1]
    start = max(start, warmup)
    share = min(1.0, max(0.0, (step - start) / max(end - start, 1)))
    return begun + (1 - begun) * share
