"""From a recipe and its artifacts to what the loop needs: sizes, batches, optimizer, what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from t5smith.base.artifact import fingerprint, read_manifest
from t5smith.base.errors import T5smithError
from t5smith.model.config import ModelConfig
from t5smith.objective.batches import Objective, TrainingBatches, corpus_weights
from t5smith.recipe.recipe import Recipe, plain
from t5smith.recipe.train import LENGTHS
from t5smith.store.token_store import TokenStore
from t5smith.training import checkpoints
from t5smith.training.autotune import with_measured_settings, with_steps
from t5smith.training.optimizer import create_optimizer, peak_learning_rate
from t5smith.training.schedule import FALLING, Schedule, create_schedule, warmup_steps
from t5smith.training.state import TrainState, fresh_state
from t5smith.training.step import StepSettings
from t5smith.vocabulary.vocabulary import Vocabulary

DTYPES = {"float32": jnp.dtype(jnp.float32), "bfloat16": jnp.dtype(jnp.bfloat16)}


@dataclass(frozen=True)
class Setup:
    """One run's parts. `inputs` is all that decides what the parameters become, and nothing else."""

    recipe: Recipe
    folder: Path
    store: TokenStore
    vocabulary: Vocabulary
    config: ModelConfig
    objective: Objective
    schedule: Schedule
    optimizer: optax.GradientTransformation
    inputs: dict[str, Any]

    @classmethod
    def create(cls, recipe: Recipe, *, check_hashes: bool = False) -> Setup:
        """Open the run's vocabulary and store and check that the settings fit them.

        Args:
          recipe: the run.
          check_hashes: read the whole store to compare it with its hashes; without, sizes are compared.

        Raises:
          T5smithError: an artifact is missing or damaged, settings do not go together, or something is
            left to the machine and was not decided yet.
        """
        recipe = with_measured_settings(recipe)
        run = recipe.folder
        store_manifest = read_manifest(run / "store", "store", check_hashes=False)
        vocab_files = read_manifest(run / "vocab", "vocab").files
        if store_manifest.inputs["vocab"] != vocab_files["tokenizer.json"]["sha256"]:
            raise T5smithError(
                "the store was made with another vocabulary", where=run / "store", fix="run `t5smith prepare`"
            )
        vocabulary = Vocabulary.load(run / "vocab")
        store = TokenStore.open(run / "store", check_hashes=check_hashes)
        objective = Objective.create(recipe.objective, vocabulary)
        # Too little held-out text would else be found only when training is over.
        store.valid.window_count(objective.window)
        if not recipe.train.in_steps:
            recipe = with_steps(recipe, _batches(recipe, store, objective))
        train = recipe.train
        schedule = create_schedule(train.schedule, peak_learning_rate(train.optimizer), train.steps)
        return cls(
            recipe=recipe,
            folder=run / "train",
            store=store,
            vocabulary=vocabulary,
            config=ModelConfig.create(recipe.model, vocabulary.size),
            objective=objective,
            schedule=schedule,
            optimizer=create_optimizer(train.optimizer, schedule),
            inputs={
                "store": store_manifest.key,
                **training_fingerprint(recipe),
                **data_order_fingerprint(recipe, store, objective),
            },
        )

    @property
    def checkpoints(self) -> Path:
        """Where this run's checkpoints stand."""
        return self.folder / "checkpoints"

    @property
    def key(self) -> str:
        """Fingerprint of what the parameters depend on."""
        return fingerprint(self.inputs)

    @property
    def dtype(self) -> jnp.dtype:
        """What products are computed in."""
        return DTYPES[self.recipe.train.precision]

    @property
    def step_settings(self) -> StepSettings:
        """What is fixed when the step is compiled."""
        train = self.recipe.train
        return StepSettings(
            dtype=self.dtype,
            z_loss=train.z_loss,
            label_smoothing=train.label_smoothing,
            dropout_rate=train.dropout_rate,
            seed=self.recipe.seed,
            remat=train.remat,
            accumulation=train.gradient_accumulation,
            explosion_factor=train.explosion_factor,
            average_decay=train.average_decay,
        )

    def batches(self) -> TrainingBatches:
        """The training batches, by number."""
        return _batches(self.recipe, self.store, self.objective)

    def fresh_state(self) -> TrainState:
        """The state before the first step."""
        averaged = self.recipe.train.average_decay is not None
        return _fresh_state(self.config, self.optimizer, self.recipe.seed, averaged)

    def abstract_state(self) -> TrainState:
        """Its shapes alone."""
        return jax.eval_shape(self.fresh_state)

    def log_of_vocabulary(self) -> float:
        """Ln V of the ids that exist: the loss of a model that knows nothing."""
        return float(np.log(self.config.real_vocab_size))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _fresh_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, seed: int, averaged: bool
) -> TrainState:
    return fresh_state(config, optimizer, jax.random.key(seed), averaged=averaged)


def _batches(recipe: Recipe, store: TokenStore, objective: Objective) -> TrainingBatches:
    return TrainingBatches(
        store.train,
        objective,
        recipe.train.rows,
        recipe.seed,
        recipe.objective.shift_windows,
        corpus_weights(recipe.corpus, store.train),
    )


def trained(setup: Setup) -> tuple[Path, str]:
    """The checkpoint at the recipe's last step and its manifest's fingerprint.

    Raises:
      T5smithError: training has not come that far.
    """
    steps = setup.recipe.train.steps
    found = checkpoints.latest(setup.checkpoints, setup.inputs, up_to=steps)
    if found is None or found[1].facts["step"] != steps:
        reached = (
            f"ends at step {found[1].facts['step']:,}" if found else "has no checkpoint of these settings"
        )
        raise T5smithError(
            f"training {reached}",
            where=setup.checkpoints,
            expected=f"step {steps:,}",
            fix="run `t5smith train`",
        )
    return found[0], fingerprint([found[1].key, found[1].facts["step"], found[1].files])


NOT_IN_FINGERPRINT = {
    "checkpoint_every",
    "keep_checkpoints",
    "keep_every",
    "keep_best",
    "log_every",
    "loggers",
    "evaluate_every",
    "prefetch_batches",
    "prefetch_workers",
    # These two change when numbers are rounded, not what they are.
    "gradient_accumulation",
    "remat",
}
"""Settings of training that do not decide what the parameters become."""


def training_fingerprint(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide what the parameters become.

    How often to log, measure or save does not. The number of steps does only where the learning rate
    falls towards the last step: else a longer run goes on from a shorter one's checkpoint.
    """
    train = recipe.train.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT | {"steps", *LENGTHS})
    train["optimizer"]["learning_rate"] = peak_learning_rate(recipe.train.optimizer)
    train["schedule"]["warmup_steps"] = warmup_steps(recipe.train.schedule, recipe.train.steps)
    if recipe.train.schedule.name in FALLING:
        train["steps"] = recipe.train.steps
    return {
        "seed": recipe.seed,
        "objective": plain(recipe.objective),
        "model": plain(recipe.model),
        "train": train,
    }


def data_order_fingerprint(recipe: Recipe, store: TokenStore, objective: Objective) -> dict[str, Any]:
    """What decides which windows share a row and which corpus they are of, where there is a choice.

    The rows come from a solver, of which another version may choose others that are as good.
    """
    found: dict[str, Any] = {}
    if len(store.train.corpora) > 1:
        found["corpora"] = dict(
            zip(
                [corpus.name for corpus in store.train.corpora],
                corpus_weights(recipe.corpus, store.train),
                strict=True,
            )
        )
    if objective.plan.packed:
        plan = objective.plan
        found["rows"] = fingerprint([plan.input_length, plan.target_length, plan.rows])
    return found
