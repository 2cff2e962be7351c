"""A run folder: the steps that are trained in it, what was archived, and what may replace what.

Training takes days. Its checkpoints, and the vocabulary and store that they need, stay in place until the
user says otherwise: a recipe that would replace them is an error that names every changed setting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from t5smith.base.artifact import (
    MANIFEST,
    PREVIOUS,
    UNFINISHED,
    Manifest,
    disk_errors,
    find_up_to_date,
    fingerprint,
    read_manifest,
    set_aside,
)
from t5smith.base.errors import T5smithError, TrainingAtStake
from t5smith.base.progress import info, warn

TRAIN = "train"
CHECKPOINTS = "checkpoints"
SETTINGS = "settings.json"
PREFIX = "step-"
VERSIONS = {"method", "import", "format"}
"""Inputs that count how t5smith works, at the top level. They are nothing that a user has changed."""
SHOWN = 40
"""Characters of a value in a message; a longer one is only named."""


def saved_steps(folder: Path) -> list[int]:
    """Steps of the finished checkpoints in a folder of checkpoints, oldest first."""
    names = (path.name for path in folder.glob(f"{PREFIX}*") if path.is_dir())
    return sorted(int(name[len(PREFIX) :]) for name in names if name[len(PREFIX) :].isdecimal())


def checkpoint_folder(folder: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` steps, in a folder of checkpoints."""
    return folder / f"{PREFIX}{step:08d}"


def trained_steps(folder: Path) -> int:
    """The step of the newest checkpoint in a run folder; 0 without one."""
    return max(saved_steps(folder / TRAIN / CHECKPOINTS), default=0)


def recorded_inputs(folder: Path) -> dict[str, Any]:
    """The inputs of the training in a folder `train`, from its settings file or its newest checkpoint.

    Raises:
      T5smithError: neither can be read.
    """
    try:
        found = cast("object", json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
        if isinstance(found, dict) and isinstance(found.get("train"), dict):
            return cast("dict[str, Any]", found)
    except (OSError, ValueError):
        pass
    for step in reversed(saved_steps(folder / CHECKPOINTS)):
        try:
            place = checkpoint_folder(folder / CHECKPOINTS, step)
            return read_manifest(place, "checkpoint", check_hashes=False).inputs
        except T5smithError:
            continue
    raise T5smithError(
        "missing or damaged, and so is every checkpoint",
        where=folder / SETTINGS,
        fix="restore the folder from a copy, or use --restart to begin again",
    )


def is_needed(folder: Path, found: Manifest) -> bool:
    """Whether the trained steps of a run folder were made with this vocabulary or store, or may have been.

    One that was made in the place of a lost one is not needed.
    """
    try:
        store = recorded_inputs(folder / TRAIN).get("store")
        if found.kind == "store":
            return store in (None, found.key)
        made = read_manifest(folder / "store", "store", check_hashes=False)
    except T5smithError:
        return True
    return made.key != store or made.inputs["vocab"] == found.files["tokenizer.json"]["sha256"]


def archive_training(folder: Path) -> Path | None:
    """Move `train` of a run folder to `previous/`; returns its new place, or None if there is none."""
    with disk_errors(folder):
        kept = set_aside(folder / TRAIN)
    if kept is not None and (steps := max(saved_steps(kept / CHECKPOINTS), default=0)):
        info(f"train     {steps:,} trained steps are archived in {kept}")
    return kept


def up_to_date(
    folder: Path, kind: str, inputs: Mapping[str, Any], *, restart: bool = False
) -> Manifest | None:
    """The manifest of an artifact that need not be made again; None if it must be made.

    While there are trained steps, an artifact that they need is kept, also if a newer t5smith would make
    it in another way.

    Args:
      folder: `vocab` or `store` in a run folder.
      kind: the artifact's kind.
      inputs: what the recipe would make it from.
      restart: archive the trained steps if they need another artifact than the recipe's.

    Raises:
      TrainingAtStake: there are trained steps, and the inputs differ.
    """
    found = find_up_to_date(folder, kind, fingerprint(inputs))
    if found or not trained_steps(folder.parent) or not (folder / MANIFEST).is_file():
        return found
    try:
        found = read_manifest(folder, kind)
    except T5smithError:
        # It is damaged, and is made again from the same inputs. If they differ, training will notice.
        return None
    if not is_needed(folder.parent, found):
        return None
    changes = differences(found.inputs, inputs)
    if not changes:
        warn(f"{folder}: made by another version of t5smith; kept for the steps that are trained with it")
        return found
    if not restart:
        raise TrainingAtStake(folder.parent, trained_steps(folder.parent), changes)
    archive_training(folder.parent)
    return None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ between two inputs of an artifact, each as `name old → new`."""
    # A manifest has lists where settings have tuples.
    before, now = (json.loads(json.dumps(one)) for one in (before, now))
    old, new = (_flat({k: v for k, v in one.items() if k not in VERSIONS}) for one in (before, now))
    if ("import" in before) != ("import" in now):
        return ["vocab.tokenizer"]
    names = [name for name in {**old, **new} if old.get(name, ...) != new.get(name, ...)]
    for split, corpora in (("train", "corpora"), ("valid", "valid_corpora")):
        if f"corpus.{split}" in names and f"corpus.{corpora}" in names:
            names.remove(f"corpus.{corpora}")  # how many files each corpus has follows
    # A table that is new or gone as a whole is named by its first setting.
    return list(dict.fromkeys(_describe(name, old, new) for name in names))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _describe(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    table = name.partition(".")[0]
    if table == "cleaning" and not (
        any(key.startswith("cleaning.") for key in old) and any(key.startswith("cleaning.") for key in new)
    ):
        name = "cleaning.steps"
    before, after = old.get(name), new.get(name)
    if name in ("corpus.train", "corpus.valid", "corpus.exclude"):
        return f"{name} {_changed_files(before or [], after or [])}"
    if name in ("corpus.corpora", "corpus.valid_corpora"):
        return "names of the corpora"
    if name == "tokenizer":
        return "vocab.tokenizer, whose content has changed"
    if name == "vocab":
        return "another vocabulary"
    shown = [json.dumps(value, ensure_ascii=False) for value in (before, after)]
    if max(map(len, shown)) > SHOWN:
        return name
    shown = ["none" if text == "null" else text for text in shown]
    return f"{name} {shown[0]} → {shown[1]}"


def _changed_files(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> str:
    """Which files of a corpus were added, removed or changed."""
    old, new = ({one["name"]: one for one in files} for files in (before, now))
    kinds = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and old[name] != new[name]],
    }
    parts = [
        f"{names[0]} {kind}" if len(names) == 1 else f"{len(names)} files {kind}"
        for kind, names in kinds.items()
        if names
    ]
    return f"({', '.join(parts) or 'files in another order'})"


@dataclass(frozen=True)
class Archive:
    """A folder in `previous/`.

    Attributes:
      folder: its place.
      size: bytes of its files.
      steps: trained steps in it; 0 if it is not a training.
    """

    folder: Path
    size: int
    steps: int


def archives(folder: Path) -> list[Archive]:
    """What a run folder has in `previous/`, by name."""
    shelf = folder / PREVIOUS
    places = sorted(place for place in shelf.iterdir() if place.is_dir()) if shelf.is_dir() else []
    return [
        Archive(
            place,
            sum(file.stat().st_size for file in place.rglob("*") if file.is_file()),
            max(saved_steps(place / CHECKPOINTS), default=0),
        )
        for place in places
        if not place.name.endswith(UNFINISHED)
    ]
