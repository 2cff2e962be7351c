"""A run's artifacts, each opened once, and what the training loop needs, derived from them and the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from t5smith.base.artifact import Manifest, read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.run_folder import TRAIN
from t5smith.objective.batches import Objective, TrainingBatches
from t5smith.recipe.recipe import Recipe
from t5smith.store.token_store import TokenStore
from t5smith.training.base_setup import BaseRun, StepSetup, TrainingSetup
from t5smith.training.resume.fingerprint import data_order_fingerprint, training_fingerprint
from t5smith.training.settle import training_batches, with_steps
from t5smith.vocabulary.vocabulary import Vocabulary


@dataclass(frozen=True)
class Setup(TrainingSetup):
    """All that pre-training needs; `store` is its text."""

    store: TokenStore

    def batches(self) -> TrainingBatches:
        """The training batches, by number."""
        return training_batches(self.recipe, self.store, self.objective)


class Run(BaseRun[Setup]):
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
        super().__init__(recipe, restart=restart)
        self._store_verified = store_verified

    @classmethod
    def of(cls, recipe: Recipe | Run, *, restart: bool = False) -> Run:
        """The run itself, or the run of a recipe."""
        return recipe if isinstance(recipe, Run) else cls(recipe, restart=restart)

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

    def verify_data(self) -> None:
        """Compare the files of the store with their hashes, once per Run."""
        if not self._store_verified:
            read_manifest(self.folder / "store", "store")
            self._store_verified = True

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
