"""What is kept in memory of the rows of a run's metrics files."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from t5smith.training.curves.advice import Point

LAST_STEPS = 20
"""The training loss at a step is the mean over this many steps before it."""


class StepTotals:
    """Figures over all steps of a run, from eight bytes per step."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all steps."""
        self.first_loss = math.nan
        self.last_losses: deque[float] = deque(maxlen=LAST_STEPS)
        self.tokens, self.seconds = 0.0, 0.0
        self._seconds_per_token = array("d")

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of metrics.jsonl."""
        if not self._seconds_per_token:
            self.first_loss = row["nll"]
        self.last_losses.append(row["nll"])
        self.tokens += row["tokens"]
        self.seconds += row["seconds"]
        self._seconds_per_token.append(row["seconds"] / row["tokens"])

    def last_loss(self) -> float | None:
        """The mean loss of the last steps."""
        return float(np.mean(self.last_losses)) if self.last_losses else None

    def facts(self) -> dict[str, Any]:
        """The totals, by name."""
        # The first steps of every start are slow, so the speed is that of the median step.
        seconds_per_token = float(np.median(np.frombuffer(self._seconds_per_token)))
        return {
            "first_loss": self.first_loss,
            "last_loss": self.last_loss(),
            "tokens": int(self.tokens),
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(1 / seconds_per_token, 1),
        }


class HeldOutCurve:
    """The points of the evaluations.

    Attributes:
      points: in the order of their steps.
      last_step: the step of the last evaluation; 0 if there was none.
      windows: its number of windows; None if there was none, or it was not recorded.
    """

    windows: int | None

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all evaluations."""
        self.points: list[Point] = []
        self.last_step, self.windows = 0, None

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of heldout.jsonl."""
        if (point := Point.of(row)) is not None:
            self.points.append(point)
        self.last_step, self.windows = row["step"], row.get("windows")
