"""What any training needs, whatever its examples are: its step, its setup, and what was trained before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import jax
import optax

from t5smith.base.artifact import Manifest
from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.base.run_folder import CHECKPOINTS
from t5smith.base.signals import interruptible
from t5smith.interop.model import Model
from t5smith.interop.source import Source, source_and_input
from t5smith.model.attention.items import ItemLayout
from t5smith.model.compute import Compute
from t5smith.model.config import ModelConfig
from t5smith.objective.batches import Numbered, Objective
from t5smith.objective.order import WindowOrder
from t5smith.parallel.backend import chosen_backend, compute_in
from t5smith.parallel.mesh import Devices, batch_shapes
from t5smith.recipe.recipe import Recipe
from t5smith.training.optimizer import create_optimizer, peak_learning_rate
from t5smith.training.resume import checkpoints
from t5smith.training.resume.history import History
from t5smith.training.resume.saved_parameters import SavedParameters
from t5smith.training.schedule import Schedule, create_schedule, decay_start
from t5smith.training.settle import clock_of, devices_of, trial_recipe, with_measured_settings
from t5smith.training.state import TrainState, abstract_state, fresh_program, started_state
from t5smith.training.step import StepSettings
from t5smith.training.timing.record import Spent
from t5smith.vocabulary.vocabulary import Vocabulary


@runtime_checkable
class Batches(Numbered, Protocol):
    """The batches of a training: batch b is a pure function of the data, the seed and b."""

    @property
    def order(self) -> WindowOrder:
        """The order of the windows, or of the examples of tasks."""
        ...

    def first_window(self, row: int) -> int:
        """The number of windows, or of examples of tasks, in all rows before this one."""
        ...


@dataclass(frozen=True)
class StepSetup:
    """All that a training step is compiled from.

    Attributes:
      recipe: with numbers for batch size and steps.
      hours: how long training lasts by the clock, which corrects the recipe's steps; None: it does not.
      devices: those that the step runs on.
    """

    recipe: Recipe
    objective: Objective
    config: ModelConfig
    schedule: Schedule
    optimizer: optax.GradientTransformation
    hours: float | None = field(default=None, kw_only=True)
    devices: Devices = field(default=Devices(), kw_only=True)

    @classmethod
    def create(
        cls,
        recipe: Recipe,
        vocabulary: Vocabulary,
        hours: float | None = None,
        objective: Objective | None = None,
        config: ModelConfig | None = None,
    ) -> StepSetup:
        """The step of a recipe with numbers for batch size and steps, or with another objective and sizes."""
        train, config = recipe.train, config or ModelConfig.create(recipe.model, vocabulary.size)
        peak = peak_learning_rate(recipe)
        schedule = create_schedule(train.schedule, peak, train.steps)
        devices = devices_of(recipe, config)
        backend = chosen_backend(devices.mesh)
        optimizer = create_optimizer(train.optimizer, schedule, config.num_heads, backend)
        objective = objective or Objective.create(recipe.objective, vocabulary)
        return StepSetup(recipe, objective, config, schedule, optimizer, hours=hours, devices=devices)

    @property
    def compute(self) -> Compute:
        """Precision, backend and devices of the step."""
        return compute_in(self.recipe.train.precision, self.devices.mesh)

    @property
    def step_settings(self) -> StepSettings:
        """The settings that are compiled into the step."""
        train, plan = self.recipe.train, self.objective.plan
        return StepSettings(
            compute=self.compute,
            z_loss=train.z_loss,
            label_smoothing=train.label_smoothing,
            dropout_rate=train.dropout_rate,
            seed=self.recipe.seed,
            remat=train.remat,
            accumulation=train.gradient_accumulation,
            explosion_factor=train.explosion_factor,
            average_decay=train.average_decay,
            layout=ItemLayout(plan.item_sizes, plan.rows) if plan.packed else None,
        )

    def fresh_program(self) -> Callable[[], TrainState]:
        """The program that makes the state before the first step; compiled once for equal settings."""
        averaged = self.recipe.train.average_decay is not None
        return fresh_program(self.config, self.optimizer, self.recipe.seed, averaged, self.devices.mesh)

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of the state, and on several devices where its arrays are."""
        averaged, mesh = self.recipe.train.average_decay is not None, self.devices.mesh
        return abstract_state(self.config, self.optimizer, averaged, mesh)

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a batch, and on several devices where its rows are."""
        return batch_shapes(self.devices.mesh, self.objective.batch_shapes(self.recipe.train.rows))


@dataclass(frozen=True)
class TrainingSetup(StepSetup):
    """All that the training loop needs.

    Attributes:
      folder: `train` in the run folder.
      inputs: all that the parameters depend on, and nothing else.
      source: the model whose weights training starts from; None: random ones.
      reads_text: whether it reads windows of text, which teach less with each time.
    """

    folder: Path
    vocabulary: Vocabulary
    inputs: dict[str, Any]
    source: Source | None = field(default=None, kw_only=True)
    reads_text: ClassVar[bool] = True

    @property
    def checkpoints(self) -> Path:
        """The folder of this run's checkpoints."""
        return self.folder / CHECKPOINTS

    @property
    def branch_step(self) -> int | None:
        """The step at which the decay of wsd begins: its checkpoint is kept, for a longer training.

        None if the clock decides where that is.
        """
        if self.hours is not None:
            return None
        train = self.recipe.train
        schedule = self.inputs["train"]["schedule"]
        step = decay_start(schedule, train.steps)
        return step if train.schedule.name == "wsd" and 0 < step < train.steps else None

    def first_state(self) -> TrainState:
        """The state before the first step, random or with the weights of `source`."""
        if self.source is None:
            return self.fresh_program()()
        averaged = self.recipe.train.average_decay is not None
        parameters = self.source.parameters(self.config, self.vocabulary, self.recipe.seed)
        return started_state(self.config, parameters, self.optimizer, averaged, self.devices.mesh)

    def batches(self) -> Batches:
        """The training batches, by number."""
        raise NotImplementedError


def initial_state(setup: TrainingSetup, folder: Path | None) -> TrainState:
    """The state of a checkpoint, or without one the state before the first step."""
    if folder is None:
        what = f"reading {setup.source.name}" if setup.source else "initialising the parameters"
        with phase("train", what):
            return interruptible(lambda: jax.block_until_ready(setup.first_state()))
    with phase("train", f"restoring {folder.name}"):
        return checkpoints.restore(folder, setup.abstract_state())


S = TypeVar("S", bound=TrainingSetup)


class BaseRun(Generic[S]):
    """A run folder's training: what was trained, what trains now, what came of it.

    Every property raises T5smithError if its artifact is missing, unfinished or damaged.
    """

    def __init__(self, recipe: Recipe, *, restart: bool = False) -> None:
        """Open nothing yet; `restart`: the trained steps are about to be archived."""
        self.recipe, self.restart = recipe, restart

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.recipe.folder

    @cached_property
    def history(self) -> History:
        """What was trained here before, unless that is about to be archived."""
        return History(self.folder) if self.restart else History.read(self.folder)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary."""
        raise NotImplementedError

    def verify_data(self) -> None:
        """Compare the files that training reads with their hashes, once."""
        raise NotImplementedError

    @cached_property
    def setup(self) -> S:
        """What the training loop needs.

        Raises:
          T5smithError: the settings do not fit the text or each other, or one has not been measured yet.
        """
        hours = self.recipe.train.hours if self.clock else None
        return self._setup(with_measured_settings(self.recipe, self.history.inputs), hours)

    @property
    def clock(self) -> Spent | None:
        """What the clock decided so far; None if the number of steps is fixed."""
        return clock_of(self.recipe, self.history.inputs)

    def trial_setup(self, batch_size: int) -> S:
        """A setup with this batch size, to try a step."""
        return self._setup(trial_recipe(self.recipe, batch_size), self.recipe.train.hours)

    def _setup(self, recipe: Recipe, hours: float | None) -> S:
        raise NotImplementedError

    @cached_property
    def source(self) -> tuple[Source | None, dict[str, Any]]:
        """The model that training starts from, and its part of the inputs."""
        return source_and_input(self.recipe.train.init_from, self.history.inputs)

    @cached_property
    def trained(self) -> tuple[Path, Manifest]:
        """The checkpoint at the recipe's last step.

        Raises:
          T5smithError: training has not reached it.
        """
        setup = self.setup
        steps = setup.recipe.train.steps
        found = checkpoints.latest(setup.checkpoints, setup.inputs, up_to=steps)
        if found is None or found[1].facts["step"] != steps:
            step = found and found[1].facts["step"]
            reached = f"ends at step {step:,}" if found else "has no checkpoint of this recipe"
            expected, fix = f"step {steps:,}", "run `t5smith train`"
            raise T5smithError(f"training {reached}", where=setup.checkpoints, expected=expected, fix=fix)
        return found

    @property
    def model_fingerprint(self) -> str:
        """Fingerprint of the trained checkpoint."""
        return checkpoints.model_fingerprint(self.trained[1])

    @cached_property
    def model(self) -> Model:
        """The trained model."""
        saved = SavedParameters([self.trained[0]], self.setup.abstract_state())
        return Model(saved.tree(), self.setup.config, self.vocabulary)
