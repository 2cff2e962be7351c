"""A fine-tuning as the training engine sees it: its recipe, its setup, its run folder `finetune`."""

from __future__ import annotations

import math
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from t5smith.base.artifact import file_hash, read_manifest
from t5smith.base.errors import T5smithError, TrainingAtStake
from t5smith.base.run_folder import TRAIN
from t5smith.finetuning.batches import Denoising, PairObjective, TaskBatches
from t5smith.finetuning.examples import Examples, make_examples
from t5smith.interop.source import Source
from t5smith.model.config import WORDS, ModelConfig
from t5smith.objective.objective import Objective
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.recipe import Recipe, plain
from t5smith.recipe.train import LENGTHS, TrainSettings
from t5smith.training.base_setup import BaseRun, StepSetup, TrainingSetup
from t5smith.training.resume.fingerprint import training_fingerprint
from t5smith.training.settle import training_batches
from t5smith.training.setup import Run
from t5smith.vocabulary.tokenizer_files import tokenizer_file
from t5smith.vocabulary.vocabulary import Vocabulary

FOLDER = "finetune"
"""Within the run folder: the run folder of the fine-tuning."""
SAMPLE_BATCHES = 8
"""Batches whose tokens are counted to convert `tokens` to steps."""


@contextmanager
def in_finetune_terms() -> Generator[None]:
    """Let errors of the engine name the settings of fine-tuning."""
    try:
        yield
    except TrainingAtStake:
        raise
    except T5smithError as error:
        where = None if error.where is None else _renamed(str(error.where))
        fix = error.fix and _renamed(error.fix)
        raise T5smithError(_renamed(error.what), where=where, expected=error.expected, fix=fix) from error


def _renamed(text: str) -> str:
    text = re.sub(r"(?<![\w./])train\.init_from\b", "finetune.model", text)
    text = re.sub(r"(?<![\w./])train\.(?=[a-z_]+\b)", "finetune.train.", text)
    return text.replace("t5smith train", "t5smith finetune")


@dataclass(frozen=True)
class FinetuneSetup(TrainingSetup):
    """All that the loop needs of a fine-tuning.

    Attributes:
      made: the batches.
    """

    made: TaskBatches = field(kw_only=True, repr=False)
    reads_text: ClassVar[bool] = False

    def batches(self) -> TaskBatches:
        """The training batches, by number."""
        return self.made


class FinetuneRun(BaseRun[FinetuneSetup]):
    """The fine-tuning of a run.

    Attributes:
      outer: the recipe; that of the engine is made from it.
    """

    def __init__(self, outer: Recipe, *, restart: bool = False) -> None:
        """Find the model, and open nothing else yet.

        Raises:
          T5smithError: no task, or no model.
        """
        settings = outer.finetune
        if not settings.tasks:
            fix = "add a table [finetune.tasks.NAME] to the recipe: `train`, `input` and `target`"
            raise T5smithError("no task to fine-tune on", where="finetune.tasks", fix=fix)
        self.outer, self.settings, self._verified = outer, settings, False
        name = settings.model or str(outer.folder)
        if not settings.model and not (outer.folder / "model" / "config.json").is_file():
            what = f"{outer.folder} has no exported model to fine-tune"
            fix = "set it to a folder or a name on the Hub, or finish the run first: `t5smith run RECIPE`"
            raise T5smithError(what, where="finetune.model", fix=fix)
        train = TrainSettings.model_validate({**settings.train.model_dump(), "init_from": name})
        changes = {
            "run_dir": outer.folder / FOLDER,
            "objective": ObjectiveSettings(input_length=settings.input_length),
            "train": train,
        }
        super().__init__(outer.model_copy(update=changes), restart=restart)

    @cached_property
    def model_source(self) -> Source:
        """The model to fine-tune.

        Raises:
          T5smithError: it is gone.
        """
        found = self.source[0]
        if found is None:
            what = f"the model {self.recipe.train.init_from} is gone"
            raise T5smithError(what, where="finetune.model", fix="put it back, or name its new place")
        return found

    @cached_property
    def _tokenizer(self) -> Path:
        source = self.model_source
        place = self.outer.folder / "vocab" if source.vocabulary is None else source.path
        return tokenizer_file(place)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The model's own vocabulary; of a checkpoint of T5X that of the run."""
        own = self.model_source.vocabulary
        if own is None and not self._tokenizer.is_file():
            fix = "import its tokenizer first: `t5smith vocab --vocab.tokenizer NAME`"
            raise T5smithError(f"{self.model_source.name} has no tokenizer", where="finetune.model", fix=fix)
        return own or Vocabulary.load(self._tokenizer)

    @cached_property
    def config(self) -> ModelConfig:
        """The model's sizes."""
        return self.model_source.config(ModelConfig.create(self.outer.model, self.vocabulary.size))

    @cached_property
    def examples(self) -> Examples:
        """The examples of all tasks, made if they are not there yet."""
        vocabulary = self.vocabulary
        return make_examples(self.folder / "examples", self.settings, vocabulary, file_hash(self._tokenizer))

    def verify_data(self) -> None:
        """Compare the examples with their hashes."""
        if not self._verified:
            Examples.open(self.folder / "examples")
            self._verified = True

    def batches(self, recipe: Recipe) -> TaskBatches:
        """The batches of a recipe of the engine with a number for the batch size."""
        objective = PairObjective.of(self.settings, self.vocabulary)
        rows, seed = recipe.train.rows, recipe.seed
        return TaskBatches(self.examples, objective, self.settings, rows, seed, self._denoising(rows))

    def _denoising(self, rows: int) -> Denoising | None:
        """The windows of the run's text.

        Raises:
          T5smithError: there is no store, or it is of another vocabulary.
        """
        if not self.settings.denoising:
            return None
        text = Run(self.outer)
        if text.vocabulary.all_pieces != self.vocabulary.all_pieces:
            what = f"the text of {self.outer.folder} is stored with another vocabulary than the model's"
            fix = "set vocab.tokenizer to the model and prepare the text again"
            raise T5smithError(what, where="finetune.denoising", fix=fix)
        recipe = self.outer.replace(**{"train.batch_size": rows, "train.gradient_accumulation": 1})
        objective = Objective.create(recipe.objective, text.vocabulary)
        return Denoising(training_batches(recipe, text.store, objective), self.settings.denoising)

    def _setup(self, recipe: Recipe, hours: float | None) -> FinetuneSetup:
        made = self.batches(recipe)
        recipe = self.history.with_trained_defaults(_with_steps(recipe, made))
        recipe = recipe.model_copy(update={"model": settings_of(self.config)})
        step = StepSetup.create(recipe, self.vocabulary, hours, made.objective, self.config)
        return FinetuneSetup(
            **vars(step),
            folder=self.folder / TRAIN,
            vocabulary=self.vocabulary,
            inputs={
                "examples": self.examples.manifest.key,
                "mixture": self._mixture(made),
                **training_fingerprint(recipe, hours),
                **self.source[1],
                **({"extended": self.history.extensions} if self.history.extensions else {}),
            },
            source=self.model_source,
            made=made,
        )

    def _mixture(self, made: TaskBatches) -> dict[str, Any]:
        names = list(self.settings.tasks)
        found: dict[str, Any] = {"weights": dict(zip(names, made.weights(), strict=True))}
        found["packing"] = self.settings.packing
        if made.denoising:
            store = read_manifest(self.outer.folder / "store", "store", check_hashes=False)
            found |= {
                "denoising": self.settings.denoising,
                "store": store.key,
                "objective": plain(self.outer.objective),
            }
        return found


def _with_steps(recipe: Recipe, made: TaskBatches) -> Recipe:
    """The recipe with its number of steps, where its length is given in tokens or epochs."""
    train = recipe.train
    if train.epochs is not None:
        share = made.denoising.share if made.denoising else 0.0
        examples = made.examples.tasks[-1].stop * train.epochs / (1 - share)
        per_batch = made.first_window(made.batch_size * SAMPLE_BATCHES) / SAMPLE_BATCHES
        steps = max(1, math.ceil(examples / per_batch))
    elif train.tokens is not None:
        sample = [made[b] for b in range(SAMPLE_BATCHES)]
        pad = made.objective.pad_id
        tokens = sum(int((batch[name] != pad).sum()) for batch in sample for name in ("input_ids", "targets"))
        steps = max(1, math.ceil(train.tokens * SAMPLE_BATCHES / tokens))
    else:
        return recipe
    changes = {f"train.{name}": None for name in LENGTHS} | {"train.steps": steps}
    return recipe.replace(**changes)


def settings_of(config: ModelConfig) -> ModelSettings:
    """The table [model] of a model's sizes."""
    values: dict[str, Any] = {
        name: value for name, value in vars(config).items() if name in ModelSettings.model_fields
    }
    for name, (setting, known) in WORDS.items():
        values[setting] = next(word for word, value in known.items() if value == getattr(config, name))
    return ModelSettings.model_validate(values)
