"""The training stage: check everything, find where training starts, compile, time, and train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from t5smith.base.artifact import fingerprint
from t5smith.base.errors import T5smithError
from t5smith.base.lock import in_run_folder
from t5smith.base.phase import phase
from t5smith.base.progress import info, warn
from t5smith.base.run_folder import archive_training, saved_steps
from t5smith.base.signals import Background, interruptible
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import save_run_settings
from t5smith.text.corpus import CorpusFiles
from t5smith.training.base_setup import BaseRun, initial_state
from t5smith.training.compile import CompiledStep, compile_step, compiled_step
from t5smith.training.curves.held_out import Evaluation, HeldOut
from t5smith.training.loggers import check_loggers
from t5smith.training.loop import Loop
from t5smith.training.optimizer import peak_learning_rate
from t5smith.training.resume.announce import print_start
from t5smith.training.resume.archives import (
    artifact_changes,
    matching_archive,
    restore_training,
    saved_changes,
)
from t5smith.training.resume.history import Start, find_start, open_training
from t5smith.training.schedule import warmup_steps
from t5smith.training.settle import save_record
from t5smith.training.setup import Run
from t5smith.training.timing import clock
from t5smith.training.timing.autotune import autotune
from t5smith.training.timing.clock import Clock
from t5smith.training.timing.forecast import Forecast
from t5smith.training.timing.preflight import check_disk
from t5smith.training.timing.record import CLOCK, Record, continued
from t5smith.training.timing.summary import first_forecast, print_forecast, print_summary
from t5smith.training.timing.trial import StepTrial, try_steps


@in_run_folder
def train(
    recipe: Recipe | Run, *, restart: bool = False, extend: bool = False, resume_from: Path | None = None
) -> Path:
    """Train to the recipe's last step, from the newest checkpoint or from the start.

    Nothing on the disk changes before all checks have passed.

    Args:
      recipe: the recipe, or its opened run.
      restart: archive the trained steps and begin again.
      extend: continue on another schedule from the newest checkpoint; see :func:`find_start`.
      resume_from: an archived training that first comes back into place.

    Returns:
      The folder of the last checkpoint.

    Raises:
      TrainingAtStake: steps are trained with other settings.
      T5smithError: the vocabulary or store is missing, settings do not fit each other, the step does not fit
        into memory, checkpoints do not fit on the disk, the last one cannot be written, or gradients stay
        unusable.
      Stopped: a SIGINT, SIGTERM or SIGUSR1 arrived; the state was saved.
    """
    begun = clock.now()
    run = Run.of(recipe, restart=restart)
    check_loggers(run.recipe.train)
    if resume_from is not None:
        restore_training(run.recipe, resume_from)
    stage = _stage_to_keep(run.recipe, restored=resume_from is not None)
    hint = partial(matching_archive, run.recipe)
    keep = partial(save_run_settings, run.recipe, stage)
    return train_run(run, begun, HeldOut, extend=extend, hint=hint, keep=keep)


def train_run(
    run: BaseRun[Any],
    begun: float,
    evaluation: Callable[[Any, int | None], Evaluation],
    *,
    extend: bool = False,
    hint: Callable[[], str | None] = lambda: None,
    keep: Callable[[], None] = lambda: None,
) -> Path:
    """Find where training starts, compile, time, and train, whatever the examples are.

    Args:
      run: what to train.
      begun: the moment at which the call began, by the clock of `train.hours`.
      evaluation: makes it from the setup, and the number of windows of earlier evaluations.
      extend: see :func:`train`.
      hint: another way to continue, for messages.
      keep: writes the settings into the run folder, once all checks have passed.

    Returns:
      The folder of the last checkpoint.
    """
    tried = autotune(run, begun)
    steps = run.setup.recipe.train.steps
    with phase("train", "looking for checkpoints", at_once=False):
        start = find_start(run.history, run.setup.inputs, steps, extend=extend, hint=hint)
    run.setup = replace(run.setup, inputs=start.inputs)
    record = _record(run, start)
    setup, steps = run.setup, run.setup.recipe.train.steps
    if extend and start.inputs.get("extended", []) == run.history.extensions:
        info("train     --extend has no effect: the trained steps continue without it")
    if start.checkpoint and start.step == steps:
        info(f"train     already done: {start.checkpoint[0]}")
        _verify(run)
        run.trained = start.checkpoint
        keep()
        return start.checkpoint[0]
    step = tried[0] if tried else _compiled_meanwhile(run, fresh=start.checkpoint is None)
    check_disk(run.recipe, setup, len(saved_steps(setup.checkpoints)) if start.checkpoint else 0)
    if run.restart:
        archive_training(run.folder)
    open_training(run.folder, start)
    keep()
    print_start(run.recipe, setup, start, run.history, None if run.restart else hint())
    create = partial(evaluation, setup)
    return _take_steps(run, start, step, create, tried[1] if tried else None, record, begun)


def _take_steps(
    run: BaseRun[Any],
    start: Start,
    step: CompiledStep,
    evaluation: Callable[[int | None], Evaluation],
    trial: StepTrial | None,
    record: Record | None,
    begun: float,
) -> Path:
    """Train; returns what :func:`train` does. Without `train.hours` the first steps are the trial."""
    setup = run.setup
    folder, facts = (start.checkpoint[0], start.checkpoint[1].facts) if start.checkpoint else (None, {})
    print_summary(setup, step)
    plan, seconds = evaluation(None).plan, None
    if record is not None:
        seconds = (trial or try_steps(setup, step)).seconds
    forecast = first_forecast(setup, seconds, plan.every, plan.windows)
    timer = _clock(run, record, forecast, facts, begun) if record else None
    report = partial(print_forecast, setup, forecast, plan.windows)
    if seconds is not None:
        report(seconds, start.step)
    loop = Loop(setup, step, facts, forecast, evaluation, timer, report if seconds is None else None)
    return loop.run(initial_state(setup, folder))


def _compiled_meanwhile(run: BaseRun[Any], *, fresh: bool) -> CompiledStep:
    """The compiled step.

    Compiling is work of C++: meanwhile the store is read, and the program of a `fresh` state is made.
    """
    compiling = Background(compile_step, run.setup)
    _verify(run)
    if fresh and run.setup.source is None:
        interruptible(run.setup.fresh_program)
    return compiled_step(run.setup, compiling)


def _verify(run: BaseRun[Any]) -> None:
    with phase("train", "checking the store", at_once=False):
        run.verify_data()


def _stage_to_keep(recipe: Recipe, *, restored: bool) -> str | None:
    """The stage whose settings the run folder gets: training, or all (None) if all in it is the recipe's.

    After a restore, the recipe in the run folder may still be that of the training that was exchanged.
    """
    folder, unused = recipe.folder, saved_changes(recipe)
    if restored or unused:
        # Without its text, the artifacts cannot be compared with the recipe.
        with suppress(T5smithError):
            files = CorpusFiles.find(recipe.corpus)
            if not artifact_changes(recipe, files, folder / "vocab", folder / "store"):
                return None
    if unused:
        warn(f"no effect on the vocabulary and store in place: {'; '.join(unused)}")
    return "train"


def _record(run: BaseRun[Any], start: Start) -> Record | None:
    """What the clock decided for this training, which the run then follows; None if its steps are fixed."""
    setup, found = run.setup, run.clock
    if setup.hours is None or found is None:
        return None
    key = fingerprint(setup.inputs)
    record = continued(found, setup.hours, start.step, setup.recipe.train.steps, key)
    _set_steps(run, record.end)
    return record


def _set_steps(run: BaseRun[Any], steps: int) -> None:
    """Set the number of steps that the clock decided."""
    run.setup = replace(run.setup, recipe=run.setup.recipe.replace(**{"train.steps": steps}))


def _clock(
    run: BaseRun[Any], record: Record, forecast: Forecast, facts: Mapping[str, Any], begun: float
) -> Clock:
    """The clock of a start, from the facts of its checkpoint; its record is kept."""
    train = run.setup.recipe.train
    save_record(run.recipe, record)
    peak = peak_learning_rate(run.setup.recipe)
    warmup = warmup_steps(train.schedule, train.steps)
    spent = float(facts[CLOCK]["seconds"]) if CLOCK in facts else 0.0

    def save(record: Record) -> None:
        save_record(run.recipe, record)
        if record.finished:
            _set_steps(run, record.end)

    return Clock(record, forecast, peak, warmup, spent=spent, begun=begun, save=save)
