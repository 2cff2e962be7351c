"""The files that one name in a recipe stands for: a file, folder, glob, URL, data set or bundled text."""

from __future__ import annotations

import glob
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from t5smith.base.errors import T5smithError
from t5smith.text.folders.contents import remote_text_files, text_files
from t5smith.text.folders.notes import FolderNotes
from t5smith.text.globs import matching, mode
from t5smith.text.hub import PREFIX, hub_files
from t5smith.text.locations import (
    Location,
    RowRange,
    is_url,
    local_path,
    remote_files,
    split_row_range,
)

SAMPLES = Path(__file__).parent / "samples"
BUNDLED = "bundled:"
_HUB_FOLDER = re.compile(r"hf://datasets/([^/@]+/[^/@]+)/?")
"""The whole of a data set on the Hub, as a URL."""
LOCAL = ("file", "local")
"""Schemes of URLs that are paths."""


def find_pattern(
    pattern: str, corpus: str, field: str, notes: FolderNotes | None = None
) -> Sequence[Location]:
    """The files that a pattern stands for, sorted; of folders and globs without hidden ones.

    Side files of folders are not read. A file that is named by itself, or that a glob matches, is none.

    Args:
      pattern: a file, folder (with all folders in it), glob (`**` too), `bundled:PATTERN`, URL, or data set
        as `hf:NAME:CONFIG:SPLIT`.
      corpus: the name written before the pattern, or "".
      field: the recipe's field, for messages.
      notes: gets what is not read of folders.

    Raises:
      T5smithError: nothing is there, it has no files, or a file's name cannot be used.
    """
    notes = notes or FolderNotes()
    scheme, _, path = pattern.partition("://")
    if is_url(pattern) and scheme in LOCAL:
        found: Sequence[Location] = sorted(_local_files(path, corpus, field, notes))
    elif name := _HUB_FOLDER.fullmatch(pattern):
        found = hub_files(PREFIX + name[1], field)
    elif is_url(pattern):
        found = list(remote_files(pattern, field, lambda names: remote_text_files(names, notes)))
    elif pattern.startswith(PREFIX):
        found = hub_files(pattern, field)
    else:
        found = sorted(_local_files(pattern, corpus, field, notes))
    if not found:
        raise _no_file(pattern, corpus, field, notes)
    for location in found:
        _check_name(str(location.file if isinstance(location, RowRange) else location), field)
    return found


def _no_file(pattern: str, corpus: str, field: str, notes: FolderNotes) -> T5smithError:
    """The error for a pattern without files; it counts what was taken for side files."""
    what, fix = f"no file in {pattern!r}", _path_hint(corpus, pattern)
    if notes.side_files:
        what += f" but {notes.summary()}"
        fix = f"if they are the text, name them by a glob: {pattern.rstrip('/')}/**/*"
    return T5smithError(what, where=field, expected="at least one file with text", fix=fix)


def _path_hint(corpus: str, pattern: str) -> str | None:
    """The fix if the name of a corpus was meant as a part of a path, as in Hive's folders."""
    if not corpus or ":" in pattern:
        return None
    return f"for a path write ./{corpus}={pattern}: {corpus}= is read as the name of a corpus"


def _check_name(file: str, field: str) -> None:
    """Reject a name that looks like a range of rows, or that no manifest can hold."""
    if split_row_range(file)[1] is not None:
        what = f"{file!r} ends like the name of a range of rows"
        raise T5smithError(what, where=field, fix="rename it")
    try:
        file.encode()
    except UnicodeEncodeError:
        raise T5smithError(f"the name {file!r} is not UTF-8", where=field, fix="rename the file") from None


def _local_files(pattern: str, corpus: str, field: str, notes: FolderNotes) -> Iterator[Path]:
    bundled = pattern.startswith(BUNDLED)
    path = SAMPLES / pattern.removeprefix(BUNDLED) if bundled else local_path(pattern, field)
    if kind := mode(path):
        if not stat.S_ISDIR(kind) and not stat.S_ISREG(kind):
            expected = "a file that can be read several times"
            raise T5smithError(f"{pattern!r} is not a regular file", where=field, expected=expected)
        matches: Iterable[Path] = [path]
    elif glob.has_magic(str(path)):
        matches = matching(path)
    elif bundled:
        folders = sorted(BUNDLED + path.name for path in SAMPLES.iterdir() if list(path.glob("*.txt.*")))
        what = f"{pattern!r} is not bundled with t5smith"
        raise T5smithError(what, where=field, expected=", ".join(folders))
    else:
        spelling = "check the spelling; a relative path starts from the folder you are in"
        fix = _path_hint(corpus, pattern) or spelling
        raise T5smithError(f"there is no file or folder {pattern!r}", where=field, fix=fix)
    for match in matches:
        for file in text_files(match, field, notes) if match.is_dir() else [match]:
            if not bundled or ".txt" in file.suffixes:
                yield file
