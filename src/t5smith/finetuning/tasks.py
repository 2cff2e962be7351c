"""The rows of a task as examples: input, targets, place; what cannot be used is counted or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

import xxhash

from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn
from t5smith.base.wrapping import pluralize
from t5smith.finetuning.rows import Row, Skipped, read_rows, task_files
from t5smith.finetuning.templates import Template
from t5smith.recipe.finetune.settings import TaskSettings
from t5smith.text.formats.columns import shown
from t5smith.text.locations import Location

SplitName = Literal["train", "dev", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "dev", "test")
BY_CLASS = {"accuracy", "f1", "mcc"}
"""Scores of targets that are labels."""
NO_ENTITIES = "none"


@dataclass(frozen=True)
class Example:
    """An input and its right targets, the first of which is trained on.

    Attributes:
      copied: the value of the only column of the input, which a model that learned nothing would write.
      place: file and row.
    """

    input: str
    targets: tuple[str, ...]
    place: str
    copied: str | None = None


@dataclass
class Task:
    """A task and what became of its rows.

    Attributes:
      name, settings: as in the recipe.
      skipped: rows that are not used, by split.
      labels: the targets of `train`, if they are labels: each with the place of its first row.
    """

    name: str
    settings: TaskSettings
    skipped: dict[SplitName, Skipped] = field(default_factory=lambda: {split: Skipped() for split in SPLITS})
    labels: dict[str, str] = field(default_factory=dict[str, str])

    def setting(self, name: str) -> str:
        """The dotted name of a setting, for messages."""
        return f"finetune.tasks.{self.name}.{name}"

    @cached_property
    def templates(self) -> tuple[Template, Template]:
        """Those of input and target."""
        return (
            Template.parse(self.settings.input, self.setting("input")),
            Template.parse(self.settings.target, self.setting("target")),
        )

    @cached_property
    def files(self) -> dict[SplitName, list[Location]]:
        """The files of each split that has some of its own."""
        found: dict[SplitName, list[Location]] = {}
        for split in SPLITS:
            if patterns := getattr(self.settings, split):
                found[split] = task_files(patterns, self.setting(split))
        return found

    @property
    def has_labels(self) -> bool:
        """Whether targets are labels."""
        return bool(self.settings.labels or BY_CLASS & set(self.settings.all_scores))

    def examples(self) -> Iterator[tuple[SplitName, Example]]:
        """All examples, in the order of the files; rows of `train` may be held out for `dev`.

        Raises:
          T5smithError: a column is missing, a target is no label, `train` has one label only, a split is
            empty, or a file cannot be read.
        """
        found: dict[SplitName, int] = dict.fromkeys(SPLITS, 0)
        for split in self.files:
            for example in self._of_files(split):
                own = split
                if split == "train" and "dev" not in self.files and self._is_held_out(example.input):
                    own = "dev"
                if self.has_labels:
                    self._check_label(example, own)
                found[own] += 1
                yield own, example
        self._check_found(found)

    def _of_files(self, split: SplitName) -> Iterator[Example]:
        skipped = self.skipped[split]
        for file in self.files[split]:
            checked = False
            for row in read_rows(file, self.setting(split), skipped):
                row = self._derived(row)
                if not checked:
                    self._check_columns(row)
                    checked = True
                if (example := self._example(row, skipped)) is not None:
                    yield example

    def _example(self, row: Row, skipped: Skipped) -> Example | None:
        inputs, targets = self.templates
        missing = inputs.missing(row) or targets.missing(row)
        if missing is not None:
            skipped.add(f"no {missing!r}", row.place)
            return None
        answers = tuple(dict.fromkeys(text.strip() for text in targets.texts(row) if text.strip()))
        text = " ".join(inputs.texts(row)).strip()
        if not text or not answers:
            skipped.add("empty target" if text else "empty input", row.place)
            return None
        columns = inputs.fields
        copied = " ".join(Template((("", columns[0]),), "").texts(row)) if len(columns) == 1 else None
        return Example(text, answers, row.place, copied)

    def _check_columns(self, row: Row) -> None:
        """Raise T5smithError if the first row of a file does not have a column at all."""
        for template in self.templates:
            for name in template.fields:
                if name not in row.fields and name.split(".")[0] not in row.fields:
                    raise T5smithError(
                        f"there is no column {name!r}, which {template.setting} names",
                        where=row.place,
                        expected=f"one of {shown(list(row.fields))}",
                        fix=f"correct {template.setting}",
                    )

    def _derived(self, row: Row) -> Row:
        """The row, with `text` and `entities` made of lists of tokens and tags."""
        if self.settings.preset != "entities" or "entities" in row.fields:
            return row
        tokens, tags = row.value("tokens"), row.value("tags")
        if not isinstance(tokens, list) or not isinstance(tags, list):
            return row
        words, kinds = cast("list[Any]", tokens), cast("list[Any]", tags)
        if len(words) != len(kinds) or not all(isinstance(kind, str) for kind in kinds):
            what = (
                f"{len(words)} tokens and {len(kinds)} tags"
                if len(words) != len(kinds)
                else "tags are no names"
            )
            expected = "a tag such as B-PER, I-PER or O for each token"
            raise T5smithError(what, where=row.place, expected=expected)
        fields = {**row.fields, "text": " ".join(map(str, words)), "entities": entities_of(words, kinds)}
        return Row(fields, row.place)

    def _is_held_out(self, text: str) -> bool:
        return xxhash.xxh64_intdigest(text.encode()) < self.settings.held_out_fraction * 2**64

    def _check_label(self, example: Example, split: SplitName) -> None:
        label, known = example.targets[0], self.settings.labels
        if known and label not in known:
            raise T5smithError(
                f"the target {label!r} is none of the labels",
                where=example.place,
                expected=f"one of {', '.join(known)}",
                fix=f"correct the row or {self.setting('labels')}",
            )
        if split == "train":
            self.labels.setdefault(label, example.place)

    def _check_found(self, found: dict[SplitName, int]) -> None:
        if self.settings.test == ():
            found["test"] = found["dev"]
        for split, number in found.items():
            if number:
                continue
            own = split in self.files
            total = sum(self.skipped[split].counts.values())
            skipped = f"; {pluralize(total, 'row')} skipped" if total else ""
            fix = None if own else "add rows, raise held_out_fraction, or name files of `dev`"
            where = self.setting(split if own else "train")
            raise T5smithError(f"no example for {split}{skipped}", where=where, fix=fix)
        if self.has_labels and len(self.labels) == 1:
            label, place = next(iter(self.labels.items()))
            raise T5smithError(
                f"all targets of train are {label!r}",
                where=f"{place} and below",
                expected="two labels or more",
                fix=f"correct {self.setting('target')} or the files",
            )

    def facts(self) -> dict[str, Any]:
        """What the manifest says of its rows."""
        facts: dict[str, Any] = {
            "skipped": {split: own.counts for split, own in self.skipped.items() if own.counts}
        }
        return facts | ({"labels": sorted(self.labels)} if self.has_labels else {})


def warn_of_new_labels(task: Task, examples: Sequence[Example]) -> None:
    """Warn of labels that train does not have: the model can hardly write them."""
    new = {one.targets[0]: one.place for one in examples if one.targets[0] not in task.labels}
    if task.has_labels and new:
        label, place = next(iter(new.items()))
        warn(f"{place}: the label {label!r} is not among those of train; {pluralize(len(new), 'such label')}")


def entities_of(tokens: Sequence[Any], tags: Sequence[str]) -> str:
    """Names in a text by their tags, in order: "PER: Ola Nordmann; LOC: Oslo", or "none".

    Tags are those of IOB2; an I- without the same type before it begins a name, as in CoNLL's script.
    """
    found: list[tuple[str, list[str]]] = []
    before = "O"
    for token, tag in zip(tokens, tags, strict=True):
        kind = tag.partition("-")[2]
        if tag.startswith("B-") or (tag.startswith("I-") and before.partition("-")[2] != kind):
            found.append((kind, [str(token)]))
        elif tag.startswith("I-"):
            found[-1][1].append(str(token))
        before = tag
    return "; ".join(f"{kind}: {' '.join(words)}" for kind, words in found) or NO_ENTITIES


def to_json(task: str, example: Example) -> str:
    """A line of the files of `dev` and `test`."""
    return json.dumps({"task": task, **vars(example)}, ensure_ascii=False)
