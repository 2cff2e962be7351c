"""Checkpoints: a folder `step-N` each, written whole or not at all.

Orbax writes the arrays; the folder gets a manifest with a hash of every file and its final name last
(:mod:`t5smith.base.artifact`). One that was being written when the process died has no such name and is
never loaded; one that was damaged since is passed over, said, and the one before it is used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from t5smith.base.artifact import Manifest, building, fingerprint, read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn
from t5smith.training.state import TrainState

PREFIX = "step-"
ARRAYS = "state"


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps stands."""
    return folder / f"{PREFIX}{step:08d}"


def steps_saved(folder: Path) -> list[int]:
    """Steps of the finished checkpoints in a folder, oldest first."""
    names = (path.name for path in folder.glob(f"{PREFIX}*") if path.is_dir())
    return sorted(int(name[len(PREFIX) :]) for name in names if name[len(PREFIX) :].isdecimal())


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay: the newest so many, those at multiples of `every` steps, and the best."""

    newest: int
    every: int = 0

    def outdated(self, saved: Sequence[int], step: int, best: int | None = None) -> list[int]:
        """Those of the steps saved that may go once the one of `step` is written."""
        # One of a higher number is damaged, or it would have been gone on from: it is not newer.
        older = sorted(number for number in saved if number <= step)
        kept = {*older[-self.newest :], best}
        return [
            number for number in older if number not in kept and not (self.every and number % self.every == 0)
        ]


def save(
    folder: Path,
    state: TrainState,
    inputs: Mapping[str, Any],
    facts: Mapping[str, Any],
    keep: Keep,
    *,
    best: int | None = None,
    copied: Callable[[], None] = lambda: None,
) -> Path:
    """Write the state, then delete the checkpoints that need not be kept.

    Args:
      folder: of all checkpoints.
      state: what to write.
      inputs: the settings that decide it.
      facts: what else is known then.
      keep: which older ones stay.
      best: the step of the lowest held-out loss, to be kept too.
      copied: called once the state is off the device and may be used up.

    Raises:
      T5smithError: the disk is full or refuses to be written to. Older checkpoints stay whole.
    """
    step = int(state.step)
    target = checkpoint_folder(folder, step)
    with (
        _one_complaint(),
        building(target, "checkpoint", inputs, {"step": step, **facts}) as work,
        ocp.StandardCheckpointer() as checkpointer,
    ):
        _reserve(work, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        checkpointer.save((work / ARRAYS).absolute(), state)
        copied()
    for old in keep.outdated(steps_saved(folder), step, best):
        shutil.rmtree(checkpoint_folder(folder, old))
    return target


def read(folder: Path, like: TrainState) -> TrainState:
    """Read the arrays of one checkpoint into the structure, shapes and places of `like`."""
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore((folder / ARRAYS).absolute(), like)


def newest(
    folder: Path, inputs: Mapping[str, Any], *, up_to: int | None = None
) -> tuple[Path, Manifest] | None:
    """The newest undamaged checkpoint made from exactly these settings, or None if there is none."""
    key = fingerprint(inputs)
    for step in reversed(steps_saved(folder)):
        if up_to is not None and step > up_to:
            continue
        candidate = checkpoint_folder(folder, step)
        try:
            manifest = read_manifest(candidate, "checkpoint")
        except T5smithError as error:
            warn(f"checkpoint {candidate.name} is passed over: {error}")
            continue
        if manifest.key == key:
            return candidate, manifest
    return None


def abstract(state: Any) -> Any:
    """The shapes of a state on the first device: what :func:`read` needs to know of it."""
    # Without a place Orbax would look for the device that wrote it, which may be another machine's.
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), state)


def _reserve(folder: Path, size: int) -> None:
    """Ask the disk for so many bytes and give them back: it says no here, and not in the middle."""
    if hasattr(os, "posix_fallocate"):
        with (folder / "room").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        (folder / "room").unlink()


@contextlib.contextmanager
def _one_complaint() -> Generator[None]:
    """Orbax logs the traceback of a failed write besides raising it; once is enough."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except BaseException:
        # Its other writes failed too and each would say so, with a traceback, once it is collected.
        logging.getLogger("asyncio").addFilter(_is_not_of_orbax)
        raise
    finally:
        logger.setLevel(level)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "async_serialize_from_host" not in record.getMessage()
