"""The batches that training passed over, because their gradients could not be followed.

Batch b comes after b - (batches passed over before) updates. The list is in every checkpoint, so that a run
which goes on takes the same batches; and it can be worked out anew, for a run that goes back meets the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

EVENTS = "events.jsonl"


class PassedOver:
    """Stretches of batches, in order: [first, last] each, both included."""

    def __init__(self, stretches: Sequence[Sequence[int]] = ()) -> None:
        self.stretches = [(first, last) for first, last in stretches]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.stretches)

    def add(self, first: int, last: int | None = None) -> None:
        """Pass over a batch, or all from one to another; what is in the list already stays there once."""
        last = first if last is None else last
        kept = [(a, b) for a, b in self.stretches if b < first]
        # Batches are passed over in order, so what is not before the new stretch is a part of it.
        if kept and kept[-1][1] == first - 1:
            first = kept.pop()[0]
        self.stretches = [*kept, (first, last)]

    def plain(self) -> list[list[int]]:
        """As JSON holds it."""
        return [list(stretch) for stretch in self.stretches]

    @classmethod
    def of(cls, facts: dict[str, Any]) -> PassedOver:
        """The list in a checkpoint's facts."""
        return cls(facts.get("skipped_batches", ()))
