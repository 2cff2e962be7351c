"""Which checkpoints of a run are exported: the last one, that of a step, or the mean of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from t5smith.base.artifact import Manifest, fingerprint, read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn
from t5smith.base.run_folder import checkpoint_folder, saved_steps
from t5smith.interop.model import Model
from t5smith.training.resume.checkpoints import model_fingerprint
from t5smith.training.resume.fingerprint import continues
from t5smith.training.resume.saved_parameters import SavedParameters
from t5smith.training.setup import Run

KEEP = "set train.keep_checkpoints or train.keep_every to keep more of them"


@dataclass(frozen=True)
class Chosen:
    """The checkpoints that are exported, and their model.

    Attributes:
      run: whose checkpoints they are.
      found: folder and manifest of each, oldest first.
    """

    run: Run
    found: Sequence[tuple[Path, Manifest]]

    @property
    def steps(self) -> list[int]:
        """Their steps."""
        return [manifest.facts["step"] for _, manifest in self.found]

    @property
    def last(self) -> Manifest:
        """The manifest of the newest one."""
        return self.found[-1][1]

    @property
    def fingerprint(self) -> str:
        """Of the model. That of one checkpoint is `Run.model_fingerprint`, if it is the last."""
        own = [model_fingerprint(one) for _, one in self.found]
        return own[0] if len(own) == 1 else fingerprint(own)

    @cached_property
    def parameters(self) -> SavedParameters:
        """The parameters, still on the disk."""
        return SavedParameters([folder for folder, _ in self.found], self.run.setup.abstract_state())

    def model(self) -> Model:
        """The model, in memory."""
        return Model(self.parameters.tree(), self.run.setup.config, self.run.vocabulary)


def choose(run: Run, step: int | None = None, average: int | None = None) -> Chosen:
    """The checkpoints that are exported.

    Args:
      run: whose training need not be finished, if `step` or `average` is given.
      step: that of the newest one. Default: the recipe's last, or with `average` the newest that is kept.
      average: how many to average.

    Raises:
      T5smithError: there is no such checkpoint, or it is damaged; the message lists those that there are.
    """
    if step is None and average is None:
        return Chosen(run, [run.trained])
    found = _kept(run)
    wanted = _wanted(list(found), step, average)
    for number in wanted:
        read_manifest(found[number][0], "checkpoint")
    return Chosen(run, [found[number] for number in wanted])


def intermediate_steps(run: Run) -> list[int]:
    """The steps before the recipe's last whose checkpoints are kept, in order."""
    return [step for step in _kept(run) if step < run.setup.recipe.train.steps]


def _kept(run: Run) -> dict[int, tuple[Path, Manifest]]:
    """Folder and manifest of each checkpoint of this recipe by its step, oldest first."""
    setup, found = run.setup, dict[int, tuple[Path, Manifest]]()
    for number in saved_steps(setup.checkpoints):
        folder = checkpoint_folder(setup.checkpoints, number)
        if number > setup.recipe.train.steps:
            continue
        try:
            # The hashes of those that are not exported need not be compared.
            manifest = read_manifest(folder, "checkpoint", check_hashes=False)
        except T5smithError as error:
            warn(f"checkpoint {folder.name} is skipped: {error}")
            continue
        if continues(manifest.inputs, setup.inputs, number):
            found[number] = folder, manifest
    return found


def _wanted(steps: list[int], step: int | None, average: int | None) -> list[int]:
    """The steps that are exported, of those that can be, oldest first."""
    kept = ", ".join(f"{number:,}" for number in steps) or "none"
    if step is not None and step not in steps:
        raise T5smithError(
            f"there is no checkpoint of this recipe after step {step:,}",
            where="--step",
            expected=f"a step whose checkpoint is kept: {kept}",
            fix=KEEP,
        )
    steps = [number for number in steps if step is None or number <= step]
    if average is not None and average > len(steps):
        raise T5smithError(
            f"{average:,} checkpoints cannot be averaged, {len(steps):,} can",
            where="--average",
            expected=f"at most as many as are kept{f' up to step {step:,}' if step else ''}: {kept}",
            fix=KEEP,
        )
    return steps[-(average or 1) :]
