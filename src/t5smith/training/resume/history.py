"""What was trained in a run folder before, and where training starts or resumes.

Trained steps are never set aside unless the user says so: a recipe that does not continue them is an error.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t5smith.base.artifact import PREVIOUS, Manifest, free_place
from t5smith.base.disk import UNFINISHED, disk_errors, write_atomically
from t5smith.base.errors import T5smithError, TrainingAtStake
from t5smith.base.progress import info
from t5smith.base.run_folder import (
    CHECKPOINTS,
    SETTINGS,
    TRAIN,
    checkpoint_folder,
    recorded_inputs,
    saved_steps,
    trained_steps,
)
from t5smith.recipe.recipe import Recipe
from t5smith.training.resume import checkpoints
from t5smith.training.resume.fingerprint import changes
from t5smith.training.schedule import decay_start

LENGTH = {
    "train.steps",
    "train.hours",
    *(f"train.schedule.{name}" for name in ("name", "plateau_steps", "decay_fraction", "final_fraction")),
}
"""Settings of how long training lasts and how the learning rate falls: `extend` may change them."""


@dataclass(frozen=True)
class History:
    """The training in a run folder.

    Attributes:
      folder: the run folder.
      steps: the step of the newest checkpoint; 0 without one.
      inputs: all that its parameters depend on; empty without a checkpoint.
    """

    folder: Path
    steps: int = 0
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def read(cls, folder: Path) -> History:
        """The history of a run folder.

        Raises:
          T5smithError: no file tells the settings of the trained steps.
        """
        steps = trained_steps(folder)
        return cls(folder, steps, recorded_inputs(folder / TRAIN)) if steps else cls(folder)

    @property
    def extensions(self) -> list[list[Any]]:
        """Where the schedule was changed with `extend`: pairs of the step and the table `train` before."""
        return self.inputs.get("extended", [])

    def with_trained_defaults(self, recipe: Recipe) -> Recipe:
        """The recipe with the warm-up and the learning rate that were trained, where it leaves them out.

        Their defaults depend on the number of steps, which may have changed since.
        """
        if not self.inputs:
            return recipe
        train, changes = self.inputs["train"], dict[str, Any]()
        optimizer, schedule = recipe.train.optimizer, recipe.train.schedule
        if optimizer.learning_rate is None and train["optimizer"]["name"] == optimizer.name:
            changes["train.optimizer.learning_rate"] = train["optimizer"]["learning_rate"]
        # A recipe shorter than its warm-up has fewer steps than are trained, which find_start reports.
        warmup = train["schedule"]["warmup_steps"]
        same = schedule.warmup_steps is None and train["schedule"]["name"] == schedule.name
        if same and warmup < recipe.train.steps:
            changes["train.schedule.warmup_steps"] = warmup
        return recipe.replace(**changes) if changes else recipe


@dataclass(frozen=True)
class Start:
    """Where training starts.

    Attributes:
      inputs: all that the parameters depend on.
      checkpoint: its folder and manifest; None: the first step.
      branch: whether later checkpoints belong to a shorter training, and move to `previous/`.
    """

    inputs: dict[str, Any]
    checkpoint: tuple[Path, Manifest] | None = None
    branch: bool = False

    @property
    def step(self) -> int:
        """Number of updates that need not be made again."""
        return int(self.checkpoint[1].facts["step"]) if self.checkpoint else 0


def find_start(
    history: History,
    inputs: Mapping[str, Any],
    steps: int,
    *,
    extend: bool = False,
    hint: Callable[[], str | None] = lambda: None,
) -> Start:
    """Where a recipe starts or resumes. Nothing on the disk is changed.

    Args:
      history: of the run folder.
      inputs: all that the recipe's parameters depend on.
      steps: the recipe's number of steps.
      extend: continue although the learning rates so far are not those of this many steps.
      hint: another way to continue, for the message.

    Raises:
      TrainingAtStake: the trained steps have other settings.
      T5smithError: more steps are trained than the recipe has, or no checkpoint can be read.
    """
    if not history.steps:
        return Start(dict(inputs))
    folder = history.folder / TRAIN / CHECKPOINTS
    changed = changes(history.inputs, inputs)
    found = checkpoints.latest(folder, inputs, up_to=steps)
    step = int(found[1].facts["step"]) if found else 0
    if found and (step == history.steps or (not changed and (step == steps or history.steps <= steps))):
        return Start(dict(inputs), found)
    fewer = history.steps > steps
    other = {text.split(" ")[0] for text in changed} - LENGTH
    # With fewer steps the default warm-up may be shorter than the trained one.
    if other - ({"train.schedule.warmup_steps"} if fewer else set()):
        raise TrainingAtStake(history.folder, history.steps, changed, more=hint())
    if fewer:
        raise _fewer(history, steps, hint())
    if not changed:
        raise T5smithError(
            f"no checkpoint of the {history.steps:,} trained steps can be read",
            where=folder,
            fix="restore one from a copy, or use --restart to begin again",
        )
    if extend:
        return _extended(history, inputs, folder)
    before = history.inputs["train"]
    if (
        found
        and "hours" not in {*before, *inputs["train"]}
        and step == decay_start(before["schedule"], before.get("steps", steps))
        and steps > step
    ):
        return Start(dict(inputs), found, branch=True)
    raise TrainingAtStake(
        history.folder,
        history.steps,
        changed,
        more=hint() or f"add --extend to continue from step {history.steps:,} on the other schedule",
    )


def _fewer(history: History, steps: int, hint: str | None) -> T5smithError:
    saved = saved_steps(history.folder / TRAIN / CHECKPOINTS)
    nearest = min(saved, key=lambda step: abs(step - steps))
    place = checkpoint_folder(Path(TRAIN) / CHECKPOINTS, nearest)
    ways = [
        f"set train.steps to {history.steps} or more, or train.hours accordingly",
        hint or f"use the nearest checkpoint, {place}",
        f"use --run-dir for a second run, or --restart to move this one to {PREVIOUS}/",
    ]
    return T5smithError(
        f"{history.steps:,} steps are trained, more than the recipe's {steps:,}; nothing was trained",
        where=history.folder,
        fix=", ".join(ways),
    )


def _extended(history: History, inputs: Mapping[str, Any], folder: Path) -> Start:
    """The newest checkpoint, as the start of another schedule."""
    new = {**inputs, "extended": [*history.extensions, [history.steps, history.inputs["train"]]]}
    found = checkpoints.latest(folder, new)
    if found is None:
        raise T5smithError("no checkpoint can be read", where=folder, fix="restore one from a copy")
    return Start(new, found)


def open_training(folder: Path, start: Start) -> None:
    """Make `train` in a run folder ready for a start: archive a decayed end, and record the settings."""
    train = folder / TRAIN
    with disk_errors(train):
        if start.branch:
            _archive_end(train, start.step)
        (train / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        write_atomically(train / SETTINGS, json.dumps(start.inputs, indent=1) + "\n")


def _archive_end(train: Path, step: int) -> None:
    """Move the checkpoints after a step to `previous/`, with the settings and figures of their training.

    The step's own checkpoint is linked there too: the archived training may be branched again.
    """
    later = [number for number in saved_steps(train / CHECKPOINTS) if number > step]
    # It gets its name when it is complete.
    work = train.parent / PREVIOUS / f"{train.name}{UNFINISHED}" / train.name
    shutil.rmtree(work.parent, ignore_errors=True)
    shutil.copytree(train, work, ignore=lambda place, names: [CHECKPOINTS] if place == str(train) else [])
    (work / CHECKPOINTS).mkdir()
    for number in [step, *later]:
        source, target = (checkpoint_folder(place / CHECKPOINTS, number) for place in (train, work))
        shutil.copytree(source, target, copy_function=_link)
    place = work.rename(free_place(train))
    shutil.rmtree(work.parent)
    for number in reversed(later):
        shutil.rmtree(checkpoint_folder(train / CHECKPOINTS, number))
    info(
        f"train     branching from step {step:,}, where the decay begins; later checkpoints are archived in "
        f"{place}"
    )


def _link(source: str, target: str) -> None:
    """A hard link where the file system has them: the bytes are on the disk once."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
