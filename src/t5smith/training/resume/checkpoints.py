"""Checkpoints: one folder `step-N` each, complete or absent, written while training continues.

Orbax writes the arrays. The folder gets a manifest with the hash of every file, and its final name last
(:mod:`t5smith.base.artifact`), so an interrupted write is never loaded. A damaged checkpoint is reported and
skipped; the previous one is used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from t5smith.base.artifact import Manifest, building, fingerprint, read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn
from t5smith.base.run_folder import checkpoint_folder, saved_steps
from t5smith.base.signals import interruptible
from t5smith.training.resume.fingerprint import continues
from t5smith.training.state import TrainState

ARRAYS = "state"
NAMES_ON_DISK = {"ema_params": "average", "grad_norm_ema": "usual_norm"}
"""Parts of the state that have another name in the files, the one of t5smith 0.1."""


@dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept.

    Attributes:
      newest: number of the newest ones.
      every: those at multiples of N steps; 0: none.
      pinned: the one at this step; None: none.
    """

    newest: int
    every: int = 0
    pinned: int | None = None

    def to_delete(self, saved: Sequence[int], step: int, best: int | None = None) -> list[int]:
        """The saved steps that may be deleted once the checkpoint of `step` is written."""
        # A higher step is damaged, otherwise training would have resumed from it: it is not newer.
        older = sorted(number for number in saved if number <= step)
        kept = {*older[-self.newest :], best, self.pinned}
        return [
            number for number in older if number not in kept and not (self.every and number % self.every == 0)
        ]


def model_fingerprint(manifest: Manifest) -> str:
    """Of the model of a checkpoint."""
    return fingerprint([manifest.key, manifest.facts["step"], manifest.files])


def save(
    folder: Path,
    state: TrainState,
    inputs: Mapping[str, Any],
    facts: Mapping[str, Any],
    retention: Retention,
    *,
    best: int | None = None,
    copied: Callable[[], None] = lambda: None,
) -> Path:
    """Write the state, then delete the checkpoints that need not be kept.

    Args:
      folder: of all checkpoints.
      state: what to write.
      inputs: the settings that decide the state.
      facts: further facts for the manifest.
      retention: which older checkpoints are kept.
      best: the step with the lowest held-out loss, which is also kept.
      copied: called once the state is off the device and may be donated.

    Returns:
      The folder of the checkpoint.

    Raises:
      T5smithError: the disk is full or cannot be written to. Older checkpoints stay intact.
    """
    step = int(state.step)
    target = checkpoint_folder(folder, step)
    with (
        _logged_once(),
        building(target, "checkpoint", inputs, {"step": step, **facts}) as work,
        ocp.StandardCheckpointer() as checkpointer,
    ):
        _check_free_space(work, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        checkpointer.save((work / ARRAYS).absolute(), _named_as_on_disk(state))
        copied()
    for old in retention.to_delete(saved_steps(folder), step, best):
        shutil.rmtree(checkpoint_folder(folder, old))
    return target


def restore(folder: Path, like: TrainState) -> TrainState:
    """Read the state of one checkpoint, whatever devices wrote it.

    Args:
      folder: the checkpoint.
      like: a state of the same structure, or its shapes and dtypes alone; these may say on which devices
        each array is to be. Default: on the first.
    """
    # A signal must not raise within Orbax, which would leave its event loop in a state of its own.
    return interruptible(_restore, folder, like)


def _restore(folder: Path, like: TrainState) -> TrainState:
    # Without a sharding Orbax would look for the device that wrote it, which may be another machine's.
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or first), like
    )
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore((folder / ARRAYS).absolute(), _named_as_on_disk(shapes))
    return TrainState(*(tree[name] for name in _named_as_on_disk(like)))


def latest(
    folder: Path, inputs: Mapping[str, Any], *, up_to: int | None = None
) -> tuple[Path, Manifest] | None:
    """The newest undamaged checkpoint that a training with these inputs has, at most at step `up_to`.

    See :func:`continues`. None without one.
    """
    for step in reversed(saved_steps(folder)):
        if up_to is not None and step > up_to:
            continue
        candidate = checkpoint_folder(folder, step)
        try:
            manifest = read_manifest(candidate, "checkpoint")
        except T5smithError as error:
            warn(f"checkpoint {candidate.name} is skipped: {error}")
            continue
        if continues(manifest.inputs, inputs, step):
            return candidate, manifest
    return None


class AsyncSaver:
    """Writes one checkpoint at a time in a background thread.

    A checkpoint that cannot be written (the disk is full) is reported and counted, and training continues:
    the previous one is still there, and the next may fit. Only the last one has to succeed.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Any], retention: Retention) -> None:
        self.folder, self.inputs, self.retention = folder, inputs, retention
        self.failed = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: tuple[int, Future[Path]] | None = None

    def save(self, state: TrainState, facts: Mapping[str, Any], best: int | None = None) -> None:
        """Wait for the previous write, start this one, and return as soon as the state may be donated.

        Args: see :func:`save`.
        """
        self.wait()
        copied = threading.Event()
        pending = self._pool.submit(
            save,
            self.folder,
            state,
            self.inputs,
            dict(facts),
            self.retention,
            best=best,
            copied=copied.set,
        )
        pending.add_done_callback(lambda _: copied.set())
        self._pending = int(state.step), pending
        copied.wait()

    def finish(self) -> Path | None:
        """Wait for the pending write.

        Returns:
          The folder of the checkpoint, or None if none was pending.

        Raises:
          T5smithError: it could not be written.
        """
        pending, self._pending = self._pending, None
        return pending[1].result() if pending else None

    def wait(self) -> None:
        """Wait for the pending write; report a failure and continue."""
        step = self._pending[0] if self._pending else 0
        try:
            self.finish()
        except T5smithError as error:
            self.failed += 1
            warn(f"the checkpoint of step {step:,} could not be written: {error}; training continues")

    def close(self) -> None:
        """Wait for the thread to end."""
        self._pool.shutdown(wait=True)


def _named_as_on_disk(state: TrainState) -> dict[str, Any]:
    return {NAMES_ON_DISK.get(field.name, field.name): getattr(state, field.name) for field in fields(state)}


def _check_free_space(folder: Path, size: int) -> None:
    """Reserve `size` bytes and release them, so that a full disk fails here and not in the middle."""
    if hasattr(os, "posix_fallocate"):
        with (folder / "room").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        (folder / "room").unlink()


@contextlib.contextmanager
def _logged_once() -> Generator[None]:
    """Silence the traceback that Orbax logs for a failed write, besides raising it."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except BaseException:
        # Its other writes failed too; each would log a traceback when it is garbage-collected.
        logging.getLogger("asyncio").addFilter(_is_not_of_orbax)
        raise
    finally:
        logger.setLevel(level)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "async_serialize_from_host" not in record.getMessage()
