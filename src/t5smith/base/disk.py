"""Writing to disk: whole files or none, flushed, and errors of the disk as one line that names the place."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Generator, Iterable
from pathlib import Path

from t5smith.base.errors import T5smithError

UNFINISHED = ".unfinished"
"""Suffix of files and folders that are being written."""


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Write a file, from its text or from parts of it, so that readers see the old or the new content."""
    temporary = path.with_name(path.name + UNFINISHED)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_ELSEWHERE = "choose a run_dir that you can write to"
_MORE_SPACE = "free some space and run the command again; finished stages are kept"
_MORE_FILES = "raise the limit (ulimit -n), or close other programs, and run the command again"
_MORE_MEMORY = "allow more (ulimit -v) or use fewer prepare.tasks, and run the command again"
_DISK_ERRORS = {
    errno.EMFILE: ("this process has opened as many files as it may", _MORE_FILES),
    errno.ENFILE: ("this system has opened as many files as it may", _MORE_FILES),
    errno.ENOMEM: ("memory ran out", _MORE_MEMORY),
    **dict.fromkeys((errno.EACCES, errno.EPERM), ("no permission to write", _ELSEWHERE)),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.ENOSPC: ("the disk is full", _MORE_SPACE),
    errno.EDQUOT: ("your disk quota is used up", _MORE_SPACE),
    errno.EFBIG: (
        "the file grew past the allowed size",
        "raise the limit (ulimit -f) and run the command again",
    ),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), ("a file is where a folder is needed", _ELSEWHERE)),
    errno.EXDEV: (
        "a folder can be moved within one file system only",
        "keep the run folder and its previous/ on the same one",
    ),
    errno.ENAMETOOLONG: ("the name is too long", _ELSEWHERE),
    errno.ELOOP: ("links that lead back to themselves", _ELSEWHERE),
}


@contextlib.contextmanager
def disk_errors(place: Path) -> Generator[None]:
    """Turn errors of the disk into one line that names the place.

    Raises:
      T5smithError: no permission, read-only file system, full disk, used-up quota, or file too large; too
        many open files, or no more memory.
    """
    try:
        yield
    except Exception as error:
        code = None if isinstance(error, T5smithError) else _disk_errno(error)
        if code is None:
            raise
        what, fix = _DISK_ERRORS[code]
        where = error.filename if isinstance(error, OSError) and error.filename else place
        raise T5smithError(what, where=where, fix=fix) from error


def limit_error(error: Exception) -> T5smithError | None:
    """The error of a process that has reached a limit, of files or of memory; None if it is another one."""
    code = _disk_errno(error) if isinstance(error, OSError | MemoryError) else None
    if code not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return None
    what, fix = _DISK_ERRORS[code]
    return T5smithError(what, where=error.filename if isinstance(error, OSError) else None, fix=fix)


def _disk_errno(error: Exception) -> int | None:
    """The errno behind an exception, if it is one that a user can fix.

    tokenizers, safetensors and tensorstore raise their own exceptions, whose text includes the errno. numpy's
    text only has the number of items that were written.
    """
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _DISK_ERRORS else None
    text = str(error)
    if re.search(r"\d+ requested and \d+ written|Not enough free space to write", text):
        return errno.ENOSPC
    found = re.search(r"os[ _]error(?:[ _]code)?[ =]'?(\d+)", text)
    return int(found[1]) if found and int(found[1]) in _DISK_ERRORS else None
