"""From names in a recipe to files: files, folders and globs, corpora with names, and their weights."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from t5smith.corpus.hub import PREFIX, hub_files, is_saved, saved_files
from t5smith.corpus.places import Place, is_url, remote_files
from t5smith.errors import T5smithError
from t5smith.recipe import CorpusSettings

SAMPLES = Path(__file__).parents[1] / "samples"
BUNDLED = "bundled:"
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)=(.+)")


def corpora(patterns: Sequence[str], field: str) -> dict[str, list[Place]]:
    """The files of each named corpus, as `nb=texts/nb nn=texts/nn`; without names there is one, named "".

    Several patterns may have the same name. A file whose name has such a beginning is written `./nb=…`.

    Raises:
      T5smithError: some patterns have a name and some do not, a file is in two corpora, or as `resolve`.
    """
    by_name: dict[str, list[str]] = {}
    for pattern in patterns:
        name, own = _name_and_pattern(pattern)
        by_name.setdefault(name, []).append(own)
    if "" in by_name and len(by_name) > 1:
        raise T5smithError(
            f"{by_name[''][0]!r} has no name, but other texts do",
            where=field,
            fix="name every corpus as in nb=texts/nb, or none",
        )
    names = _RealNames()
    files = {name: _resolve(own, field, names) for name, own in (by_name or {"": ()}).items()}
    owner: dict[str, str] = {}
    for name, own in files.items():
        for real, file in own.items():
            if owner.setdefault(real, name) != name:
                raise T5smithError(f"{file} is in two corpora, {owner[real]} and {name}", where=field)
    return {name: list(own.values()) for name, own in files.items()}


def named_weights(corpus: CorpusSettings) -> dict[str, float]:
    """The weight of each named corpus, as `nb=2 nn=1`; none if none are given.

    Raises:
      T5smithError: not a positive number, or not exactly one for each named corpus, or a temperature besides.
    """
    where, expected = "corpus.weights", "NAME=NUMBER for each corpus in corpus.train, as nb=2 nn=1"
    weights: dict[str, float] = {}
    for entry in corpus.weights:
        name, _, number = entry.partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = 0.0
        if not 0 < weight < float("inf") or name in weights:
            raise T5smithError(f"{entry!r} cannot be used", where=where, expected=expected)
        weights[name] = weight
    if weights:
        names = [name for pattern in corpus.train if (name := _name_and_pattern(pattern)[0])]
        if set(names) != weights.keys():
            corpora = ", ".join(dict.fromkeys(names)) or "unnamed"
            raise T5smithError(
                f"weights for {', '.join(weights)}, but the corpora are {corpora}",
                where=where,
                expected=expected,
            )
        if corpus.temperature != 1:
            raise T5smithError("weights and a temperature are given", where=where, expected="one of the two")
    return weights


def _name_and_pattern(pattern: str) -> tuple[str, str]:
    """`nb=texts/nb` in its two parts; a pattern without a name has the name ""."""
    named = _NAMED.fullmatch(pattern)
    return (named[1], named[2]) if named else ("", pattern)


def resolve(patterns: Sequence[str], field: str) -> list[Place]:
    """The files of all corpora that patterns name, one corpus after the other; see :func:`corpora`."""
    return [file for files in corpora(patterns, field).values() for file in files]


def _resolve(patterns: Sequence[str], field: str, names: _RealNames) -> dict[str, Place]:
    """The files that names stand for: sorted within a folder or glob, hidden ones left out, none twice.

    Args:
      patterns: files, folders (searched to the bottom), globs (`**` too), `bundled:PATTERN`, URLs,
        data sets as `hf:NAME:CONFIG:SPLIT`.
      field: the recipe's field, for messages.
      names: tells whether two files are one.

    Raises:
      T5smithError: no pattern at all, a name that is not there, a pattern or folder without files.
    """
    if not patterns:
        fix = "name a file, a folder, a glob, or `bundled:norwegian`"
        raise T5smithError("no text is named", where=field, expected="at least one file or folder", fix=fix)
    found: dict[str, Place] = {}
    for pattern in patterns:
        files = list(_places(pattern, field))
        if not files:
            raise T5smithError(f"no file in {pattern!r}", where=field, expected="at least one file with text")
        for file in files:
            found.setdefault(names.of(file), file)
    return found


class _RealNames:
    """What files are called without links. Of each folder that is found out once: there may be many files."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def of(self, file: Place) -> str:
        if not isinstance(file, Path):
            return str(file)
        if file.is_symlink():
            return os.path.realpath(file)
        folder, name = os.path.split(file)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)


def _places(pattern: str, field: str) -> Sequence[Place]:
    if pattern.startswith(PREFIX) and not is_url(pattern):
        return hub_files(pattern, field)
    if is_url(pattern):
        return list(remote_files(pattern, field))
    return sorted(_matching(pattern, field))


def _matching(pattern: str, field: str) -> Iterator[Path]:
    bundled = pattern.startswith(BUNDLED)
    place = SAMPLES / pattern.removeprefix(BUNDLED) if bundled else Path(pattern).expanduser()
    if os.path.exists(place):
        matches = [place]
    elif glob.has_magic(str(place)):
        matches = [Path(match) for match in glob.glob(str(place), recursive=True)]
    elif bundled:
        known = ", ".join(
            sorted(BUNDLED + path.name for path in SAMPLES.iterdir() if list(path.glob("*.txt.*")))
        )
        raise T5smithError(f"{pattern!r} does not come with t5smith", where=field, expected=known)
    else:
        fix = "check the spelling; a relative name starts from the folder you are in"
        raise T5smithError(f"there is no file or folder {pattern!r}", where=field, fix=fix)
    for match in matches:
        if match.is_dir() and is_saved(match):
            yield from saved_files(match, "train", field)
            continue
        for file in _below(match) if match.is_dir() else [match]:
            if not bundled or ".txt" in file.suffixes:
                yield file


def _below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise T5smithError("cannot read this folder", where=error.filename, expected="permission to read it")

    seen = {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        new = {os.path.realpath(os.path.join(place, name)): name for name in folders if name[0] != "."}
        folders[:] = [name for real, name in new.items() if real not in seen]  # a loop of links ends
        seen |= new.keys()
        yield from (Path(place) / name for name in names if not name.startswith("."))
