"""What the curves of a finished run say; more training is advised only where they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def no_better_than_unigrams(curve: Mapping[str, Any] | None) -> str:
    """The verdict on a model that is no better than the unigram baseline, and what may help.

    Args:
      curve: the fact `held_out_curve` of the last checkpoint; None if the curve is not known.
    """
    advice = {
        "falling": "; held-out loss is still falling: train it longer",
        "level": "; held-out loss no longer falls: longer training alone will not help",
    }
    return "no better than the unigram baseline" + advice.get((curve or {}).get("trend", ""), "")


def overfitting_in_words(curve: Mapping[str, Any] | None) -> str | None:
    """From where to where the losses went, and what may help; None without overfitting."""
    if not curve or not curve["overfitting"]:
        return None
    return (
        f"overfitting: held-out loss was lowest at step {curve['best_step']:,}, {curve['best_loss']:.3f}, "
        f"and rose to {curve['last_loss']:.3f} while training loss fell; use more text or fewer steps"
    )
