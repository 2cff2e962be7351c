"""The lock of a run folder: two processes in it would remove each other's unfinished work."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from t5smith.base.disk import disk_errors
from t5smith.base.errors import T5smithError
from t5smith.base.moves import finish_moves
from t5smith.base.process import is_alive, this_process
from t5smith.base.progress import warn

LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of file systems without locks, such as some installations of Lustre and NFS."""


class HasFolder(Protocol):
    """Anything with a run folder, such as a recipe."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        ...


R = TypeVar("R", bound=HasFolder)
T = TypeVar("T")
P = ParamSpec("P")

_held: set[Path] = set()


def in_run_folder(stage: Callable[Concatenate[R, P], T]) -> Callable[Concatenate[R, P], T]:
    """Make a stage hold the lock of its run folder, which is created if it does not exist.

    Raises:
      T5smithError: another process holds the lock, or the folder cannot be written to.
    """

    @functools.wraps(stage)
    def with_lock(recipe: R, *args: P.args, **kwargs: P.kwargs) -> T:
        with locked(recipe.folder):
            return stage(recipe, *args, **kwargs)

    return with_lock


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold the lock of a folder. The system releases it however the process ends.

    A process that already holds it can enter again. Moves that a killed process left are finished first.
    """
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, ValueError) as error:
            # /proc takes no folders; a name with a NUL byte is a ValueError.
            raise T5smithError(
                "this folder cannot be made", where=ascii(str(folder)), fix="choose another --run-dir"
            ) from error
        place = folder.resolve()
        held = place in _held
        descriptor = -1 if held else os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    if held:
        yield
        return
    try:
        _lock(descriptor, folder)
        _held.add(place)
        try:
            with disk_errors(folder):
                finish_moves(folder)
            _name_holder(descriptor, json.dumps(this_process()))
            yield
        finally:
            _name_holder(descriptor, "")
            _held.discard(place)
    finally:
        os.close(descriptor)


def lock_holder(folder: Path) -> dict[str, Any] | None:
    """The process that works in a run folder, or did when it was killed; None: there is none.

    It is read from the file: trying the lock could make another process that starts now believe it is taken.
    """
    try:
        found: object = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else None


def _name_holder(descriptor: int, text: str) -> None:
    """Write who holds the lock into its file; on a full disk it stays empty."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _lock(descriptor: int, folder: Path) -> None:
    """Take the lock.

    Raises:
      T5smithError: another process has it, or the file system fails.
    """
    holder = lock_holder(folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            if holder is None or is_alive(holder) is False:
                warn(f"{folder}: this file system has no locks; start no second t5smith in this folder")
                return
        elif not isinstance(error, BlockingIOError):
            raise
        by = f" (process {holder['pid']} on {holder['host']})" if holder else ""
        fix = "wait until it has finished, or choose another --run-dir"
        if error.errno in NO_LOCKS:
            fix += f"; if it was killed, remove {folder / LOCK}"
        raise T5smithError(f"another t5smith is running in this folder{by}", where=folder, fix=fix) from None
