"""What training writes: JSON lines per step, evaluation and event, the progress bar, the loggers' figures.

Files are cut back to the checkpoint when training resumes, so they read as if it had never stopped.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from t5smith.base.disk import disk_errors, write_atomically
from t5smith.base.errors import T5smithError
from t5smith.base.progress import count, progress, warn
from t5smith.parallel.hardware import memory_in_use
from t5smith.recipe.recipe import Recipe
from t5smith.training.curves.advice import verdict
from t5smith.training.curves.summaries import HeldOutCurve, StepTotals
from t5smith.training.loggers import Loggers

STEPS = "metrics.jsonl"
HELD_OUT = "heldout.jsonl"
EVENTS = "events.jsonl"


def iter_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file, one at a time; a half-written last line is ignored.

    Raises:
      T5smithError: a line other than the last is not JSON.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        damaged = 0
        for number, line in enumerate(file, 1):
            if damaged:
                raise T5smithError("damaged line", where=f"{path}:{damaged}", expected="JSON")
            try:
                row = json.loads(line)
            except ValueError:
                damaged = number
                continue
            yield row


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a small metrics file; see :func:`iter_rows`."""
    return list(iter_rows(path))


def read_columns(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Numbers of every row of a metrics file as float64 columns, by name; NaN where a row has none.

    Raises:
      T5smithError: a line other than the last is not JSON.
    """
    columns = {name: array("d") for name in names}
    for row in iter_rows(path):
        for name, column in columns.items():
            value = row.get(name)
            column.append(math.nan if value is None else value)
    return {name: np.frombuffer(column, np.float64) for name, column in columns.items()}


class MetricsFile:
    """A JSON lines file of rows. While the disk is full, rows wait in memory."""

    def __init__(
        self,
        path: Path,
        keep: Callable[[Mapping[str, Any]], bool],
        summary: StepTotals | HeldOutCurve | None = None,
    ) -> None:
        """Open for appending; of the rows already there, keep those for which `keep` is true.

        Args:
          path: the file.
          keep: whether a row is kept.
          summary: is given every row of the file, those of earlier starts too.
        """
        self.path, self._summary = path, summary
        self._waiting: list[str] = []
        self._warned = False
        self.cut_back(keep)

    def cut_back(self, keep: Callable[[Mapping[str, Any]], bool]) -> None:
        """Remove the rows for which `keep` is false; one row at a time is in memory."""
        self.flush(must=True)
        if self._summary:
            self._summary.clear()

        def kept() -> Iterator[str]:
            for row in filter(keep, iter_rows(self.path)):
                if self._summary:
                    self._summary.add(row)
                yield json.dumps(row) + "\n"

        with disk_errors(self.path):
            write_atomically(self.path, kept())
            self._size = self.path.stat().st_size

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; the next flush writes it to the file."""
        if self._summary:
            self._summary.add(row)
        self._waiting.append(json.dumps(row) + "\n")

    def flush(self, *, must: bool = False) -> None:
        """Hand the waiting rows to the operating system; if that fails, warn once and keep them waiting.

        Raises:
          T5smithError: it failed, and the rows `must` be written now.
        """
        if not self._waiting:
            return
        text = "".join(self._waiting).encode()
        try:
            with disk_errors(self.path), self.path.open("r+b") as file:
                # Overwrite what a failed attempt left.
                file.truncate(self._size)
                file.seek(self._size)
                file.write(text)
        except T5smithError as error:
            if must:
                raise
            if not self._warned:
                warn(f"{error.where}: {error.what}; training continues, and figures are kept for later")
            self._warned = True
            return
        self._size += len(text)
        self._waiting.clear()
        self._warned = False

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *error: object) -> None:
        """Write the waiting rows."""
        self.flush()


def up_to(step: int) -> Callable[[Mapping[str, Any]], bool]:
    """Keep the rows up to a step."""
    return lambda row: row["step"] <= step


class TrainingLog:
    """All that one call of `train` writes besides checkpoints; a context manager."""

    def __init__(self, recipe: Recipe, folder: Path, step: int, batch: int) -> None:
        """Open the files and cut them back.

        Args:
          recipe: with its number of steps.
          folder: `train` in the run folder.
          step: the step after which training starts or resumes.
          batch: the first batch it uses.
        """
        self.recipe, self.folder, self.first_step = recipe, folder, step
        self.totals, self.curve = StepTotals(), HeldOutCurve()
        self.steps = MetricsFile(folder / STEPS, up_to(step), self.totals)
        self.held_out = MetricsFile(folder / HELD_OUT, up_to(step), self.curve)
        self.events = MetricsFile(folder / EVENTS, lambda row: row["batch"] < batch)

    def __enter__(self) -> TrainingLog:
        with ExitStack() as stack:
            for file in (self.steps, self.held_out, self.events):
                stack.enter_context(file)
            notes = ("loss", "held-out", "skipped", "lr")
            bar = progress("train", self.recipe.train.steps, "steps", self.first_step, notes)
            self.bar = stack.enter_context(bar)
            self._show_held_out()
            self.loggers = Loggers(self.recipe, self.folder, self.first_step)
            stack.callback(self.loggers.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def updated(self, step: int, figures: Mapping[str, float], seconds: float, mfu: float) -> None:
        """Log an update.

        Args:
          step: its number.
          figures: those of `StepMetrics`.
          seconds: it took.
          mfu: the share of the devices' peak FLOP/s it used.
        """
        rate = figures["tokens"] / seconds
        row = {"step": step, **figures, "seconds": round(seconds, 6)}
        row |= {"tokens_per_second": round(rate, 1), "mfu": round(mfu, 4)}
        if (memory := memory_in_use()) is not None:
            row |= {"memory_bytes": memory[0], "peak_memory_bytes": memory[1]}
        self.steps.write(row)
        notes = {"loss": f"{figures['nll']:.3f}", "lr": f"{figures['learning_rate']:.2g}"}
        if step == self.recipe.train.steps:
            # The finished line stays on the screen, above the summary with the same speed.
            rate = self.totals.facts()["tokens_per_second"]
        self.bar.advance(1, rate=f"{count(rate)} tokens/s", **notes)
        if step % self.recipe.train.log_every == 0:
            self.steps.flush()
            self.loggers.log(step, {f"train/{name}": value for name, value in row.items() if name != "step"})

    def skipped(self, step: int, batch: int, figures: Mapping[str, float], total: int) -> None:
        """Log a batch that was skipped after `step`, the last of `total`; its figures may not be finite."""
        loss, norm = figures["loss"], figures["gradient_norm"]
        finite = {name: value if np.isfinite(value) else None for name, value in figures.items()}
        names = ("loss", "gradient_norm")
        self._event("skipped", step, batch, **{name: finite[name] for name in names})
        warn(f"batch {batch:,} skipped after step {step:,}: loss {loss:.3g}, gradient norm {norm:.3g}")
        self.bar.advance(0, skipped=str(total))

    def rolled_back(self, step: int, first: int, last: int) -> None:
        """Log the return to a step, and that the batches from `first` to `last` are skipped."""
        warn(f"rolling back to step {step:,}; batches {first:,} to {last:,} are skipped")
        self.steps.cut_back(up_to(step))
        self.held_out.cut_back(up_to(step))
        self._event("rolled back", step, last, from_batch=first)
        self.bar.advance(step - self.bar.done)
        self._show_held_out()

    def evaluated(self, step: int, row: Mapping[str, Any], figures: Mapping[str, float | None]) -> None:
        """Log an evaluation.

        Args:
          step: after which it was made.
          row: of heldout.jsonl.
          figures: for the loggers.
        """
        self.held_out.write({"step": step, **row, "training_nll": self.totals.last_loss()})
        self.held_out.flush()
        self._show_held_out()
        self.loggers.log(step, {name: value for name, value in figures.items() if value is not None})

    def _show_held_out(self) -> None:
        """Show the last held-out loss, of all targets as the training loss, and the step it is from."""
        points = self.curve.points
        shown = f"{points[-1].held_out:.3f} @ {points[-1].step:,}" if points else ""
        self.bar.advance(0, **{"held-out": shown})

    def best_step(self) -> int | None:
        """The best step so far: by score, or else by the held-out NLL of text tokens."""
        # Before the first step there is no checkpoint.
        points = [point for point in self.curve.points if point.step]
        return min(points, key=lambda point: point.order).step if points else None

    def since_best(self) -> int:
        """The number of evaluations after the best one."""
        return sum(point.step > (self.best_step() or 0) for point in self.curve.points)

    def facts(self) -> dict[str, Any]:
        """Figures over all steps of the run, those before a restart included."""
        found = verdict(self.curve.points)
        return self.totals.facts() | ({"held_out_curve": found.facts()} if found else {})

    def _event(self, event: str, step: int, batch: int, **details: Any) -> None:
        self.events.write({"event": event, "step": step, "batch": batch, **details})
        self.events.flush()
