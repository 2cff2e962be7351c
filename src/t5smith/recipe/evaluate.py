"""What held-out figures are measured on: the table `[evaluate]`."""

from __future__ import annotations

from typing import ClassVar

from t5smith.recipe.base import NonNegative, Positive, Settings


class EvaluateSettings(Settings):
    """What the held-out numbers are measured on."""

    section: ClassVar[str] = "evaluate"

    masks_per_window: Positive = 4
    """Fixed masks drawn for every held-out window."""
    batch_size: Positive = 64
    """Windows scored at a time; the figures do not depend on it."""
    windows: NonNegative = 0
    """Measure on the first so many held-out windows; 0: on all."""
    examples: NonNegative = 3
    """Filled-in examples shown at the end."""
