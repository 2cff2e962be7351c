"""What the clock decided in a training of `train.hours`: kept, so that it can be done again.

Progress is the share of the schedule behind training, from 0 at the end of the warm-up to 1 at the last step.
A point (k, p, n) says that from update k on it rises linearly from p, to reach 1 at step n.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.run_folder import CHECKPOINTS, checkpoint_folder, saved_steps

DECIDED = "decided.json"
CLOCK = "clock"
"""Name of the record in `decided.json` and in the facts of a checkpoint."""

Point = tuple[int, float, int]


@dataclass(frozen=True)
class Record:
    """The points of one training.

    Attributes:
      hours: the value of `train.hours`.
      points: in the order of their steps; the first is (0, 0.0, n), the estimate before the first step.
      training: fingerprint of the training's inputs; empty before it began.
      finished: whether the last step was made, so that no point follows.
    """

    hours: float
    points: tuple[Point, ...]
    training: str = ""
    finished: bool = False

    @property
    def end(self) -> int:
        """Number of steps, as far as it is known."""
        return self.points[-1][2]

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {**vars(self), "points": [list(point) for point in self.points]}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Record:
        """The record in a JSON object; raises KeyError, TypeError or ValueError if it is none."""
        points = tuple((int(k), float(p), int(n)) for k, p, n in tree["points"])
        if not points:
            raise ValueError(tree)
        return cls(float(tree["hours"]), points, str(tree["training"]), bool(tree["finished"]))

    def continues(self, other: Record) -> bool:
        """Whether this record has all points of another one of the same training."""
        return self.training == other.training and self.points[: len(other.points)] == other.points


@dataclass(frozen=True)
class Spent:
    """A record, and the newest checkpoint's step and the seconds of training until then."""

    record: Record
    step: int = 0
    seconds: float = 0.0


def continued(found: Spent, hours: float, step: int, end: int, training: str) -> Record:
    """The record with which a start goes on.

    Before the first step it is the one of an equal training, or else its estimate. After a change of the
    hours it is what was done, and a point at which progress becomes elapsed ÷ hours.

    Args:
      found: the record so far.
      hours: the value of `train.hours`.
      step: updates that need not be made again.
      end: the expected number of steps.
      training: fingerprint of the training's inputs.
    """
    record = found.record
    if step == 0 and record.training not in {"", training}:
        return Record(hours, record.points[:1], training)
    if step == 0 or hours == record.hours:
        return replace(record, training=training)
    done = (record.points[0], *(point for point in record.points[1:] if point[0] < step))
    point = step, min(1.0, found.seconds / (hours * 3600)), end
    return Record(hours, (*done, point), training)


def read_record(folder: Path, train: Path | None) -> Spent | None:
    """The record of the training in a folder `train`; None without.

    It is in `decided.json`, which a killed training may have continued after its last checkpoint. If that
    file is lost, or has the record of another training, it is the checkpoint's.

    Args:
      folder: the run folder.
      train: its `train`, or an archived one; None before the first step.
    """
    decided = _decided(folder)
    if train is None:
        return Spent(decided) if decided else None
    for step in reversed(saved_steps(train / CHECKPOINTS)):
        try:
            place = checkpoint_folder(train / CHECKPOINTS, step)
            facts = read_manifest(place, "checkpoint", check_hashes=False).facts[CLOCK]
            found = Record.from_json(facts)
            newest = decided if decided and decided.continues(found) else found
            return Spent(newest, step, float(facts["seconds"]))
        except (T5smithError, KeyError, TypeError, ValueError):
            continue
    return Spent(decided) if decided else None


def _decided(folder: Path) -> Record | None:
    try:
        return Record.from_json(json.loads((folder / DECIDED).read_text(encoding="utf-8"))[CLOCK])
    except (OSError, KeyError, TypeError, ValueError):
        return None
