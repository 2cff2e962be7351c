"""The text in a folder and all folders below it: their files, or the data set that a folder is."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from t5smith.base.wrapping import pluralize
from t5smith.text.folders.cards import has_card
from t5smith.text.folders.notes import FolderNotes
from t5smith.text.folders.saved import SAVED, SAVED_SPLITS, saved_files
from t5smith.text.folders.side_files import LISTING, is_listing, side_file, side_folder
from t5smith.text.globs import is_regular, walk
from t5smith.text.hub import cloned_files

_SHARD = re.compile(r"(?:.*[-_.])?(?P<split>[A-Za-z]\w*?)[-.]\d{5}-of-\d{5}\..+")
"""A file of a split as `push_to_hub` names it."""
_SPLIT = re.compile(
    r"(?:.*[-_.])?(train|training|test|testing|valid|validation|val|dev|eval)(?:[-_.].*)?", re.I
)
_TRAIN = ("train", "training")


def text_files(folder: Path, field: str, notes: FolderNotes) -> Iterator[Path]:
    """The files with text in a folder. Of a folder that is a data set, those of its split `train`.

    Args:
      folder: where they are.
      field: the recipe's field, for messages.
      notes: gets what is not read.

    Raises:
      T5smithError: a folder cannot be read, a link leads nowhere, or a data set is damaged or has no split
        `train`.
    """
    for name, folders, names in walk(os.fspath(folder)):
        place = Path(name)
        if (found := _data_set(place, names, field)) is not None:
            part, files = found
            notes.data_sets[name] = f"{part} ({pluralize(len(files), 'file')})"
            _note_others(place, set(files), notes)
            folders.clear()
            yield from files
            continue
        _note_mixed_splits(name, [*folders, *names], notes)
        _note_folders(name, folders, notes)
        for file in map(place.joinpath, _of_split_train(name, names, notes)):
            if not _note_side_file(file, notes) and is_regular(file):
                yield file


def remote_text_files(names: Sequence[str], notes: FolderNotes) -> list[str]:
    """The files with text of a folder behind a URL, by their names: to look into each takes a request.

    Args:
      names: of all files below the folder.
      notes: gets what is not read.
    """
    found: list[str] = []
    for place, own in itertools.groupby(names, lambda name: name.rpartition("/")[0]):
        for name in _of_split_train(place, [name.rpartition("/")[2] for name in own], notes):
            path = f"{place}/{name}"
            if kind := side_file(name) or next(filter(None, map(side_folder, path.split("/")[1:-1])), ""):
                notes.side_files[path] = kind
            else:
                found.append(path)
    return found


def _data_set(place: Path, names: Sequence[str], field: str) -> tuple[str, list[Path]] | None:
    """What is read of a folder that is a data set, in words, and its files; None: it is none."""
    if SAVED_SPLITS in names:
        return "its split train is read", saved_files(place, field)
    if all(name in names for name in SAVED):
        return "it is read as `datasets` saved it", saved_files(place, field)
    if has_card(place, names) and (files := cloned_files(place, field)) is not None:
        return "its split train is read", files
    return None


def _note_others(place: Path, read: set[Path], notes: FolderNotes) -> None:
    """Note the files of a data set that are not read."""
    for name, folders, names in walk(os.fspath(place)):
        _note_folders(name, folders, notes)
        for file in (Path(name, one) for one in names):
            if file not in read and not _note_side_file(file, notes) and not _is_description(file):
                match = _SHARD.fullmatch(file.name) or _SPLIT.fullmatch(file.stem)
                notes.others[str(file)] = f"split {match[1]}" if match else "others"


def _is_description(file: Path) -> bool:
    """Whether a file belongs to a saved data set without being text."""
    return file.name in SAVED or file.name.startswith("cache-")


def _note_folders(place: str, folders: list[str], notes: FolderNotes) -> None:
    """Leave out the folders without text."""
    for name in list(folders):
        if kind := side_folder(name):
            notes.side_files[os.path.join(place, name, "")] = kind
            folders.remove(name)


def _note_side_file(file: Path, notes: FolderNotes) -> bool:
    kind = side_file(file.name) or (LISTING if is_listing(file) else "")
    if kind:
        notes.side_files[str(file)] = kind
    return bool(kind)


def _of_split_train(place: str, names: Sequence[str], notes: FolderNotes) -> Iterator[str]:
    """The files of a folder. Beside shards of a split `train`, those of other splits are skipped."""
    splits = {name: match["split"].lower() for name in names if (match := _SHARD.fullmatch(name))}
    training = sum(split in _TRAIN for split in splits.values())
    if training and training < len(splits):
        notes.data_sets[place] = f"its split train is read ({pluralize(training, 'file')})"
    for name in names:
        if training and splits.get(name, "train") not in _TRAIN:
            notes.others[os.path.join(place, name)] = f"split {splits[name]}"
        else:
            yield name


def _note_mixed_splits(place: str, names: Sequence[str], notes: FolderNotes) -> None:
    """Note a folder with `train.jsonl` and `test.jsonl`: they may be meant for different things."""
    found: dict[str, str] = {}
    for name in names:
        if not side_file(name) and not _SHARD.fullmatch(name) and (match := _SPLIT.fullmatch(name)):
            found.setdefault("train" if match[1].lower() in _TRAIN else match[1].lower(), name)
    if "train" in found and len(found) > 1:
        notes.mixed_splits[place] = sorted(found.values())
