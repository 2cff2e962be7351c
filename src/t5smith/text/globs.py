"""Folders from one downwards, and files that match a glob. An unreadable folder is an error."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from t5smith.base.errors import T5smithError

_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def mode(path: str | Path, *, follow: bool = True) -> int:
    """The mode of what is at a path, as `stat` returns it; 0 if nothing is there.

    Raises:
      T5smithError: the path cannot be accessed.
    """
    try:
        return os.stat(path, follow_symlinks=follow).st_mode
    except ValueError:
        return 0  # no name that the system knows
    except OSError as error:
        if error.errno in _NOTHING:
            return 0
        raise _refusal(error, "this") from None


def is_regular(path: str | Path) -> bool:
    """Whether a path is a regular file: no pipe, socket or device, which could be read only once.

    Raises:
      T5smithError: it is a broken link, or cannot be accessed.
    """
    if not (kind := mode(path)):
        raise T5smithError(
            "there is no such file", where=path, fix="remove the link, if it is one that leads nowhere"
        )
    return stat.S_ISREG(kind)


def matching(pattern: Path) -> Iterator[Path]:
    """The files and folders that a glob matches, as `glob.glob` has it with `**`; pipes and such are none.

    Raises:
      T5smithError: a folder on the way cannot be read.
    """
    for found in map(Path, _matching(pattern.anchor, pattern.parts[bool(pattern.anchor) :])):
        if stat.S_ISDIR(mode(found)) or is_regular(found):
            yield found


def _matching(base: str, parts: Sequence[str]) -> Iterator[str]:
    part, rest = parts[0], parts[1:]
    if part == "**":
        for folder, folders, names in walk(base):
            folders[:] = [name for name in folders if name[0] != "."]
            # At the end it matches folders too, but they hold no other files.
            found = (os.path.join(folder, name) for name in names if name[0] != ".")
            yield from _matching(folder, rest) if rest else found
        return
    for name in _listed(base, part) if glob.has_magic(part) else [part]:
        path = os.path.join(base, name)
        if not rest:
            if glob.has_magic(part) or mode(path, follow=False):
                yield path
        elif stat.S_ISDIR(mode(path)):
            yield from _matching(path, rest)


def _listed(folder: str, pattern: str) -> list[str]:
    try:
        names = os.listdir(folder or os.curdir)
    except OSError as error:
        raise _refusal(error, "this folder") from None
    return [name for name in fnmatch.filter(names, pattern) if pattern[0] == "." or name[0] != "."]


def walk(top: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each folder from `top` downwards, its folders and its files; once, however many links lead to it.

    What is removed from its folders is not walked, as in `os.walk`.

    Raises:
      T5smithError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise _refusal(error, "this folder")

    seen = {os.path.realpath(top)}
    for place, folders, names in os.walk(top or os.curdir, onerror=refuse, followlinks=True):
        new: dict[str, str] = {}
        for name in sorted(folders):
            new.setdefault(os.path.realpath(os.path.join(place, name)), name)
        folders[:] = [name for real, name in new.items() if real not in seen]  # a loop of links ends
        seen |= new.keys()
        yield place, folders, names


def _refusal(error: OSError, what: str) -> T5smithError:
    if isinstance(error, PermissionError):
        return T5smithError(f"cannot read {what}", where=error.filename, expected="permission to read it")
    return T5smithError(f"cannot read {what} ({error.strerror})", where=error.filename)
