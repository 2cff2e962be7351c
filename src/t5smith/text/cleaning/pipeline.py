"""Cleaning: each document passes through the steps of the recipe, and each step counts what it does."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from t5smith.base.artifact import file_hash
from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.text.cleaning.exclusion import STEP, Exclusions
from t5smith.text.cleaning.filters import document_steps, listed_files
from t5smith.text.document import Document

EXAMPLES = 10
"""Number of dropped documents that are shown per step."""
SHOWN = 300
"""Characters that are shown of each of them."""


@dataclass
class Tally:
    """What one step did.

    Attributes:
      step: its name.
      came: documents that reached it.
      dropped: number of documents it dropped, by reason.
      changed: documents it kept with a changed text.
      examples: the dropped documents with the smallest hashes: an even sample that does not depend on how
        the text is split into tasks.
      entries: of the exclusions, those that dropped a document.
    """

    step: str
    came: int = 0
    changed: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    examples: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    entries: set[int] = field(default_factory=set[int])

    def drop(self, reason: str, document: Document, text: str) -> None:
        """Count a dropped document; `text` is its text before this step."""
        self.dropped[reason] += 1
        key = drawn(document.text)
        if len(self.examples) < EXAMPLES or key < self.examples[-1]["key"]:
            self.show(key, reason, document, text)

    def show(self, key: str, reason: str, document: Document, text: str) -> None:
        """Add an example, if its key is among the smallest."""
        place = {"file": document.file, "line": document.line, "after": document.counted_from}
        place |= {"member": document.member} if document.member else {}
        self._keep([*self.examples, {"key": key, **place, "reason": reason, "text": shortened(text)}])

    def merge(self, facts: Mapping[str, Any]) -> None:
        """Add the counts of the same step on other text, as :meth:`facts` returns them."""
        self.came += facts["came"]
        self.changed += facts["changed"]
        self.dropped.update(facts["dropped"])
        self.entries.update(facts.get("entries", ()))
        self._keep([*self.examples, *facts["examples"]])

    def facts(self) -> dict[str, Any]:
        """The counts as JSON values."""
        counts = {**vars(self), "dropped": dict(sorted(self.dropped.items()))}
        del counts["entries"]
        return counts | ({"entries": sorted(self.entries)} if self.entries else {})

    def told(self) -> dict[str, Any]:
        """The counts for reports: lines are counted from the beginning of their files."""
        examples = [
            {
                "place": Document("", one["file"], one["line"], one["after"], one.get("member", "")).where,
                "reason": one["reason"],
                "text": one["text"],
            }
            for one in self.examples
        ]
        dropped = dict(self.dropped.most_common())
        return {
            "step": self.step,
            "in": self.came,
            "dropped": dropped,
            "changed": self.changed,
            "examples": examples,
        }

    def _keep(self, examples: Iterable[dict[str, Any]]) -> None:
        ordered = sorted(examples, key=lambda one: (one["key"], one["file"], one["after"], one["line"]))
        # Copies of a text count as one example.
        self.examples = list({one["key"]: one for one in reversed(ordered)}.values())[::-1][:EXAMPLES]


def shortened(text: str) -> str:
    """The beginning of a text, with an ellipsis if it is longer."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN].rstrip()}…"


def drawn(text: str) -> str:
    """The hash, as hex, by which examples are chosen."""
    return hashlib.blake2b(text.encode(), digest_size=8, person=b"example").hexdigest()


class Cleaner:
    """The cleaning steps of a recipe that handle one document at a time, and last its exclusions."""

    def __init__(self, recipe: Recipe, exclusions: Exclusions | None = None) -> None:
        """Load what the steps need.

        Raises:
          T5smithError: a package, a model or a list of words is missing.
        """
        steps = recipe.cleaning.document_steps
        self.names = (*steps, STEP) if exclusions else steps
        self._steps = document_steps(recipe.cleaning, recipe.language) if steps else []
        self._exclusions = exclusions

    def tallies(self) -> list[Tally]:
        """Empty counts, one per step."""
        return [Tally(name) for name in self.names]

    def clean(self, document: Document, tallies: Sequence[Tally], split: str = "") -> str | None:
        """The text of a document after all steps, or None if it is dropped. Steps count in `tallies`.

        Args:
          document: with its raw text.
          tallies: as :meth:`tallies` makes them.
          split: `valid` if its file is named in `corpus.valid`: then it is not excluded.
        """
        text = self._cleaned(document, tallies) if self._steps else document.text
        if self._exclusions is None or text is None or split == "valid":
            return text
        tally = tallies[-1]
        tally.came += 1
        if (found := self._exclusions.match(document.text, text)) is None:
            return text
        # The text itself is not shown: it may be one that nobody may keep.
        tally.entries.add(found[0])
        tally.dropped[found[1]] += 1
        return None

    def _cleaned(self, document: Document, tallies: Sequence[Tally]) -> str | None:
        """The text of a document after the cleaning steps, or None if it is dropped."""
        text = document.text
        from datatrove.data import Document as TheirDocument

        theirs = TheirDocument(text=text, id="")
        for step, tally in zip(self._steps, tallies, strict=False):
            tally.came += 1
            if not theirs.text.strip():
                tally.drop("empty", document, text)
                return None
            if reason := step(theirs):
                tally.drop(reason, document, text)
                return None
            if theirs.text != text:
                tally.changed += 1
                text = theirs.text
        return text


def cleaning_inputs(recipe: Recipe, *, duplicates: bool = True) -> dict[str, Any]:
    """All that decides what cleaning and excluding do, for the manifests of artifacts; empty without both.

    The files of `corpus.exclude` are among the inputs of the corpus.

    Args:
      recipe: names the steps.
      duplicates: include the steps that compare documents.

    Raises:
      T5smithError: a file that a step reads is missing.
    """
    settings = recipe.cleaning
    steps = settings.steps if duplicates else settings.document_steps
    tree = settings.model_dump(mode="json")
    excluded: dict[str, Any] = {}
    if recipe.corpus.exclude:
        near = {**tree["near_duplicates"], "words": settings.words, "language": recipe.language}
        excluded[STEP] = near if recipe.corpus.exclude_near_matches else {}
    if not steps:
        return excluded
    own = {name: tree[name] for name in ("words", *steps) if name in tree}
    hashes: dict[str, str] = {}
    for file in listed_files(settings):
        try:
            hashes[str(file)] = file_hash(file)
        except OSError as error:
            raise T5smithError(f"cannot be read ({error.strerror})", where=file) from None
    return excluded | {
        "cleaning": {"steps": list(steps), **own, "recipe_language": recipe.language, "files": hashes}
    }
