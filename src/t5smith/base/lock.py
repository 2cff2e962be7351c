"""One t5smith at a time in a run folder: two would remove each other's unfinished work."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from t5smith.base.artifact import disk_errors
from t5smith.base.errors import T5smithError

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
    """Make a stage the only one at work in its run folder, which is made if it is not there.

    Raises:
      T5smithError: another process is at work there, or the folder may not be written to.
    """

    @functools.wraps(stage)
    def alone(recipe: R, *args: P.args, **kwargs: P.kwargs) -> T:
        with locked(recipe.folder):
            return stage(recipe, *args, **kwargs)

    return alone


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold a folder. The system lets go of it however the process ends; holding it twice is once."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
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
                "another t5smith is at work here",
                where=folder,
                fix="wait for it to end, or give this run another --run-dir",
            ) from None
        _held.add(place)
        try:
            yield
        finally:
            _held.discard(place)
    finally:
        os.close(descriptor)
