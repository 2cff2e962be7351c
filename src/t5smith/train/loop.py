"""The training loop: get a batch, step, write down, measure, save."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np

from t5smith.artefact import disk_errors, set_aside, write_atomically
from t5smith.errors import T5smithError
from t5smith.lock import in_run_folder
from t5smith.model.params import parameter_count
from t5smith.objective.batches import evaluation_batches, prefetched
from t5smith.progress import count, progress, say
from t5smith.recipe import Recipe
from t5smith.train import checkpoint
from t5smith.train.heldout import create_scorer, token_classes, total
from t5smith.train.metrics import HELD_OUT, STEPS, MetricsFile
from t5smith.train.setup import Setup
from t5smith.train.state import TrainState
from t5smith.train.step import StepMetrics, create_step

SETTINGS = "settings.json"


class Stopped(Exception):  # noqa: N818 - not an error: the person asked for it
    """Training was asked to stop by a signal and saved its state first."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name} after step {step}; its checkpoint is saved"
        )
        self.exit_code = 128 + number


@in_run_folder
def train(recipe: Recipe) -> Path:
    """Train to `recipe.train.steps` from the newest checkpoint there is, or from the start.

    Returns:
      The folder of the last checkpoint.

    Raises:
      T5smithError: the vocabulary or store is missing, settings do not go together, the disk is full,
        or the loss is no longer a number.
      Stopped: a SIGINT or SIGTERM came; the state was saved.
    """
    setup = Setup.create(recipe, check_hashes=True)
    steps = recipe.train.steps
    _keep_or_set_aside(setup)
    found = checkpoint.newest(setup.checkpoints, setup.made_from, up_to=steps)
    if found and found[1].facts["step"] == steps:
        say(f"train     already done: {found[0]}")
        return found[0]

    if found:
        say(f"train     going on after step {found[1].facts['step']:,}")
        state = checkpoint.read(found[0], checkpoint.abstract(setup.abstract_state()))
    else:
        state = jax.jit(setup.fresh_state)()
    parameters = parameter_count(state.parameters)
    say(f"train     {count(parameters)} parameters, {steps:,} steps of {recipe.train.batch_size} rows")
    say(f"train     {setup.objective.shape_in_words()}")
    return _Loop(setup, int(state.step)).run(state)


class _Loop:
    """The pieces one call of :func:`train` holds open."""

    def __init__(self, setup: Setup, start: int) -> None:
        self.setup, self.settings, self.start = setup, setup.recipe.train, start
        self.batches = setup.batches()
        self.metrics = MetricsFile(setup.folder / STEPS, start)
        self.held_out = MetricsFile(setup.folder / HELD_OUT, start)
        self.step = create_step(setup.config, setup.optimizer, setup.schedule, setup.step_settings)
        self.score = create_scorer(setup.config, token_classes(setup.vocabulary), setup.dtype)
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

    def run(self, state: TrainState) -> Path:
        """Train to the last step; see :func:`train`."""
        total = self.settings.steps
        saved = Path()
        waiting: StepMetrics | None = None
        self.clock = time.monotonic()
        with (
            self.metrics,
            self.held_out,
            _signals() as stop,
            progress("train", total, "steps", done=self.start) as self.bar,
        ):
            upcoming = prefetched(
                self.batches,
                self.start,
                total,
                ahead=self.settings.prefetch_batches,
                workers=self.settings.prefetch_workers,
            )
            for b, batch in enumerate(upcoming, self.start):
                state, metrics = self.step(state, batch)
                # The device has its next step before we ask for the figures of the last one.
                if waiting is not None:
                    self.record(b, waiting)
                waiting = metrics
                done = b + 1
                measuring = bool(self.fixed) and (done % self.settings.evaluate_every == 0 or done == total)
                saving = done % self.settings.checkpoint_every == 0 or done == total
                stopping = stop[0] if stop else None
                if measuring or saving or stopping:
                    self.record(done, waiting)
                    waiting = None
                if measuring:
                    self.measure(done, state)
                if saving or stopping:
                    saved = self.save(state)
                if stopping:
                    raise Stopped(stopping, done)
        return saved

    def record(self, step: int, metrics: StepMetrics) -> None:
        """Write down one step's figures; they are those of the parameters before its update."""
        values = {field.name: float(np.asarray(getattr(metrics, field.name))) for field in fields(metrics)}
        now = time.monotonic()
        seconds, self.clock = now - self.clock, now
        rate = values["tokens"] / seconds
        for name in ("loss", "gradient_norm"):
            if not np.isfinite(values[name]):
                self.metrics.flush()
                raise T5smithError(
                    f"the {name.replace('_', ' ')} is {values[name]} at step {step}",
                    where="train",
                    fix="train anew with a lower learning rate or a longer warm-up; what was trained is kept",
                )
        self.metrics.write({"step": step, **values, "seconds": round(seconds, 6)})
        self.bar.advance(
            1,
            rate=f"{count(rate)} tokens/s",
            loss=f"{values['nll']:.3f}",
            lr=f"{values['learning_rate']:.2g}",
        )
        if step % self.settings.log_every == 0:
            self.metrics.flush()

    def measure(self, step: int, state: TrainState) -> None:
        """The held-out loss, one fixed mask a window."""
        score = total(self.score(state.parameters, self.fixed))
        self.held_out.write({"step": step, "text": score.text.per_token(), "all": score.total.per_token()})
        self.held_out.flush()
        nll = score.text.per_token()["nll"]
        self.bar.advance(0, **({"held-out": f"{nll:.3f}"} if nll is not None else {}))
        self.clock = time.monotonic()

    def save(self, state: TrainState) -> Path:
        """Write a checkpoint that also says what training has cost so far."""
        self.metrics.flush()
        folder = checkpoint.save(
            self.setup.checkpoints,
            state,
            self.setup.made_from,
            self.facts(state),
            self.settings.keep_checkpoints,
        )
        self.clock = time.monotonic()
        return folder

    def facts(self, state: TrainState) -> dict[str, Any]:
        """Totals over the run, restarts included."""
        rows = self.metrics.rows
        seconds = sum(row["seconds"] for row in rows)
        tokens = sum(row["tokens"] for row in rows)
        # The first steps of every start hold the compilation: the median step tells the speed.
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
            "device": jax.devices()[0].device_kind,
        }


def _keep_or_set_aside(setup: Setup) -> None:
    """Start a fresh training folder if what decides the parameters has changed; the old one is kept."""
    path = setup.folder / SETTINGS
    with disk_errors(setup.folder):
        if path.is_file():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                before = {}
            if before != setup.made_from:
                changed = ", ".join(_differences(before, setup.made_from)) or "settings"
                moved = set_aside(setup.folder)
                say(f"train     starts anew ({changed} changed); the earlier training is kept in {moved}")
            elif _is_longer(setup):
                moved = set_aside(setup.folder)
                say(f"train     starts anew for fewer steps; the longer training is kept in {moved}")
        setup.checkpoints.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(setup.made_from, indent=1) + "\n")


def _is_longer(setup: Setup) -> bool:
    """Whether there are checkpoints beyond the steps asked for, and none at them."""
    steps, saved = setup.recipe.train.steps, checkpoint.steps_saved(setup.checkpoints)
    return bool(saved) and saved[-1] > steps and steps not in saved


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of what differs between two nested mappings."""
    names: list[str] = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            names += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            names.append(f"{prefix}{name}")
    return names


@contextmanager
def _signals() -> Generator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step; a second one is obeyed at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        say(f"{signal.Signals(number).name}: finishing the step and saving; once more stops at once")

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's business
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
