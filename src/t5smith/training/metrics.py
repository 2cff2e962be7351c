"""What training writes: JSON lines per step, evaluation and event, the progress bar, the loggers' figures.

Files are cut back to the checkpoint when training resumes, so they read as if it had never stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from t5smith.base.artifact import disk_errors, write_atomically
from t5smith.base.errors import T5smithError
from t5smith.base.progress import count, progress, warn
from t5smith.parallel.hardware import memory_in_use
from t5smith.recipe.recipe import Recipe
from t5smith.training.eval_step import HeldOutScore
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


class Summary(Protocol):
    """What is kept in memory of a file's rows."""

    def clear(self) -> None:
        """Forget all rows."""
        ...

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row into account."""
        ...


class StepTotals:
    """Figures over all steps of a run, from eight bytes per step."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all steps."""
        self.first_loss = math.nan
        self.last_losses: deque[float] = deque(maxlen=LAST_STEPS)
        self.tokens, self.seconds = 0.0, 0.0
        self._seconds_per_token = array("d")

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of metrics.jsonl."""
        if not self._seconds_per_token:
            self.first_loss = row["nll"]
        self.last_losses.append(row["nll"])
        self.tokens += row["tokens"]
        self.seconds += row["seconds"]
        self._seconds_per_token.append(row["seconds"] / row["tokens"])

    def last_loss(self) -> float | None:
        """The mean loss of the last steps."""
        return float(np.mean(self.last_losses)) if self.last_losses else None

    def facts(self) -> dict[str, Any]:
        """The totals, by name."""
        # The first steps of every start are slow, so the speed is that of the median step.
        seconds_per_token = float(np.median(np.frombuffer(self._seconds_per_token)))
        return {
            "first_loss": self.first_loss,
            "last_loss": self.last_loss(),
            "tokens": int(self.tokens),
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(1 / seconds_per_token, 1),
        }


class HeldOutCurve:
    """The points of the evaluations.

    Attributes:
      points: in the order of their steps.
      windows: the number of windows of the last evaluation; None if there was none, or it was not recorded.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all evaluations."""
        self.points: list[Point] = []
        self.windows: int | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of heldout.jsonl."""
        if (point := Point.of(row)) is not None:
            self.points.append(point)
        self.windows = row.get("windows")


class NothingKept:
    """No memory of any row."""

    def clear(self) -> None:
        """Do nothing."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Do nothing."""


class MetricsFile:
    """A JSON lines file of rows. While the disk is full, rows wait in memory."""

    def __init__(
        self, path: Path, keep: Callable[[Mapping[str, Any]], bool], summary: Summary | None = None
    ) -> None:
        """Open for appending; of the rows already there, keep those for which `keep` is true.

        Args:
          path: the file.
          keep: whether a row is kept.
          summary: is given every row of the file, those of earlier starts too.
        """
        self.path, self._summary = path, summary or NothingKept()
        self._waiting: list[str] = []
        self._warned = False
        self.cut_back(keep)

    def cut_back(self, keep: Callable[[Mapping[str, Any]], bool]) -> None:
        """Remove the rows for which `keep` is false; one row at a time is in memory."""
        self.flush(must=True)
        self._summary.clear()
        partial = self.path.with_name(self.path.name + ".partial")
        with disk_errors(self.path):
            with partial.open("w", encoding="utf-8") as file:
                for row in iter_rows(self.path):
                    if keep(row):
                        file.write(json.dumps(row) + "\n")
                        self._summary.add(row)
            partial.replace(self.path)
            self._size = self.path.stat().st_size

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; the next flush writes it to the file."""
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
        self.steps = MetricsFile(folder / STEPS, up_to(step))
        self.held_out = MetricsFile(folder / HELD_OUT, up_to(step))
        self.events = MetricsFile(folder / EVENTS, lambda row: row["batch"] < batch)

    def __enter__(self) -> TrainingLog:
        with ExitStack() as stack:
            for file in (self.steps, self.held_out, self.events):
                stack.enter_context(file)
            notes = ("loss", "held-out text", "skipped", "lr")
            bar = progress("train", self.recipe.train.steps, "steps", self.first_step, notes)
            self.bar = stack.enter_context(bar)
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

    def evaluated(self, step: int, score: HeldOutScore) -> None:
        """Log a held-out score."""
        text = score.text.per_token()
        self.held_out.write({"step": step, "text": text, "all": score.total.per_token()})
        self.held_out.flush()
        if text["nll"] is not None:
            self.bar.advance(0, **{"held-out text": f"{text['nll']:.3f}"})
            self.loggers.log(step, {"heldout/nll": text["nll"], "heldout/accuracy": text["accuracy"]})

    def best_step(self) -> int | None:
        """The step with the lowest held-out NLL of text tokens so far."""
        scores = [
            (row["text"]["nll"], row["step"]) for row in self.held_out.rows if row["text"]["nll"] is not None
        ]
        return min(scores)[1] if scores else None

    def totals(self) -> dict[str, Any]:
        """Figures over all steps of the run, those before a restart included."""
        rows = self.steps.rows
        # The first steps of every start are slow, so the speed is that of the median step.
        seconds_per_token = float(np.median([row["seconds"] / row["tokens"] for row in rows]))
        return {
            "first_loss": rows[0]["nll"],
            "last_loss": float(np.mean([row["nll"] for row in rows[-20:]])),
            "tokens": int(sum(row["tokens"] for row in rows)),
            "seconds": round(sum(row["seconds"] for row in rows), 3),
            "tokens_per_second": round(1 / seconds_per_token, 1),
        }

    def _event(self, event: str, step: int, batch: int, **details: Any) -> None:
        self.events.write({"event": event, "step": step, "batch": batch, **details})
        self.events.flush()
