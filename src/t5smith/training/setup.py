"""A run's artifacts, each opened once, and what the training loop needs, derived from them and the recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import optax

from t5smith.base.artifact import Manifest, fingerprint, read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.run_folder import CHECKPOINTS, TRAIN
from t5smith.interop.model import Model
from t5smith.interop.source import Source, source_and_input
from t5smith.model.attention.items import ItemLayout
from t5smith.model.compute import Compute
from t5smith.model.config import ModelConfig
from t5smith.objective.batches import Objective, TrainingBatches
from t5smith.parallel.backend import chosen_backend, compute_in
from t5smith.parallel.mesh import Devices, batch_shapes
from t5smith.recipe.recipe import Recipe
from t5smith.store.token_store import TokenStore
from t5smith.training.optimizer import create_optimizer, peak_learning_rate
from t5smith.training.resume import checkpoints
from t5smith.training.resume.fingerprint import data_order_fingerprint, training_fingerprint
from t5smith.training.resume.history import History
from t5smith.training.resume.saved_parameters import SavedParameters
from t5smith.training.schedule import Schedule, create_schedule, decay_start
from t5smith.training.settle import (
    clock_of,
    devices_of,
    training_batches,
    trial_recipe,
    with_measured_settings,
    with_steps,
)
from t5smith.training.state import TrainState, abstract_state, fresh_program, started_state
from t5smith.training.step import StepSettings
from t5smith.training.timing.record import Spent
from t5smith.vocabulary.vocabulary import Vocabulary


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
    def create(cls, recipe: Recipe, vocabulary: Vocabulary, hours: float | None = None) -> StepSetup:
        """The step of a recipe with numbers for batch size and steps."""
        train, config = recipe.train, ModelConfig.create(recipe.model, vocabulary.size)
        peak = peak_learning_rate(recipe)
        schedule = create_schedule(train.schedule, peak, train.steps)
        devices = devices_of(recipe, config)
        backend = chosen_backend(devices.mesh)
        optimizer = create_optimizer(train.optimizer, schedule, config.num_heads, backend)
        objective = Objective.create(recipe.objective, vocabulary)
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
class Setup(StepSetup):
    """All that the training loop needs.

    Attributes:
      folder: `train` in the run folder.
      inputs: all that the parameters depend on, and nothing else.
      source: the model whose weights training starts from; None: random ones.
    """

    folder: Path
    store: TokenStore
    vocabulary: Vocabulary
    inputs: dict[str, Any]
    source: Source | None = None

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

    def batches(self) -> TrainingBatches:
        """The training batches, by number."""
        return training_batches(self.recipe, self.store, self.objective)


class Run:
    """A run folder's artifacts, each opened when it is first needed and then kept.

    `pipeline.run` hands one Run to all stages after `prepare`; a stage that is called with a recipe makes its
    own. Every property raises T5smithError if its artifact is missing, unfinished or damaged.
    """

    def __init__(self, recipe: Recipe, *, store_verified: bool = False, restart: bool = False) -> None:
        """Open nothing yet.

        Args:
          recipe: the run.
          store_verified: the files of the store were compared with their hashes a moment ago.
          restart: the trained steps are about to be archived, so the settings do not depend on them.
        """
        self.recipe, self.restart, self._store_verified = recipe, restart, store_verified

    @classmethod
    def of(cls, recipe: Recipe | Run, *, restart: bool = False) -> Run:
        """The run itself, or the run of a recipe."""
        return recipe if isinstance(recipe, Run) else cls(recipe, restart=restart)

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
        """The vocabulary in `vocab`."""
        read_manifest(self.folder / "vocab", "vocab")
        return Vocabulary.load(self.folder / "vocab")

    @cached_property
    def _store_manifest(self) -> Manifest:
        return read_manifest(self.folder / "store", "store", check_hashes=False)

    @cached_property
    def store(self) -> TokenStore:
        """The token store in `store`, which must have been made with the vocabulary in `vocab`."""
        made_with = self._store_manifest.inputs["vocab"]
        if made_with != read_manifest(self.folder / "vocab", "vocab").files["tokenizer.json"]["sha256"]:
            raise T5smithError(
                "the store was made with another vocabulary",
                where=self.folder / "store",
                fix="run `t5smith prepare`",
            )
        return TokenStore.open(self.folder / "store", check_hashes=False)

    def verify_store(self) -> None:
        """Compare the files of the store with their hashes, once per Run."""
        if not self._store_verified:
            read_manifest(self.folder / "store", "store")
            self._store_verified = True

    @cached_property
    def setup(self) -> Setup:
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

    def trial_setup(self, batch_size: int) -> Setup:
        """A setup with this batch size, to try a step."""
        return self._setup(trial_recipe(self.recipe, batch_size), self.recipe.train.hours)

    def _setup(self, recipe: Recipe, hours: float | None) -> Setup:
        store, vocabulary = self.store, self.vocabulary
        objective = Objective.create(recipe.objective, vocabulary)
        # Raises if the held-out text is too short, which would otherwise be found after training.
        store.valid.window_count(objective.window)
        if not recipe.train.in_steps:
            recipe = with_steps(recipe, training_batches(recipe, store, objective))
        recipe = self.history.with_trained_defaults(recipe)
        step = StepSetup.create(recipe, vocabulary, hours)
        source, initial = self.source
        if source:
            source.check(step.config)
        return Setup(
            **vars(step),
            folder=self.folder / TRAIN,
            store=store,
            vocabulary=vocabulary,
            inputs={
                "store": self._store_manifest.key,
                **training_fingerprint(recipe, hours),
                **data_order_fingerprint(recipe, store.train, objective),
                **initial,
                **({"extended": self.history.extensions} if self.history.extensions else {}),
            },
            source=source,
        )

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
        manifest = self.trained[1]
        return fingerprint([manifest.key, manifest.facts["step"], manifest.files])

    @cached_property
    def model(self) -> Model:
        """The trained model."""
        saved = SavedParameters([self.trained[0]], self.setup.abstract_state())
        return Model(saved.tree(), self.setup.config, self.vocabulary)
