"""The training loop: get a batch, step, write down, measure, save; and go back when it goes wrong."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.base.lock import in_run_folder
from t5smith.base.progress import count, info, progress, warn
from t5smith.model.flops import step_flops
from t5smith.model.params import parameter_count
from t5smith.objective.batches import evaluation_batches, prefetched
from t5smith.parallel.hardware import memory_in_use, peak_tflops
from t5smith.recipe.recipe import Recipe
from t5smith.training import checkpoints as checkpoint
from t5smith.training.compile import (
    CompiledStep,
    compiled_step,
    decide,
    out_of_memory,
    print_summary,
    trial_seconds,
)
from t5smith.training.eval_step import create_scorer, token_classes, total
from t5smith.training.loggers import Loggers
from t5smith.training.metrics import EVENTS, HELD_OUT, STEPS, MetricsFile, up_to
from t5smith.training.run_folder import archive_if_incompatible
from t5smith.training.setup import Setup
from t5smith.training.signals import Stopped, deferred_signals
from t5smith.training.state import SkippedBatches, TrainState
from t5smith.training.step import StepMetrics

MOST_ROLLBACKS = 3
"""So many times training goes back to the same checkpoint before it gives up."""


class _Diverged(Exception):  # noqa: N818 - caught by the loop itself
    """So many updates in a row could not be followed that something before them must have gone wrong."""

    def __init__(self, batch: int) -> None:
        super().__init__(batch)
        self.batch = batch


@in_run_folder
def train(recipe: Recipe) -> Path:
    """Train to the recipe's last step from the newest checkpoint there is, or from the start.

    Returns:
      The folder of the last checkpoint.

    Raises:
      T5smithError: the vocabulary or store is missing, settings do not go together, the step does not fit
        into memory, the last checkpoint does not fit on the disk, or the gradients stay unusable.
      Stopped: a SIGINT, SIGTERM or SIGUSR1 came; the state was saved.
    """
    decide(recipe)
    setup = Setup.create(recipe, check_hashes=True)
    steps = setup.recipe.train.steps
    archive_if_incompatible(setup)
    found = checkpoint.latest(setup.checkpoints, setup.inputs, up_to=steps)
    if found and found[1].facts["step"] == steps:
        info(f"train     already done: {found[0]}")
        return found[0]
    facts = found[1].facts if found else {"step": 0}
    if found:
        info(f"train     going on after step {facts['step']:,}")
    step = compiled_step(setup)
    print_summary(setup, step, trial_seconds(setup, step), facts["step"])
    return _Loop(setup, step, facts).run(_restored(setup, found[0] if found else None))


def _restored(setup: Setup, folder: Path | None) -> TrainState:
    """A checkpoint's state, or that before the first step."""
    if folder is None:
        return setup.fresh_state()
    return checkpoint.restore(folder, setup.abstract_state())


class _Loop:
    """The pieces one call of :func:`train` holds open.

    `done` counts updates, `batch` is the number of the next batch: both of the newest step whose figures are
    known. While the device works on one step, those of the one before are read.
    """

    def __init__(self, setup: Setup, step: CompiledStep, facts: dict[str, Any]) -> None:
        self.setup, self.settings, self.step = setup, setup.recipe.train, step
        self.batches = setup.batches()
        self.steps = MetricsFile(setup.folder / STEPS, up_to(facts["step"]))
        self.held_out = MetricsFile(setup.folder / HELD_OUT, up_to(facts["step"]))
        self._resume_from(facts)
        self.events = MetricsFile(setup.folder / EVENTS, lambda row: row["batch"] < self.batch)
        keep = checkpoint.Retention(self.settings.keep_checkpoints, self.settings.keep_every)
        self.saver = checkpoint.AsyncSaver(setup.checkpoints, setup.inputs, keep)
        self.saved = facts["step"]
        self.rollback_step, self.returns = -1, 0
        self.score = create_scorer(setup.config, token_classes(setup.vocabulary), setup.dtype)
        shape = setup.objective.input_length, setup.objective.target_length
        flops = step_flops(setup.config, setup.recipe.train.rows, *shape)
        self.share_of_peak = flops / (peak_tflops(setup.dtype) * 1e12 * jax.device_count())
        self.fixed = (
            evaluation_batches(
                setup.store.valid,
                setup.objective,
                batch_size=setup.recipe.evaluate.batch_size,
                masks_per_window=1,
                windows=setup.recipe.evaluate.windows,
            )
            if self.settings.evaluate_every
            else []
        )

    def _resume_from(self, facts: dict[str, Any]) -> None:
        self.done = int(facts["step"])
        self.skipped = SkippedBatches(facts.get("skipped_batches", ()))
        self.batch = self.done + len(self.skipped)
        self.in_a_row = int(facts.get("skipped_in_a_row", 0))

    def run(self, state: TrainState) -> Path:
        """Train to the last step; see :func:`train`."""
        self.clock = time.monotonic()
        with ExitStack() as open_:
            for file in (self.steps, self.held_out, self.events):
                open_.enter_context(file)
            open_.callback(self.saver.close)
            stop = open_.enter_context(deferred_signals())
            notes = ("loss", "held-out", "left out", "lr")
            bar = progress("train", self.settings.steps, "steps", self.done, notes)
            self.bar = open_.enter_context(bar)
            self.loggers = Loggers(self.setup.recipe, self.setup.folder, self.done)
            open_.callback(self.loggers.close)
            while self.done < self.settings.steps:
                try:
                    state = self._train_until_rollback(state, stop)
                except _Diverged as diverged:
                    del state
                    state = self.roll_back(diverged.batch)
            saved = self.saver.finish()
        if self.saver.failed:
            warn(f"checkpoints that could not be written on the way: {self.saver.failed}")
        return saved or checkpoint.checkpoint_folder(self.setup.checkpoints, self.done)

    def _train_until_rollback(self, state: TrainState, stop: list[int]) -> TrainState:
        """As many steps as there are updates left; fewer of them are updates if some are left out."""
        first, left = self.batch, self.settings.steps - self.done
        upcoming = prefetched(
            self.batches,
            first,
            first + left,
            ahead=self.settings.prefetch_batches,
            workers=self.settings.prefetch_workers,
        )
        waiting: StepMetrics | None = None
        for batch in upcoming:
            with out_of_memory(self.step.rows, self.step.memory):
                state, metrics = self.step.run(state, batch)
                # The device has its next step before we ask for the figures of the last one.
                if waiting is not None:
                    self.record(waiting)
            waiting = metrics
            due = self._due(self.done + 1)
            stopping = stop[0] if stop else None
            if any(due) or stopping:
                applied = self.record(waiting)
                waiting = None
                if applied:
                    self._evaluate_and_save(state, *due)
                if stopping:
                    self.stop(state, stopping)
        if waiting is not None:
            self.record(waiting)
        return state

    def _due(self, done: int) -> tuple[bool, bool]:
        """Whether to measure and whether to save after so many updates."""
        last = done == self.settings.steps
        measuring = bool(self.fixed) and (last or done % self.settings.evaluate_every == 0)
        return measuring, last or done % self.settings.checkpoint_every == 0

    def _evaluate_and_save(self, state: TrainState, measuring: bool, saving: bool) -> None:
        if measuring:
            self.evaluate(state)
        if saving or self.best() == self.done:
            self.save(state)

    def best(self) -> int | None:
        """The step of the lowest held-out NLL so far, if its checkpoint is to be kept."""
        measured = [
            (row["text"]["nll"], row["step"]) for row in self.held_out.rows if row["text"]["nll"] is not None
        ]
        return min(measured)[1] if measured and self.settings.keep_best else None

    def record(self, metrics: StepMetrics) -> bool:
        """Write down one step's figures, which are those of the parameters before its update.

        Returns:
          Whether the update was made.

        Raises:
          _Diverged: it was not, nor were those before it.
        """
        fetched = jax.device_get({field.name: getattr(metrics, field.name) for field in fields(metrics)})
        values = {name: float(value) for name, value in fetched.items()}
        now = time.monotonic()
        seconds, self.clock = now - self.clock, now
        batch, self.batch = self.batch, self.batch + 1
        if not values.pop("applied"):
            self.skip_update(batch, values)
            return False
        self.in_a_row = 0
        self.done += 1
        rate = values["tokens"] / seconds
        row = {"step": self.done, **values, "seconds": round(seconds, 6)}
        row |= {"tokens_per_second": round(rate, 1), "mfu": round(self.share_of_peak / seconds, 4)}
        if (memory := memory_in_use()) is not None:
            row |= {"memory_bytes": memory[0], "peak_memory_bytes": memory[1]}
        self.steps.write(row)
        self.bar.advance(
            1,
            rate=f"{count(rate)} tokens/s",
            loss=f"{values['nll']:.3f}",
            lr=f"{values['learning_rate']:.2g}",
        )
        if self.done % self.settings.log_every == 0:
            self.steps.flush()
            self.log({f"train/{name}": value for name, value in row.items() if name != "step"})
        return True

    def skip_update(self, batch: int, values: dict[str, float]) -> None:
        """Note that a batch's update was not made; its figures may not be numbers."""
        self.in_a_row += 1
        self.skipped.add(batch)
        told = {
            name: values[name] if np.isfinite(values[name]) else None for name in ("loss", "gradient_norm")
        }
        self.events.write({"event": "left out", "step": self.done, "batch": batch, **told})
        self.events.flush()
        warn(
            f"the update by batch {batch:,} is left out after step {self.done:,}: loss {values['loss']:.3g}, "
            f"gradient norm {values['gradient_norm']:.3g}"
        )
        self.bar.advance(0, **{"left out": str(len(self.skipped))})
        if self.in_a_row >= self.settings.rollback_after:
            raise _Diverged(batch)

    def roll_back(self, batch: int) -> TrainState:
        """The state of the last good checkpoint; the batches from there to this one are passed over.

        Raises:
          T5smithError: that did not help before.
        """
        self.saver.wait()
        found = checkpoint.latest(self.setup.checkpoints, self.setup.inputs, up_to=self.done)
        facts = found[1].facts if found else {"step": 0}
        self.returns = self.returns + 1 if facts["step"] == self.rollback_step else 1
        self.rollback_step = facts["step"]
        if self.returns > MOST_ROLLBACKS:
            raise T5smithError(
                f"gradients stay unusable after step {facts['step']:,}, whichever batches are passed over",
                where="train",
                fix="train anew with a lower learning rate or a longer warm-up; what was trained is kept",
            )
        self._resume_from(facts)
        warn(f"going back to step {self.done:,} and past the batches from {self.batch:,} to {batch:,}")
        for file in (self.steps, self.held_out):
            file.cut_back(up_to(self.done))
        self.skipped.add(self.batch, batch)
        self.events.write({"event": "gone back", "step": self.done, "batch": batch, "from_batch": self.batch})
        self.events.flush()
        self.batch, self.in_a_row = batch + 1, 0
        self.bar.advance(self.done - self.bar.done)
        return _restored(self.setup, found[0] if found else None)

    def evaluate(self, state: TrainState) -> None:
        """The held-out loss, one fixed mask a window."""
        score = total(self.score(state.eval_params, self.fixed))
        text = score.text.per_token()
        self.held_out.write({"step": self.done, "text": text, "all": score.total.per_token()})
        self.held_out.flush()
        nll = text["nll"]
        if nll is not None:
            self.bar.advance(0, **{"held-out": f"{nll:.3f}"})
            self.log({"heldout/nll": nll, "heldout/accuracy": text["accuracy"]})
        self.clock = time.monotonic()

    def log(self, values: dict[str, float]) -> None:
        """Let the loggers know."""
        self.loggers.log(self.done, values)

    def save(self, state: TrainState) -> None:
        """Begin to write a checkpoint that also says what training has cost so far."""
        self.steps.flush()
        self.saver.save(state, self.facts(state), self.best())
        self.saved = self.done
        self.clock = time.monotonic()

    def stop(self, state: TrainState, number: int) -> None:
        """Save, unless that was just done or there is nothing yet, and leave."""
        if self.done and self.saved != self.done:
            self.save(state)
        self.saver.finish()
        raise Stopped(number, self.done)

    def facts(self, state: TrainState) -> dict[str, Any]:
        """Totals over the run, restarts included, and what going on needs besides the state."""
        rows = self.steps.rows
        seconds = sum(row["seconds"] for row in rows)
        tokens = sum(row["tokens"] for row in rows)
        # The first steps of every start are slow: the median step tells the speed.
        typical = float(np.median([row["seconds"] / row["tokens"] for row in rows]))
        return {
            "parameters": parameter_count(state.parameters),
            "vocab_size": self.setup.config.vocab_size,
            "real_vocab_size": self.setup.config.real_vocab_size,
            "first_loss": rows[0]["nll"],
            "ln_vocab": self.setup.log_of_vocabulary(),
            "last_loss": float(np.mean([row["nll"] for row in rows[-20:]])),
            "tokens": int(tokens),
            "seconds": round(seconds, 3),
            "tokens_per_second": round(1 / typical, 1),
            "skipped_batches": self.skipped.to_json(),
            "skipped_in_a_row": self.in_a_row,
            "device": jax.devices()[0].device_kind,
        }
