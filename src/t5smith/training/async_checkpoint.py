"""Checkpoints written while training goes on, by a thread: JAX leaves alone what the thread still reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn
from t5smith.training import checkpoints as checkpoint
from t5smith.training.state import TrainState


@dataclass
class _Write:
    step: int
    result: Future[Path]


class Saver:
    """Writes one checkpoint at a time in the background.

    A checkpoint that cannot be written (the disk is full) is said and counted, and training goes on: the one
    before it is still there, and the next may fit. Only the last one has to succeed.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Any], keep: checkpoint.Keep) -> None:
        self.folder, self.inputs, self.keep = folder, inputs, keep
        self.failed = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: _Write | None = None

    def save(self, state: TrainState, facts: Mapping[str, Any], best: int | None = None) -> None:
        """Begin to write a state; returns when it may be used up. Waits for the one before.

        Args:
          state: what to write.
          facts: what else is known then.
          best: the step whose checkpoint is kept besides those of the rule.
        """
        self._finish(must=False)
        step = int(state.step)
        copied = threading.Event()
        result = self._pool.submit(self._write, state, dict(facts), best, copied.set)
        result.add_done_callback(lambda _: copied.set())
        self._writing = _Write(step, result)
        copied.wait()

    def finish(self) -> Path | None:
        """Wait for what is being written; where the last checkpoint is, if one was begun.

        Raises:
          T5smithError: it could not be written.
        """
        return self._finish(must=True)

    def settle(self) -> None:
        """Wait for what is being written, whether it succeeds or not."""
        self._finish(must=False)

    def close(self) -> None:
        """Wait for the thread to end."""
        self._pool.shutdown(wait=True)

    def _write(
        self, state: TrainState, facts: dict[str, Any], best: int | None, copied: Callable[[], None]
    ) -> Path:
        return checkpoint.save(self.folder, state, self.inputs, facts, self.keep, best=best, copied=copied)

    def _finish(self, *, must: bool) -> Path | None:
        if self._writing is None:
            return None
        writing, self._writing = self._writing, None
        try:
            return writing.result.result()
        except T5smithError as error:
            if must:
                raise
            self.failed += 1
            warn(f"the checkpoint of step {writing.step:,} is not written: {error}; training goes on")
            return None
