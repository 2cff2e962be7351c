"""From names in a recipe to files: files, folders and globs, corpora with names, and their weights."""

from __future__ import annotations

import glob
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.globs import below, matching, mode
from t5smith.text.hub import PREFIX, hub_files, is_saved, saved_files
from t5smith.text.locations import Place, Remote, Rows, is_url, local, remote_files, without_rows

SAMPLES = Path(__file__).parent / "samples"
BUNDLED = "bundled:"
LOCAL = ("file", "local")
"""Schemes of URLs that are paths."""
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)=(.+)")


def corpora(patterns: Sequence[str], field: str) -> dict[str, list[Place]]:
    """The files of each named corpus, as `nb=texts/nb nn=texts/nn`; without names there is one, named "".

    Several patterns may have the same name. A file whose name has such a beginning is written `./nb=…`.

    Raises:
      T5smithError: no pattern at all, some have a name and some do not, a file is in two corpora, rows of
        one are named twice, a pattern is not there, has no files, or one whose name cannot be used.
    """
    by_name: dict[str, list[str]] = {}
    for pattern in patterns:
        name, own = _name_and_pattern(pattern)
        by_name.setdefault(name, []).append(own)
    if "" in by_name and len(by_name) > 1:
        raise T5smithError(
            f"{by_name[''][0]!r} has no name, but other texts do",
            where=field,
            fix="name every corpus as in nb=texts/nb, or none; a path with = in it is written ./k=v/a.txt",
        )
    if not patterns:
        fix = "name a file, a folder, a glob, or `bundled:norwegian`"
        raise T5smithError("no text is named", where=field, expected="at least one file or folder", fix=fix)
    found: dict[str, list[Place]] = {name: [] for name in by_name}
    taken = _Taken()
    for name, own in by_name.items():
        for place in itertools.chain.from_iterable(_places(pattern, name, field) for pattern in own):
            before = taken.before(place)
            if before is None:
                taken.add(place, name)
                found[name].append(place)
            elif _rows(before.place) != _rows(place):
                what = f"{before.place} and {place} have rows in common"
                raise T5smithError(what, where=field, fix="name every row once")
            elif before.corpus != name:
                raise T5smithError(f"{place} is in two corpora, {before.corpus} and {name}", where=field)
    return found


def train_and_valid(corpus: CorpusSettings) -> tuple[dict[str, list[Place]], dict[str, list[Place]]]:
    """The corpora to train on and those that are held out, the latter without any if none are named.

    Raises:
      T5smithError: a file, or a row of one, is in both, or as :func:`corpora`.
    """
    train = corpora(corpus.train, "corpus.train")
    valid = corpora(corpus.valid, "corpus.valid") if corpus.valid else {}
    taken = _Taken()
    for name, own in train.items() if valid else ():
        for place in own:
            taken.add(place, name)
    for place in itertools.chain.from_iterable(valid.values()):
        if before := taken.before(place):
            called = "" if str(before.place) == str(place) else f" as {before.place}"
            fix = "name other text, or leave corpus.valid out: some documents are held out then"
            raise T5smithError(f"{place} is in corpus.train too{called}", where="corpus.valid", fix=fix)
    return train, valid


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


class _RealNames:
    """What files are called without links. Of each folder that is found out once: there may be many files."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def of(self, file: Place) -> str:
        if isinstance(file, Rows):
            return self.of(file.file)
        if isinstance(file, Remote):
            return file.url
        if file.is_symlink():
            return os.path.realpath(file)
        folder, name = os.path.split(file)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)


@dataclass(frozen=True)
class _Named:
    """What a recipe names, and the corpus that it is of."""

    place: Place
    corpus: str


class _Taken:
    """What was named so far, to find what is named again, whatever it is called."""

    def __init__(self) -> None:
        self._names = _RealNames()
        self._named: dict[str, list[_Named]] = {}

    def add(self, place: Place, corpus: str) -> None:
        self._named.setdefault(self._names.of(place), []).append(_Named(place, corpus))

    def before(self, place: Place) -> _Named | None:
        """The same file, or some rows in common with it."""
        start, stop = _rows(place)
        for named in self._named.get(self._names.of(place), ()):
            first, end = _rows(named.place)
            if start < end and first < stop:
                return named
        return None


def _rows(place: Place) -> tuple[float, float]:
    return (place.start, place.stop) if isinstance(place, Rows) else (0, float("inf"))


def _places(pattern: str, name: str, field: str) -> Sequence[Place]:
    """The files that a pattern stands for: sorted within a folder or glob, hidden ones left out.

    Args:
      pattern: a file, folder (searched to the bottom), glob (`**` too), `bundled:PATTERN`, URL, or a data set
        as `hf:NAME:CONFIG:SPLIT`.
      name: of the corpus, nothing if it has none.
      field: the recipe's field, for messages.

    Raises:
      T5smithError: it is not there, has no files, or one whose name cannot be used.
    """
    scheme, _, path = pattern.partition("://")
    if is_url(pattern) and scheme in LOCAL:
        places: Sequence[Place] = sorted(_matching(path, name, field))
    elif is_url(pattern):
        places = list(remote_files(pattern, field))
    elif pattern.startswith(PREFIX):
        places = hub_files(pattern, field)
    else:
        places = sorted(_matching(pattern, name, field))
    if not places:
        raise T5smithError(
            f"no file in {pattern!r}",
            where=field,
            expected="at least one file with text",
            fix=_path_hint(name, pattern),
        )
    for place in places:
        _check_name(str(place.file if isinstance(place, Rows) else place), field)
    return places


def _path_hint(name: str, pattern: str) -> str | None:
    """What to do if the name of a corpus was meant to be a part of a path, as in folders of Hive's."""
    if not name or ":" in pattern:
        return None
    return f"for a path write ./{name}={pattern}: {name}= is taken for the name of a corpus"


def _check_name(file: str, field: str) -> None:
    """Refuse what could not be told from rows of another file, or could not be written down."""
    if without_rows(file)[1] is not None:
        what = f"{file!r} ends as names of some rows of a file do"
        raise T5smithError(what, where=field, fix="rename it")
    try:
        file.encode()
    except UnicodeEncodeError:
        raise T5smithError(f"the name {file!r} is not UTF-8", where=field, fix="rename the file") from None


def _matching(pattern: str, name: str, field: str) -> Iterator[Path]:
    bundled = pattern.startswith(BUNDLED)
    place = SAMPLES / pattern.removeprefix(BUNDLED) if bundled else local(pattern, field)
    if kind := mode(place):
        if not stat.S_ISDIR(kind) and not stat.S_ISREG(kind):
            expected = "a file that can be read several times"
            raise T5smithError(f"{pattern!r} is not a regular file", where=field, expected=expected)
        matches: Iterable[Path] = [place]
    elif glob.has_magic(str(place)):
        matches = matching(place)
    elif bundled:
        known = ", ".join(
            sorted(BUNDLED + path.name for path in SAMPLES.iterdir() if list(path.glob("*.txt.*")))
        )
        raise T5smithError(f"{pattern!r} does not come with t5smith", where=field, expected=known)
    else:
        fix = (
            _path_hint(name, pattern)
            or "check the spelling; a relative name starts from the folder you are in"
        )
        raise T5smithError(f"there is no file or folder {pattern!r}", where=field, fix=fix)
    for match in matches:
        folder = match.is_dir()
        if folder and is_saved(match):
            yield from saved_files(match, field)
            continue
        for file in below(match) if folder else [match]:
            if not bundled or ".txt" in file.suffixes:
                yield file
