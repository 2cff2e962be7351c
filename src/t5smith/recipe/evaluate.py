"""How the model is scored on held-out text: the table `[evaluate]`."""

from __future__ import annotations

from typing import ClassVar

from t5smith.recipe.base import NonNegative, Positive, Settings


class EvaluateSettings(Settings):
    """How the model is scored on held-out text."""

    section: ClassVar[str] = "evaluate"

    masks_per_window: Positive = 4
    """Fixed masks per held-out window."""
    batch_size: Positive = 64
    """Windows per batch. The scores do not depend on it."""
    windows: NonNegative = 2_048
    """Score N held-out windows, chosen by a hash of their numbers; 0: all."""
    examples: NonNegative = 3
    """Number of filled-in examples that are shown at the end."""
