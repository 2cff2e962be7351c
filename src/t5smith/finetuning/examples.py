"""The examples of all tasks as an artifact: ids to train on, texts to evaluate, and what was skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int

from t5smith.base.artifact import Manifest, building, find_up_to_date, fingerprint, read_manifest
from t5smith.base.progress import count, info, progress, warn
from t5smith.base.wrapping import pluralize
from t5smith.finetuning.tasks import Example, SplitName, Task, to_json, warn_of_new_labels
from t5smith.recipe.finetune.settings import FinetuneSettings
from t5smith.recipe.recipe import plain
from t5smith.store.token_store import Corpus
from t5smith.text.fingerprints import fingerprint_files
from t5smith.vocabulary.vocabulary import Vocabulary

KIND = "examples"
FORMAT = 1
AT_ONCE = 1024
"""Texts that are encoded together."""
SIDES = ("inputs", "targets")


@dataclass(frozen=True)
class Held(Example):
    """An example of `dev` or `test`, and the name of its task."""

    task: str = ""


@dataclass(frozen=True)
class Examples:
    """The finished artifact."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path, *, check_hashes: bool = True) -> Examples:
        """Open it; raises T5smithError if it is missing or damaged."""
        return cls(folder, read_manifest(folder, KIND, check_hashes=check_hashes))

    @property
    def tasks(self) -> list[Corpus]:
        """The examples to train on of each task: from `start` to `stop`."""
        found = self.manifest.facts["tasks"]
        return [Corpus(name, own["start"], own["stop"]) for name, own in found.items()]

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        names = [*SIDES, *(f"{side}-ends" for side in SIDES)]
        return {name: np.load(self.folder / f"train-{name}.npy", mmap_mode="r") for name in names}

    @cached_property
    def lengths(self) -> Int[np.ndarray, "examples 2"]:
        """Tokens of the input and of the target of each example."""
        ends = [np.asarray(self._arrays[f"{side}-ends"]) for side in SIDES]
        return np.stack([np.diff(end, prepend=0) for end in ends], axis=1)

    def ids(self, side: int, number: int) -> Int[np.ndarray, " n"]:
        """The ids of an input (side 0) or target (side 1), with `</s>`."""
        ends = self._arrays[f"{SIDES[side]}-ends"]
        start = int(ends[number - 1]) if number else 0
        return np.asarray(self._arrays[SIDES[side]][start : int(ends[number])])

    def held(self, split: SplitName) -> list[Held]:
        """The examples of `dev` or `test`, in the order of the tasks."""
        with (self.folder / f"{split}.jsonl").open(encoding="utf-8") as file:
            trees = [json.loads(line) for line in file]
        names = ("place", "copied", "task")
        return [Held(one["input"], tuple(one["targets"]), *(one[name] for name in names)) for one in trees]


def make_examples(folder: Path, settings: FinetuneSettings, vocabulary: Vocabulary, key: str) -> Examples:
    """Read, check and encode the rows of all tasks, unless that is done.

    Args:
      folder: of the artifact.
      settings: the table `[finetune]`.
      vocabulary: the model's.
      key: fingerprint of the vocabulary.

    Raises:
      T5smithError: see :meth:`t5smith.finetuning.tasks.Task.examples`.
    """
    tasks = [Task(name, own) for name, own in settings.tasks.items()]
    inputs = {
        "format": FORMAT,
        "vocabulary": key,
        "input_length": settings.input_length,
        "target_length": settings.target_length,
        "tasks": {task.name: _inputs(task) for task in tasks},
    }
    if find_up_to_date(folder, KIND, fingerprint(inputs)):
        return Examples.open(folder, check_hashes=False)
    facts: dict[str, Any] = {"tasks": {}}
    with (
        building(folder, KIND, inputs, facts) as work,
        _Writer(work, vocabulary, settings) as writer,
        progress("finetune", None, "examples") as bar,
    ):
        for task in tasks:
            facts["tasks"][task.name] = writer.write(task, bar.advance) | task.facts()
    found = Examples.open(folder, check_hashes=False)
    _report(found)
    return found


def _inputs(task: Task) -> dict[str, Any]:
    """What the examples of a task depend on: its settings without the weight, and its files."""
    names = {"train", "dev", "test"}
    settings = {name: value for name, value in plain(task.settings).items() if name not in {*names, "weight"}}
    return settings | {split: fingerprint_files(files) for split, files in task.files.items()}


class _Writer:
    """The files of the artifact while they are written."""

    def __init__(self, folder: Path, vocabulary: Vocabulary, settings: FinetuneSettings) -> None:
        self.folder, self.vocabulary = folder, vocabulary
        self.limits = settings.input_length, settings.target_length
        self.total, self.files = 0, dict[str, IO[Any]]()
        self.ends: tuple[list[int], list[int]] = ([], [])

    def __enter__(self) -> _Writer:
        self.files |= {side: (self.folder / side).open("wb") for side in SIDES}
        self.files |= {
            split: (self.folder / f"{split}.jsonl").open("w", encoding="utf-8") for split in ("dev", "test")
        }
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        for file in self.files.values():
            file.close()
        if kind is not None:
            return
        for side, ends in zip(SIDES, self.ends, strict=True):
            ids = np.fromfile(self.folder / side, np.int32)
            np.save(self.folder / f"train-{side}.npy", ids)
            np.save(self.folder / f"train-{side}-ends.npy", np.array(ends, np.int64))
            (self.folder / side).unlink()

    def write(self, task: Task, advance: Any) -> dict[str, Any]:
        """Write the examples of a task; returns their counts."""
        start, counts = self.total, {"dev": 0, "test": 0}
        cut, unknown, tokens = [0, 0], 0, 0
        held: list[Example] = []

        def training() -> Iterator[Example]:
            for split, example in task.examples():
                if split == "train":
                    yield example
                    continue
                held.append(example)
                for own in ("dev", "test") if split == "dev" and "test" not in task.files else (split,):
                    counts[own] += 1
                    self.files[own].write(to_json(task.name, example) + "\n")

        examples = training()
        while some := list(islice(examples, AT_ONCE)):
            advance(len(some))
            for side, texts in enumerate(([one.input for one in some], [one.targets[0] for one in some])):
                for ids in self.vocabulary.encode_batch(texts):
                    cut[side] += self._add(side, ids)
                    unknown += sum(one == self.vocabulary.unk_id for one in ids)
                    tokens += len(ids)
            self.total += len(some)
        warn_of_new_labels(task, held)
        return {
            "start": start,
            "stop": self.total,
            **counts,
            "cut_inputs": cut[0],
            "cut_targets": cut[1],
            "unknown_rate": unknown / max(tokens, 1),
        }

    def _add(self, side: int, ids: Sequence[int]) -> bool:
        """Append ids and `</s>`; returns whether they were cut."""
        kept = [*ids[: self.limits[side] - 1], self.vocabulary.eos_id]
        ends = self.ends[side]
        ends.append((ends[-1] if ends else 0) + len(kept))
        np.array(kept, np.int32).tofile(self.files[SIDES[side]])
        return len(ids) >= self.limits[side]


def _report(examples: Examples) -> None:
    """Print what became of the rows."""
    for name, own in examples.manifest.facts["tasks"].items():
        info(f"finetune  {name}: {in_words(own)}")
        for side, limit in (("inputs", "input_length"), ("targets", "target_length")):
            if number := own[f"cut_{side}"]:
                length = examples.manifest.inputs[limit]
                what = f"{number:,} {side} are longer than {length} tokens and were cut"
                warn(f"{name}: {what} (finetune.{limit})")
        if (share := own["unknown_rate"]) > UNKNOWN:
            warn(f"{name}: {share:.1%} of the tokens are <unk>: the model cannot read or write them")


UNKNOWN = 0.001
"""A larger share of unknown tokens is reported."""


def in_words(facts: Mapping[str, Any]) -> str:
    """The numbers of examples of a task, and of skipped rows."""
    number = count(facts["stop"] - facts["start"])
    sizes = f"{number} examples to train on, {facts['dev']:,} dev, {facts['test']:,} test"
    skipped = sum(sum(own.values()) for own in facts["skipped"].values())
    return sizes + (f"; {pluralize(skipped, 'row')} skipped" if skipped else "")
