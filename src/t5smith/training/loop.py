"""The training loop: get a batch, step, log, evaluate, save; roll back if gradients stay unusable."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax

from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.base.progress import warn
from t5smith.base.signals import Stopped, deferred_signals, interruptible
from t5smith.model.params import parameter_count
from t5smith.objective.batches import prefetched
from t5smith.training.base_setup import TrainingSetup, initial_state
from t5smith.training.compile import CompiledStep, out_of_memory
from t5smith.training.curves.advice import print_outlook, print_verdict, verdict
from t5smith.training.curves.held_out import Evaluation
from t5smith.training.curves.repetition import corpus_use, use_facts
from t5smith.training.metrics import TrainingLog
from t5smith.training.resume import checkpoints
from t5smith.training.state import SkippedBatches, TrainState
from t5smith.training.step import StepMetrics
from t5smith.training.timing import clock
from t5smith.training.timing.clock import Clock
from t5smith.training.timing.forecast import Forecast
from t5smith.training.timing.record import CLOCK
from t5smith.training.timing.trial import FirstSteps, seconds_at_peak

SLOW_STEP_SECONDS = 1.0
"""The wait for a faster step need not be interruptible."""
LAST_BATCH = 1_000_000_000
"""More batches than any training takes."""
MAX_ROLLBACKS = 3
"""Training gives up after this many rollbacks to the same checkpoint."""


class _Diverged(Exception):  # noqa: N818 - caught by the loop itself
    """`train.rollback_after` updates in a row were skipped."""


class Loop:
    """One call of :func:`t5smith.training.train.train`.

    Attributes:
      done: number of updates.
      batch: number of the next batch. Both are as of the newest step whose figures were read: they are read
        while the device works on the next step.
    """

    def __init__(
        self,
        setup: TrainingSetup,
        step: CompiledStep,
        facts: dict[str, Any],
        forecast: Forecast,
        evaluation: Callable[[int | None], Evaluation],
        timer: Clock | None = None,
        report: Callable[[float, int], None] | None = None,
    ) -> None:
        """Open the log.

        Args:
          setup: the run.
          step: its program.
          facts: those of the checkpoint to resume from.
          forecast: of the time.
          evaluation: makes it, from the number of windows of earlier evaluations.
          timer: corrects the end.
          report: called with the seconds of a step and the steps behind, once the first steps told them.
        """
        self.timer = timer
        self.first = FirstSteps(lambda seconds: report(seconds, self.done)) if report else None
        self.setup, self.settings, self.step, self.forecast = setup, setup.recipe.train, step, forecast
        self._resume_from(facts)
        self.saved, self.rollback_step, self.rollbacks = self.done, -1, 0
        self.log = TrainingLog(setup.recipe, setup.folder, self.done, self.batch)
        retention = checkpoints.Retention(
            self.settings.keep_checkpoints, self.settings.keep_every, setup.branch_step
        )
        self.saver = checkpoints.AsyncSaver(setup.checkpoints, setup.inputs, retention)
        self.seconds_at_peak: float | None = None
        self.held_out = evaluation(self.log.curve.windows)
        self.is_enough = self.held_out.is_enough(self.log.since_best())

    def _resume_from(self, facts: dict[str, Any]) -> None:
        self.done = int(facts.get("step", 0))
        self.skipped = SkippedBatches(facts.get("skipped_batches", ()))
        self.skipped_in_a_row = int(facts.get("skipped_in_a_row", 0))
        self.batch = self.done + len(self.skipped)

    @property
    def end(self) -> int:
        """Number of steps, as far as it is known."""
        if self.is_enough:
            return self.done
        return self.timer.end if self.timer else self.settings.steps

    def run(self, state: TrainState) -> Path:
        """Train to the last step; see :func:`t5smith.training.train.train`."""
        print_outlook(self.setup, self.held_out.plan)
        self.clock = clock.now()
        with self.log, closing(self.saver), deferred_signals() as signals:
            self._expect()
            first = not self.done and self.setup.source is not None and self.log.curve.windows is None
            if self.held_out.due(self.done, self.end) and (first or self.log.curve.last_step < self.done):
                # A source's own loss; or a signal ended the evaluation of this step after it was saved.
                self.evaluate(state, signals)
            while self.done < self.end:
                try:
                    state = self._train_until_rollback(state, signals)
                except _Diverged:
                    del state
                    state = self.roll_back()
            with phase("train", "writing the last checkpoint"):
                saved = self.saver.finish()
        if self.saver.failed:
            warn(f"checkpoints that could not be written: {self.saver.failed}")
        print_verdict(verdict(self.log.curve.points), keep_best=self.settings.keep_best)
        return saved or checkpoints.checkpoint_folder(self.setup.checkpoints, self.done)

    def _train_until_rollback(self, state: TrainState, signals: Sequence[int]) -> TrainState:
        """Take as many batches as updates are left; skipped ones need another call."""
        upcoming = prefetched(
            self.setup.batches(),
            self.batch,
            # The clock may add steps; those it takes away are not asked for.
            self.batch + (LAST_BATCH if self.timer else self.end - self.done),
            ahead=self.settings.prefetch_batches,
            workers=self.settings.prefetch_workers,
        )
        unread: StepMetrics | None = None
        for batch in upcoming:
            with out_of_memory(self.step.batch_size, self.step.memory):
                points = (self.timer.points(self.done),) if self.timer else ()
                state, metrics = self.step.run(state, batch, *points)
                # The device has its next step before the host waits for the figures of the previous one.
                if unread is not None:
                    self.record(unread)
            unread = metrics
            evaluating, saving = self._due(self.done + 1)
            # The device's speed is measured while it has no step to do.
            if evaluating or saving or signals or self.seconds_at_peak is None:
                updated, unread = self.record(metrics), None
                if updated and evaluating:
                    self.evaluate(state, signals)
                if updated and (saving or self.is_enough or self.best() == self.done):
                    self.save(state)
                if signals:
                    self.stop(state, signals[0])
            if self.done + (unread is not None) >= self.end:
                break
        if unread is not None:
            self.record(unread)
        return state

    def _due(self, step: int) -> tuple[bool, bool]:
        """Whether to evaluate, and whether to save, after a step."""
        last = step == self.end
        saving = last or step == self.setup.branch_step or step % self.settings.checkpoint_every == 0
        return self.held_out.due(step, self.end), saving

    def best(self) -> int | None:
        """The step with the lowest held-out NLL so far, if its checkpoint is to be kept."""
        return self.log.best_step() if self.settings.keep_best else None

    def record(self, metrics: StepMetrics) -> bool:
        """Read and log the figures of a step, which are those of the parameters before its update.

        Returns:
          Whether the update was made.

        Raises:
          _Diverged: neither this update nor those before it were made.
        """
        read = {field.name: getattr(metrics, field.name) for field in fields(metrics)}
        # A second signal ends the wait for a slow step at once.
        slow = self.forecast.step > SLOW_STEP_SECONDS
        figures = interruptible(jax.device_get, read) if slow else jax.device_get(read)
        figures = {name: float(value) for name, value in figures.items()}
        now = clock.now()
        seconds = now - self.clock
        if self.seconds_at_peak is None:
            self.seconds_at_peak = seconds_at_peak(self.setup)
            now = clock.now()
        self.clock = now
        batch, self.batch = self.batch, self.batch + 1
        if not figures.pop("applied"):
            self.skip_update(batch, figures)
            return False
        self.skipped_in_a_row = 0
        self.done += 1
        self.forecast.stepped(seconds)
        if self.timer:
            self._keep_time(self.timer)
        if self.first and self.first.stepped(seconds):
            self.first = None
        self._expect()
        self.log.updated(self.done, figures, seconds, self.seconds_at_peak / seconds)
        return True

    def _expect(self) -> None:
        """Show the time left, if it is known."""
        if self.forecast.known:
            self.log.bar.expect(self.forecast.left(self.done))

    def _keep_time(self, timer: Clock) -> None:
        """Correct the last step if it is time."""
        if self.done == timer.end:
            timer.finish()
        elif timer.updated(self.done):
            self.log.bar.resize(timer.end)

    def skip_update(self, batch: int, figures: dict[str, float]) -> None:
        """Log a batch whose update was not made."""
        self.skipped_in_a_row += 1
        self.skipped.add(batch)
        self.log.skipped(self.done, batch, figures, len(self.skipped))
        if self.skipped_in_a_row >= self.settings.rollback_after:
            raise _Diverged

    def roll_back(self) -> TrainState:
        """Return to the newest checkpoint and skip all batches used since.

        Raises:
          T5smithError: that did not help before.
        """
        self.saver.wait()
        last = self.batch - 1
        found = checkpoints.latest(self.setup.checkpoints, self.setup.inputs, up_to=self.done)
        folder, facts = (found[0], found[1].facts) if found else (None, {"step": 0})
        self.rollbacks = self.rollbacks + 1 if facts["step"] == self.rollback_step else 1
        self.rollback_step = facts["step"]
        if self.rollbacks > MAX_ROLLBACKS:
            raise T5smithError(
                f"gradients stay unusable after step {facts['step']:,}, whichever batches are skipped",
                where="train",
                fix="train with a lower learning rate or a longer warm-up; the checkpoints are kept",
            )
        self._resume_from(facts)
        self.log.rolled_back(self.done, self.batch, last)
        self.skipped.add(self.batch, last)
        self.batch, self.skipped_in_a_row = last + 1, 0
        return initial_state(self.setup, folder)

    def evaluate(self, state: TrainState, signals: Sequence[int]) -> None:
        """Log the held-out loss, with one fixed mask per window; a signal ends it without."""
        with phase("train", "evaluating"), self._timed(self.forecast.evaluated):
            found = self.held_out.evaluate(state.eval_params, signals)
            if found is not None:
                self.log.evaluated(self.done, found.row, found.figures)
                self.is_enough = self.held_out.is_enough(self.log.since_best())

    def save(self, state: TrainState) -> None:
        """Start to write a checkpoint."""
        with phase("train", "saving a checkpoint"), self._timed(self.forecast.saved):
            self.log.steps.flush()
            self.saver.save(state, self.facts(state), self.best())
        self.saved = self.done

    @contextmanager
    def _timed(self, report: Callable[[float], None]) -> Generator[None]:
        """Report the seconds of the body, which are not those of a step."""
        begun = clock.now()
        yield
        self.clock = clock.now()
        report(self.clock - begun)
        self._expect()

    def stop(self, state: TrainState, number: int) -> None:
        """Save the state unless it is saved or has no update, and raise Stopped."""
        if self.done and self.saved != self.done:
            self.save(state)
        self.saver.finish()
        raise Stopped(number, self.done)

    def facts(self, state: TrainState) -> dict[str, Any]:
        """The facts of a checkpoint: totals over the run, and what it takes to resume besides the state."""
        return {
            "parameters": parameter_count(state.parameters),
            "vocab_size": self.setup.config.vocab_size,
            "real_vocab_size": self.setup.config.real_vocab_size,
            "ln_vocab": math.log(self.setup.config.real_vocab_size),
            **use_facts(corpus_use(self.setup, self.batch)),
            **self.log.facts(),
            "skipped_batches": self.skipped.to_json(),
            "skipped_in_a_row": self.skipped_in_a_row,
            **({CLOCK: self.timer.facts()} if self.timer else {}),
            **self.setup.devices.facts(self.setup.compute),
        }
