"""The corpora that a recipe names: their files, which of them are held out, and their weights."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.recipe.corpus import CorpusSettings, split_name
from t5smith.text.files import find_pattern
from t5smith.text.fingerprints import HashCache, fingerprint_files
from t5smith.text.folders.notes import FolderNotes
from t5smith.text.locations import Location, RemoteFile, RowRange, split_row_range
from t5smith.text.recognition import UnreadableFileError, file_format

SplitName = Literal["train", "valid"]
Corpora = Mapping[str, Sequence[Location]]
"""The files of each corpus by its name, in order; a single corpus without a name is named ""."""


@dataclass(frozen=True)
class CorpusFiles:
    """The files of a recipe's corpora. They are found once, and handed to all that reads text.

    Attributes:
      settings: the recipe's.
      train: the corpora to train on.
      valid: the corpora that are held out; empty: documents of `train` are held out by their hash.
      notes: what is not read of the folders that were named.
      exclude: files of texts, or of hashes of texts, that are not trained on.
    """

    settings: CorpusSettings
    train: Corpora
    valid: Corpora
    notes: FolderNotes = field(default_factory=FolderNotes, compare=False)
    exclude: Sequence[Location] = ()
    _hashes: HashCache = field(default_factory=HashCache, repr=False, compare=False)

    @classmethod
    def find(cls, settings: CorpusSettings) -> CorpusFiles:
        """Find the files that settings name, and print what is not read of folders.

        Raises:
          T5smithError: a file, or a row of one, is in both splits or excluded; `valid_format` is set without
            `valid`; or as :func:`find_corpora`.
        """
        if settings.valid_format is not None and not settings.valid:
            fix = "name held-out text in corpus.valid, or remove it"
            raise T5smithError("there are no files in this format", where="corpus.valid_format", fix=fix)
        with phase("text", "looking for files", at_once=False):
            notes = FolderNotes()
            train = find_corpora(settings.train, "corpus.train", notes, settings)
            of_valid = settings.of_split("valid")
            valid = find_corpora(settings.valid, "corpus.valid", notes, of_valid) if settings.valid else {}
            exclude = find_files(settings.exclude, "corpus.exclude") if settings.exclude else []
        seen = _Seen()
        for name, files in train.items() if valid or exclude else ():
            for file in files:
                seen.add(file, name)
        for file in itertools.chain.from_iterable(valid.values()):
            if before := seen.overlapping(file):
                alias = "" if str(before.location) == str(file) else f" as {before.location}"
                fix = "name other text, or remove corpus.valid: some documents are held out then"
                raise T5smithError(f"{file} is in corpus.train too{alias}", where="corpus.valid", fix=fix)
        for file in exclude:
            if seen.overlapping(file):
                fix = "move it out of the folder of the text, or name the text without it"
                raise T5smithError(f"{file} is in corpus.train too", where="corpus.exclude", fix=fix)
        found = cls(settings, train, valid, notes, exclude)
        notes.forget({str(file) for split in (train, valid) for files in split.values() for file in files})
        notes.report()
        return found

    def files(self, split: SplitName) -> list[Location]:
        """The files named for a split, one corpus after the other."""
        corpora = self.train if split == "train" else self.valid
        return [file for files in corpora.values() for file in files]

    def inputs(self) -> dict[str, Any]:
        """All that decides which documents there are and in which split, for the manifests of artifacts.

        A file is hashed if it is new or has changed since it was hashed before; see :class:`HashCache`.

        Raises:
          T5smithError: a file is missing or cannot be read.
        """
        settings = self.settings
        inputs: dict[str, Any] = {
            "train": fingerprint_files(self.files("train"), self._hashes),
            "format": settings.format,
            "document": settings.document,
            "text_field": settings.text_field,
            "longest_document": settings.longest_document,
        }
        if self.exclude:
            inputs["exclude"] = fingerprint_files(self.exclude, self._hashes)
        # Fingerprints do not show which files are of which corpus.
        if any(self.train):
            inputs["corpora"] = [[name, len(files)] for name, files in self.train.items()]
        # Only if it is set, so that stores of earlier versions stay valid.
        if settings.valid_format is not None:
            inputs["valid_format"] = settings.valid_format
        if not settings.valid:
            return inputs | {"held_out_fraction": settings.held_out_fraction}
        inputs["valid"] = fingerprint_files(self.files("valid"), self._hashes)
        if any(self.valid):
            inputs["valid_corpora"] = [[name, len(files)] for name, files in self.valid.items()]
        return inputs


def find_corpora(
    patterns: Sequence[str],
    field: str,
    notes: FolderNotes | None = None,
    settings: CorpusSettings | None = None,
) -> dict[str, list[Location]]:
    """The files of each named corpus, as `nb=texts/nb nn=texts/nn`; without names there is one, named "".

    Several patterns may have the same name. A file whose name has such a beginning is written `./nb=…`.

    Args:
      patterns: as in `corpus.train`.
      field: the recipe's field, for messages.
      notes: gets what is not read of folders.
      settings: if given, each pattern must have a file of a format that can be read.

    Raises:
      T5smithError: no pattern at all; only some have a name; a file is in two corpora; rows of a file are
        named twice; nothing matches a pattern, or nothing readable; the name of a file cannot be used.
    """
    by_name: dict[str, list[str]] = {}
    for pattern in patterns:
        name, pattern = split_name(pattern)
        by_name.setdefault(name, []).append(pattern)
    if "" in by_name and len(by_name) > 1:
        raise T5smithError(
            f"{by_name[''][0]!r} has no name, but other texts do",
            where=field,
            fix="name every corpus as in nb=texts/nb, or none; a path with = in it is written ./k=v/a.txt",
        )
    if not patterns:
        fix = f"name a file, a folder, a glob, or `bundled:norwegian`, in a recipe or after --{field}"
        raise T5smithError("no text is named", where=field, expected="at least one file or folder", fix=fix)
    found: dict[str, list[Location]] = {name: [] for name in by_name}
    seen = _Seen()
    for name, patterns in by_name.items():
        of_name = [find_pattern(pattern, name, field, notes) for pattern in patterns]
        if settings is not None:
            for files in of_name:
                _raise_if_unreadable(files, settings)
        for file in itertools.chain.from_iterable(of_name):
            before = seen.overlapping(file)
            if before is None:
                seen.add(file, name)
                found[name].append(file)
            elif _row_bounds(before.location) != _row_bounds(file):
                what = f"{before.location} and {file} have rows in common"
                raise T5smithError(what, where=field, fix="name every row once")
            elif before.corpus != name:
                raise T5smithError(f"{file} is in two corpora, {before.corpus} and {name}", where=field)
    return found


def _raise_if_unreadable(files: Sequence[Location], settings: CorpusSettings) -> None:
    """Raise if no file of a pattern is of a format that can be read. The first that is ends the search."""
    first: T5smithError | None = None
    for file in files:
        try:
            file_format(settings, split_row_range(str(file))[0])
        except UnreadableFileError as error:
            first = first or error
        else:
            return
    if first is not None:
        what = first.what if len(files) == 1 else f"none of {len(files):,} files can be read: {first.what}"
        raise T5smithError(what, where=first.where, expected=first.expected, fix=first.fix)


def find_files(patterns: Sequence[str], field: str) -> list[Location]:
    """The files of all corpora that patterns name, one corpus after the other; see :func:`find_corpora`."""
    return [file for files in find_corpora(patterns, field).values() for file in files]


def named_weights(settings: CorpusSettings) -> dict[str, float]:
    """The weight of each named corpus, as `nb=2 nn=1`; empty if no weights are set.

    Raises:
      T5smithError: a weight is not a positive number; there is not exactly one for each named corpus; a
        temperature is set as well.
    """
    where, expected = "corpus.weights", "NAME=NUMBER for each corpus in corpus.train, as nb=2 nn=1"
    weights: dict[str, float] = {}
    for entry in settings.weights:
        name, _, number = entry.partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = 0.0
        if not 0 < weight < float("inf") or name in weights:
            raise T5smithError(f"{entry!r} cannot be used", where=where, expected=expected)
        weights[name] = weight
    if weights:
        names = [name for pattern in settings.train if (name := split_name(pattern)[0])]
        if set(names) != weights.keys():
            corpora = ", ".join(dict.fromkeys(names)) or "unnamed"
            what = f"weights for {', '.join(weights)}, but the corpora are {corpora}"
            raise T5smithError(what, where=where, expected=expected)
        if settings.temperature != 1:
            raise T5smithError("both weights and a temperature are set", where=where, expected="one of them")
    return weights


class _RealPaths:
    """Paths without links. Each folder is resolved once: it may have many files."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def of(self, file: Location) -> str:
        if isinstance(file, RowRange):
            return self.of(file.file)
        if isinstance(file, RemoteFile):
            return file.url
        if file.is_symlink():
            return os.path.realpath(file)
        folder, name = os.path.split(file)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)


@dataclass(frozen=True)
class _Named:
    """A file or some of its rows, and the corpus that it belongs to."""

    location: Location
    corpus: str


class _Seen:
    """Files seen so far, by their real path, to find one that is named again."""

    def __init__(self) -> None:
        self._paths = _RealPaths()
        self._named: dict[str, list[_Named]] = {}

    def add(self, file: Location, corpus: str) -> None:
        self._named.setdefault(self._paths.of(file), []).append(_Named(file, corpus))

    def overlapping(self, file: Location) -> _Named | None:
        """A location seen before that is the same file, or has rows in common with it."""
        start, stop = _row_bounds(file)
        for named in self._named.get(self._paths.of(file), ()):
            first, end = _row_bounds(named.location)
            if start < end and first < stop:
                return named
        return None


def _row_bounds(file: Location) -> tuple[float, float]:
    return (file.start, file.stop) if isinstance(file, RowRange) else (0, float("inf"))
