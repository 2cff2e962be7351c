"""The lock of a run folder: two processes in it would remove each other's unfinished work."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from t5smith.base.disk import disk_errors
from t5smith.base.errors import T5smithError
from t5smith.base.moves import finish_moves

LOCK = ".lock"


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
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise T5smithError(
                "another t5smith is running in this folder",
                where=folder,
                fix="wait until it has finished, or choose another --run-dir",
            ) from None
        _held.add(place)
        try:
            with disk_errors(folder):
                finish_moves(folder)
            yield
        finally:
            _held.discard(place)
    finally:
        os.close(descriptor)
