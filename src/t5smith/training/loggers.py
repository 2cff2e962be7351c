"""Where figures go besides the JSON lines: TensorBoard, and Weights & Biases or trackio if set.

They get the figures of every `train.log_every`-th step. The JSON lines are the record: a resumed run cuts
them back to its checkpoint, while a service shows both the old and the new figures of a repeated step.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn
from t5smith.recipe.recipe import Recipe, plain
from t5smith.recipe.train import TrainSettings

PROJECT = "t5smith"


class TensorBoard:
    """Event files in `train/tensorboard`, for `tensorboard --logdir`.

    `train/nll` and `held-out/nll` are the tag `nll` of the runs `train` and `held-out`, as in Keras:
    TensorBoard draws the same quantity of several runs into one chart.
    """

    def __init__(self, folder: Path, resume_at: int) -> None:
        proto = importlib.import_module("tensorboard.compat.proto.event_pb2")
        self._summary = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        self._writer = importlib.import_module("tensorboard.summary.writer.event_file_writer")
        self._event, self._session = proto.Event, proto.SessionLog
        self._folder, self._resume_at = folder, resume_at
        self._files: dict[str, Any] = {}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the figures of a step as one event of each run."""
        by_run: dict[str, list[Any]] = {}
        for name, value in values.items():
            run, tag = name.split("/", 1)
            scalar = self._summary.Summary.Value(tag=tag, simple_value=value)
            by_run.setdefault(run, []).append(scalar)
        for run, scalars in by_run.items():
            summary = self._summary.Summary(value=scalars)
            self._file(run).add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def _file(self, run: str) -> Any:
        if run not in self._files:
            self._files[run] = self._writer.EventFileWriter(str(self._folder / run))
            if self._resume_at:
                # TensorBoard then ignores the later steps in earlier files.
                start = self._session(status=self._session.START)
                event = self._event(wall_time=time.time(), step=self._resume_at + 1, session_log=start)
                self._files[run].add_event(event)
        return self._files[run]

    def close(self) -> None:
        """Flush and close the files."""
        for file in self._files.values():
            file.close()


class Service:
    """Weights & Biases or trackio, whose functions have the same names."""

    def __init__(self, name: str, recipe: Recipe, folder: Path, resume_at: int) -> None:
        self._library: Any = importlib.import_module(name)
        options: dict[str, Any] = {"project": PROJECT, "name": recipe.name, "config": plain(recipe)}
        if name == "wandb":
            options |= {"dir": str(folder), "resume": "allow", "id": _run_id(folder, new=not resume_at)}
        else:
            options |= {"resume": "allow"}
        self._library.init(**options)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the figures of a step."""
        self._library.log(dict(values), step=step)

    def close(self) -> None:
        """Mark the run as finished for now."""
        self._library.finish()


def check_loggers(settings: TrainSettings) -> None:
    """Check that every logger of a recipe can be opened.

    Raises:
      T5smithError: one is not installed.
    """
    for name in settings.loggers:
        if importlib.util.find_spec(name) is None:
            raise T5smithError(
                f"{name} is not installed",
                where="train.loggers",
                fix=f"install it with `pip install {name}`, or remove it from the list",
            )


class Loggers:
    """The loggers of a recipe. One that fails is reported and dropped; training does not depend on it."""

    def __init__(self, recipe: Recipe, folder: Path, resume_at: int) -> None:
        """Open them.

        Args:
          recipe: names the loggers; services store it as the run's configuration.
          folder: `train` in the run folder.
          resume_at: the step that training resumes from; 0 at the start.
        """
        self._open: dict[str, TensorBoard | Service] = {}
        for name in recipe.train.loggers:
            self._open[name] = (
                TensorBoard(folder / "tensorboard", resume_at)
                if name == "tensorboard"
                else Service(name, recipe, folder, resume_at)
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the figures of a step to all loggers."""
        for name, logger in list(self._open.items()):
            try:
                logger.log(step, values)
            # A full disk, a lost network, any error of a service: none is worth stopping a run.
            except Exception as error:
                warn(f"{name} fails ({error}); training continues without it; metrics.jsonl has all figures")
                del self._open[name]

    def close(self) -> None:
        """Flush and close all loggers."""
        for name, logger in self._open.items():
            try:
                logger.close()
            except Exception as error:
                warn(f"{name} fails at the end ({error}); metrics.jsonl has all figures")


def _run_id(folder: Path, *, new: bool) -> str:
    """The run's id at Weights & Biases, kept in the folder so that a resumed run continues there too."""
    file = folder / "wandb-run-id"
    if new or not file.is_file():
        file.write_text(f"{time.time_ns():x}", encoding="ascii")
    return file.read_text(encoding="ascii")
