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
    """

    step: str
    came: int = 0
    changed: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    examples: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

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
        self._keep([*self.examples, *facts["examples"]])

    def facts(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {**vars(self), "dropped": dict(sorted(self.dropped.items()))}

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
    """The cleaning steps of a recipe that handle one document at a time."""

    def __init__(self, recipe: Recipe) -> None:
        """Load what the steps need.

        Raises:
          T5smithError: a package, a model or a list of words is missing.
        """
        self.names = recipe.cleaning.document_steps
        self._steps = document_steps(recipe.cleaning, recipe.language) if self.names else []

    def tallies(self) -> list[Tally]:
        """Empty counts, one per step."""
        return [Tally(name) for name in self.names]

    def clean(self, document: Document, tallies: Sequence[Tally]) -> str | None:
        """The text of a document after all steps, or None if it is dropped. Steps count in `tallies`."""
        text = document.text
        if not self._steps:
            return text
        from datatrove.data import Document as TheirDocument

        theirs = TheirDocument(text=text, id="")
        for step, tally in zip(self._steps, tallies, strict=True):
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
    """All that decides what cleaning does, for the manifests of artifacts; empty without steps.

    Args:
      recipe: names the steps.
      duplicates: include the steps that compare documents.

    Raises:
      T5smithError: a file that a step reads is missing.
    """
    settings = recipe.cleaning
    steps = settings.steps if duplicates else settings.document_steps
    if not steps:
        return {}
    tree = settings.model_dump(mode="json")
    own = {name: tree[name] for name in ("words", *steps) if name in tree}
    hashes: dict[str, str] = {}
    for file in listed_files(settings):
        try:
            hashes[str(file)] = file_hash(file)
        except OSError as error:
            raise T5smithError(f"cannot be read ({error.strerror})", where=file) from None
    return {"cleaning": {"steps": list(steps), **own, "recipe_language": recipe.language, "files": hashes}}
