"""How a fine-tuning is judged: the loss of `dev`'s targets, and scores of what the model writes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby, takewhile
from typing import Any

import numpy as np
import xxhash

from t5smith.finetuning.examples import Held
from t5smith.finetuning.run import FinetuneRun, FinetuneSetup
from t5smith.finetuning.scores import score
from t5smith.generation.fill import Generator
from t5smith.interop.model import Model
from t5smith.model.params import Parameters
from t5smith.objective.batches import Batch
from t5smith.recipe.evaluate import GenerateSettings
from t5smith.recipe.finetune.presets import Score
from t5smith.recipe.finetune.settings import FinetuneSettings, TaskSettings
from t5smith.training.curves.held_out import Evaluated, EvaluationPlan
from t5smith.training.eval_step import create_scorer, token_classes, total
from t5smith.vocabulary.vocabulary import Vocabulary

EVALUATIONS = 10
"""The number of evaluations of `finetune.train.evaluate_every = "auto"`."""

COMPARABLE: set[Score] = {"bleu", "chrf", "rouge1", "rouge2", "rougeL"}
"""Scores that a copy of the input can have."""

Scores = dict[str, dict[Score, float]]
"""Task -> score -> per cent."""


def by_task(held: Iterable[Held]) -> Iterator[tuple[str, list[Held]]]:
    """The examples of each task, which are next to each other."""
    for name, own in groupby(held, key=lambda one: one.task):
        yield name, list(own)


def chosen(held: Iterable[Held], most: int) -> list[Held]:
    """At most so many examples of each task (0: all), those with the lowest hashes, in their order."""
    found: list[Held] = []
    for _, own in by_task(held):
        hashes = [xxhash.xxh64_intdigest(one.input.encode()) for one in own]
        kept = sorted(sorted(range(len(own)), key=lambda n: (hashes[n], n))[: most or None])
        found += [own[n] for n in kept]
    return found


def input_ids(vocabulary: Vocabulary, held: Sequence[Held], length: int) -> list[list[int]]:
    """The ids of inputs without `</s>`, cut as in training."""
    return [ids[: length - 1] for ids in vocabulary.encode_batch([one.input for one in held])]


def generated(
    model: Model, held: Sequence[Held], settings: FinetuneSettings, precision: str, *, num_beams: int = 1
) -> Iterator[str]:
    """What the model writes for inputs, in their order."""
    how = GenerateSettings.model_validate(
        {
            "max_new_tokens": settings.target_length,
            "num_beams": num_beams,
            "constrain": False,
            "batch_size": settings.eval_batch_size,
            "precision": precision,
        }
    )
    ids = input_ids(model.vocabulary, held, settings.input_length)
    for one in Generator(model, how).each_of_ids(ids):
        yield one.text


def scores_of(tasks: Mapping[str, TaskSettings], held: Sequence[Held], texts: Sequence[str]) -> Scores:
    """The scores of each task."""
    found: Scores = {}
    at = 0
    for name, own in by_task(held):
        texts_of_task = texts[at : at + len(own)]
        at += len(own)
        right = [one.targets for one in own]
        found[name] = {kind: score(kind, texts_of_task, right) for kind in tasks[name].all_scores}
    return found


def copied_scores(tasks: Mapping[str, TaskSettings], held: Sequence[Held]) -> Scores:
    """The scores of the inputs as outputs, where they are comparable: of tasks from one column to a text."""
    found: Scores = {}
    for name, own in by_task(held):
        texts = [one.copied for one in own if one.copied is not None]
        kinds: list[Score] = [kind for kind in tasks[name].all_scores if kind in COMPARABLE]
        right = [one.targets for one in own]
        found[name] = {kind: score(kind, texts, right) for kind in kinds if len(texts) == len(own)}
    return found


def headline(scores: Scores) -> float:
    """What checkpoints are compared by: the mean over tasks of the first score of each."""
    return float(np.mean([next(iter(own.values())) for own in scores.values()]))


class TaskEvaluation:
    """An :class:`t5smith.training.curves.held_out.Evaluation` of a fine-tuning while it trains."""

    def __init__(self, run: FinetuneRun, setup: FinetuneSetup, before: int | None = None) -> None:
        """Generate and compile nothing yet; `before` is that of pre-training."""
        self.run, self.setup, self.settings = run, setup, run.settings
        self.plan = self._plan()

    def _plan(self) -> EvaluationPlan:
        train = self.setup.recipe.train
        every = train.evaluate_every
        if every == "auto":
            every = max(1, math.ceil(train.steps / EVALUATIONS))
        return EvaluationPlan(every, 0)

    @cached_property
    def held(self) -> list[Held]:
        """The examples of `dev` that are looked at."""
        return chosen(self.run.examples.held("dev"), self.settings.dev_examples)

    def due(self, step: int, last: int) -> bool:
        """Whether to evaluate after a step."""
        return bool(self.plan.every) and (step % self.plan.every == 0 or step == last)

    def is_enough(self, since_best: int) -> bool:
        """Whether the score has not become better for so many evaluations."""
        return 0 < self.settings.early_stopping <= since_best

    def evaluate(self, parameters: Parameters, stopped: Sequence[int]) -> Evaluated | None:
        """The loss, and the scores of greedy outputs; None once a signal is in `stopped`."""
        setup = self.setup
        loss = total(takewhile(lambda _: not stopped, self._scorer(parameters, self._batches())))
        model = Model(parameters, setup.config, setup.vocabulary)
        texts = generated(model, self.held, self.settings, setup.recipe.train.precision)
        written = list(takewhile(lambda _: not stopped, texts))
        if stopped:
            return None
        scores = scores_of(self.settings.tasks, self.held, written)
        text, every = loss.text.per_token(), loss.total.per_token()
        row = {"text": text, "all": every, "windows": len(self.held), "unigram_nll": None}
        figures = {"held-out/nll": every["nll"], "held-out/accuracy": every["accuracy"]}
        figures |= {
            f"dev/{task}_{kind}": value for task, own in scores.items() for kind, value in own.items()
        }
        return Evaluated(row | {"scores": scores, "score": headline(scores)}, figures)

    @cached_property
    def _scorer(self) -> Any:
        setup = self.setup
        return create_scorer(setup.config, token_classes(setup.vocabulary), setup.compute)

    def _batches(self) -> Iterator[Batch]:
        """The examples with their first targets, one per row."""
        size, settings, vocabulary = self.settings.eval_batch_size, self.settings, self.setup.vocabulary
        targets = vocabulary.encode_batch([one.targets[0] for one in self.held])
        inputs = input_ids(vocabulary, self.held, settings.input_length)
        sides = {"input_ids": (inputs, settings.input_length), "targets": (targets, settings.target_length)}
        for start in range(0, len(self.held), size):
            batch: dict[str, np.ndarray] = {}
            for name, (texts, length) in sides.items():
                rows = texts[start : start + size]
                batch[name] = np.full((len(rows), length), vocabulary.pad_id, np.int32)
                for row, ids in enumerate(rows):
                    ids = [*ids[: length - 1], vocabulary.eos_id]
                    batch[name][row, : len(ids)] = ids
            yield batch
