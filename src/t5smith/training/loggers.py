"""Where metrics go besides the JSON lines: TensorBoard, and Weights & Biases or trackio when asked.

They are told in passing, every `train.log_every` steps. The JSON lines are the record: a run that goes on is
cut back to its checkpoint there, while these services show what they were told, later words last.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn
from t5smith.recipe.recipe import Recipe, plain

PROJECT = "t5smith"


class TensorBoard:
    """Event files in `train/tensorboard`, for `tensorboard --logdir`."""

    def __init__(self, folder: Path, resume_at: int) -> None:
        proto = importlib.import_module("tensorboard.compat.proto.event_pb2")
        self._summary = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        writer = importlib.import_module("tensorboard.summary.writer.event_file_writer")
        self._event = proto.Event
        self._file = writer.EventFileWriter(str(folder))
        if resume_at:
            # TensorBoard then forgets what earlier files say of later steps.
            start = proto.SessionLog(status=proto.SessionLog.START)
            self._file.add_event(self._event(wall_time=time.time(), step=resume_at + 1, session_log=start))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One event with all figures."""
        told = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        summary = self._summary.Summary(value=told)
        self._file.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


class Service:
    """Weights & Biases or trackio, whose functions have the same names."""

    def __init__(self, name: str, recipe: Recipe, folder: Path, resume_at: int) -> None:
        try:
            self._library: Any = importlib.import_module(name)
        except ImportError:
            raise T5smithError(
                f"{name} is not installed",
                where="train.loggers",
                fix=f"install it with `pip install {name}`, or leave it out",
            ) from None
        options: dict[str, Any] = {"project": PROJECT, "name": recipe.name, "config": plain(recipe)}
        if name == "wandb":
            options |= {"dir": str(folder), "resume": "allow", "id": _run_id(folder, anew=not resume_at)}
        else:
            options |= {"resume": "allow"}
        self._library.init(**options)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tell it the figures of a step."""
        self._library.log(dict(values), step=step)

    def close(self) -> None:
        """Say that the run is over for now."""
        self._library.finish()


class Loggers:
    """The loggers a recipe asks for. One that fails is said and left out; training does not depend on it."""

    def __init__(self, recipe: Recipe, folder: Path, resume_at: int) -> None:
        """Open them.

        Args:
          recipe: names them, and is told to them.
          folder: of the training.
          resume_at: the step after which training goes on; 0 if it begins.

        Raises:
          T5smithError: one is not installed.
        """
        self._open: dict[str, TensorBoard | Service] = {}
        for name in recipe.train.loggers:
            self._open[name] = (
                TensorBoard(folder / "tensorboard", resume_at)
                if name == "tensorboard"
                else Service(name, recipe, folder, resume_at)
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tell them the figures of a step."""
        for name, logger in list(self._open.items()):
            try:
                logger.log(step, values)
            # A full disk, a lost network, whatever a service thinks of: none is worth a run.
            except Exception as error:
                warn(f"{name} fails ({error}); training goes on without it, metrics.jsonl has everything")
                del self._open[name]

    def close(self) -> None:
        """Let them hand over what they were told."""
        for name, logger in self._open.items():
            try:
                logger.close()
            except Exception as error:
                warn(f"{name} fails at the end ({error}); metrics.jsonl has everything")


def _run_id(folder: Path, *, anew: bool) -> str:
    """What the run is known by at the service, kept beside it so that it goes on there too."""
    file = folder / "wandb-run-id"
    if anew or not file.is_file():
        file.write_text(f"{time.time_ns():x}", encoding="ascii")
    return file.read_text(encoding="ascii")
