"""The licence of the model that a training continued from, as its own model card names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t5smith.training.setup import Setup

LARGEST = 10_000_000
"""Bytes of the largest card that is read."""
LONGEST = 100
"""Characters of a licence's name that are shown."""


@dataclass(frozen=True)
class SourceCard:
    """What is known of the licence of a model.

    Attributes:
      license: its name; "" if it is not known.
      missing: why it is not known.
    """

    license: str = ""
    missing: str = ""


def source_card(setup: Setup) -> SourceCard | None:
    """The card of the model that a training continued from; None if it began with random weights."""
    if not setup.recipe.train.init_from:
        return None
    if setup.source is None:
        return SourceCard(missing="it was not found any more")
    return read_card(setup.source.path)


def read_card(folder: Path) -> SourceCard:
    """The licence in the front matter of a folder's README.md, as models on the Hub have it."""
    import huggingface_hub

    path = folder / "README.md"
    if not path.is_file():
        return SourceCard(missing="it has no model card (README.md)")
    try:
        fields = huggingface_hub.metadata_load(path) if path.stat().st_size <= LARGEST else None
    except Exception:  # whatever YAML's library raises
        fields = None
    if not isinstance(fields, dict):
        return SourceCard(missing="its model card has no front matter that can be read")
    names = fields.get("license")
    names = names if isinstance(names, list) else [names]
    if names == ["other"]:
        names = [fields.get("license_name"), fields.get("license_link")]
    found = [_plain(name) for name in names if isinstance(name, str)]
    if not any(found):
        return SourceCard(missing="its model card names none")
    return SourceCard(", ".join(filter(None, found)))


def _plain(name: str) -> str:
    """One short line without marks of Markdown: the card of another is no text to trust."""
    kept = "".join(mark if mark.isalnum() or mark in "-.+_:/ " else " " for mark in name)
    return " ".join(kept.split())[:LONGEST]
