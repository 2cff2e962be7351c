"""Files below a folder, and files that match a glob. An unreadable folder is an error, never skipped."""

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


def below(folder: str | Path) -> Iterator[Path]:
    """The files in a folder and all folders below it, without hidden ones.

    Raises:
      T5smithError: one of them cannot be read.
    """
    for place, names in _walk(os.fspath(folder)):
        yield from (file for name in names if is_regular(file := Path(place, name)))


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
        for folder, names in _walk(base):
            # At the end it matches folders too, but they hold no other files.
            yield from _matching(folder, rest) if rest else (os.path.join(folder, name) for name in names)
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


def _walk(top: str) -> Iterator[tuple[str, list[str]]]:
    """Each folder from `top` downwards, with the files in it; once, however many links lead to it."""

    def refuse(error: OSError) -> None:
        raise _refusal(error, "this folder")

    seen = {os.path.realpath(top)}
    for place, folders, names in os.walk(top or os.curdir, onerror=refuse, followlinks=True):
        new: dict[str, str] = {}
        for name in sorted(folders):
            if name[0] != ".":
                new.setdefault(os.path.realpath(os.path.join(place, name)), name)
        folders[:] = [name for real, name in new.items() if real not in seen]  # a loop of links ends
        seen |= new.keys()
        yield place, [name for name in names if name[0] != "."]


def _refusal(error: OSError, what: str) -> T5smithError:
    if isinstance(error, PermissionError):
        return T5smithError(f"cannot read {what}", where=error.filename, expected="permission to read it")
    return T5smithError(f"cannot read {what} ({error.strerror})", where=error.filename)
