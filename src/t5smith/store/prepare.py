"""From text and a vocabulary to the token store.

The text is read block by block (:mod:`t5smith.store.plan`) by tasks that write a shard for each block.
Finished shards are kept however a run ends, and are not made again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t5smith.base import artifact
from t5smith.base.lock import in_run_folder
from t5smith.base.phase import phase
from t5smith.base.progress import Bar, count, info, progress, warn
from t5smith.base.run_folder import differences, up_to_date
from t5smith.recipe.recipe import Recipe, plain
from t5smith.recipe.toml import save_run_settings
from t5smith.store.dedup import remove_duplicates
from t5smith.store.merge import finish_store, list_shards
from t5smith.store.plan import Plan
from t5smith.store.reuse import keep_notes, kept_notes, take_over
from t5smith.store.tasks.executors import run_tasks
from t5smith.store.tasks.task import forget_reports, read_progress, run_task
from t5smith.store.token_store import verify_store
from t5smith.store.worker import Progress
from t5smith.store.workspace import Workspace, discard
from t5smith.text.cleaning.exclusion import Exclusions
from t5smith.text.cleaning.pipeline import cleaning_inputs
from t5smith.text.corpus import CorpusFiles, named_weights
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.train import text_changes, vocab_inputs, with_text_of
from t5smith.vocabulary.vocabulary import Vocabulary

FORMAT = 4
"""Increase when a store of the version before cannot be used: everyone's text is then prepared again."""
NOTES_FORMAT = 4
"""Increase when an unfinished store with notes of the version before cannot be continued."""
IN_PROCESS_BYTES = 4 << 20
"""A corpus of fewer bytes is read in this process: starting others would take longer."""


def prepare(
    recipe: Recipe, *, verify: bool = False, files: CorpusFiles | None = None, restart: bool = False
) -> Path:
    """Encode a recipe's text as a token store. Nothing is done if it exists and its inputs are unchanged.

    Args:
      recipe: names the text and the run folder, which must have a vocabulary.
      verify: only read the whole existing store and check it.
      files: the recipe's files. Default: they are found now.
      restart: archive trained steps if they need another store than the recipe's.

    Returns:
      The store's folder.

    Raises:
      TrainingAtStake: steps are trained on a store of other settings or other text.
      T5smithError: no vocabulary, unreadable text, a split without text, a full disk; with `verify`: no
        store, or a damaged one.
    """
    if not verify:
        return _prepare(recipe, files, restart)
    folder = recipe.folder / "store"
    verify_store(folder)
    return folder


@in_run_folder
def _prepare(recipe: Recipe, files: CorpusFiles | None, restart: bool) -> Path:
    folder = recipe.folder / "store"
    beside = Workspace.beside(folder)
    vocab_folder = recipe.folder / "vocab"
    vocab_manifest = artifact.read_manifest(vocab_folder, "vocab")
    named_weights(recipe.corpus)
    alone, files = files is None, files or CorpusFiles.find(recipe.corpus)
    inputs = store_inputs(recipe, files, vocab_manifest)
    key = artifact.fingerprint(inputs)
    if found := up_to_date(folder, "store", inputs, restart=restart):
        discard(beside.notes)
        discard(beside.store)
        skipped = SkippedRecords(recipe.corpus.strict)
        skipped.merge(found.facts["skipped_records"])
        skipped.raise_if_strict()
        save_run_settings(recipe, "prepare")
        info(f"prepare   unchanged: {found.facts['train']['tokens']:,} tokens in {folder}")
        return folder
    _report_vocabulary(vocab_manifest.inputs, vocab_inputs(recipe, inputs["corpus"]), text=alone)
    vocabulary = Vocabulary.load(vocab_folder)
    with artifact.disk_errors(folder):
        with phase("prepare", "planning", at_once=False):
            workspace = beside.of(key)
            for other in (*beside.store.glob("*"), *beside.notes.glob("*")):
                if other not in (workspace.store, workspace.notes):
                    discard(other)
            plan = _plan(recipe, files, workspace, key, vocab_folder)
            if exclusions := Exclusions.read(recipe, files):
                exclusions.save(workspace.notes)
            if not recipe.cleaning.duplicate_steps:
                take_over(folder, workspace, plan, files, inputs)
        _run(recipe, workspace, plan)
        if recipe.cleaning.duplicate_steps:
            remove_duplicates(recipe, workspace, list(list_shards(workspace, plan)), vocabulary)
        with phase("prepare", "merging the shards", at_once=False):
            finish_store(recipe, workspace, plan, vocabulary, inputs, files.notes.facts(), exclusions)
        artifact.replace_atomically(workspace.store, folder)
        discard(kept_notes(folder))
        if not recipe.cleaning.duplicate_steps:
            keep_notes(folder, workspace, plan, files, inputs)
        discard(beside.notes)
        discard(beside.store)
    save_run_settings(recipe, "prepare")
    return folder


def store_inputs(recipe: Recipe, files: CorpusFiles, vocab: artifact.Manifest) -> dict[str, Any]:
    """All that a store depends on, with the vocabulary of this manifest."""
    return {
        "format": FORMAT,
        "vocab": vocab.files["tokenizer.json"]["sha256"],
        "corpus": files.inputs(),
        "prepare": {"document_separator": recipe.prepare.document_separator},
        **cleaning_inputs(recipe),
    }


def _report_vocabulary(before: Mapping[str, Any], now: Mapping[str, Any], *, text: bool) -> None:
    """Report how the existing vocabulary differs from the recipe's; `text`: also if only in its text."""
    if "corpus" not in before:
        return  # it was imported
    if changed := differences(before, with_text_of(before, now)):
        changes = "; ".join(changed)
        warn(f"the vocabulary was trained with other settings ({changes}); `t5smith vocab` trains it again")
    elif text and (files := text_changes(before, now)):
        info(f"prepare   vocabulary kept ({files}; `t5smith vocab --retrain-vocab` trains it again)")


def _plan(recipe: Recipe, files: CorpusFiles, workspace: Workspace, key: str, vocab: Path) -> Plan:
    """The plan of an unfinished run with the same key, or a new one in empty folders."""
    job = workspace.notes / "job.json"
    draft = Workspace(workspace.store, workspace.notes, draft=bool(recipe.cleaning.duplicate_steps))
    # Notes without an unfinished store are what remained when a finished run was removing them.
    resume = workspace.store.is_dir() and job.is_file()
    if resume:
        found = json.loads(job.read_text(encoding="utf-8"))
        resume = (found["key"], found.get("notes_format")) == (key, NOTES_FORMAT)
    plan = Plan.create(files)
    tasks = _number_of_tasks(recipe, plan)
    # The plan names the files, which may have been moved since.
    if resume and Plan.read(workspace.notes / "plan.json") == plan:
        draft.make()
        forget_reports(workspace.notes, tasks)
    else:
        discard(workspace.store)
        discard(workspace.notes)
        draft.make()
    artifact.write_atomically(workspace.notes / "plan.json", plan.to_json())
    job_fields = {
        "key": key,
        "notes_format": NOTES_FORMAT,
        "recipe": plain(recipe),
        "tasks": tasks,
        "vocab": str(vocab.absolute()),
        "store": str(workspace.store.absolute()),
    }
    artifact.write_atomically(job, json.dumps(job_fields, ensure_ascii=False))
    return plan


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_small(plan: Plan) -> bool:
    return sum(unit.bytes for unit in plan.units) < IN_PROCESS_BYTES


def _number_of_tasks(recipe: Recipe, plan: Plan) -> int:
    settings = recipe.prepare
    return settings.tasks or (1 if _is_small(plan) and settings.executor == "local" else _cores())


def _run(recipe: Recipe, workspace: Workspace, plan: Plan) -> None:
    settings = recipe.prepare
    tasks = _number_of_tasks(recipe, plan)
    with progress("prepare", plan.bytes_to_read(tasks) or None, "bytes") as bar:
        view = _ProgressView(workspace, bar)
        if settings.executor == "local" and (tasks == 1 or _is_small(plan)):
            for rank in range(tasks):
                run_task(workspace.notes, tasks, rank, lambda own, rank=rank: view.update(rank, own))
            return
        workers = min(tasks, settings.workers or _cores())
        run_tasks(recipe, workspace.notes.absolute(), tasks, workers, view.poll)
        view.poll()


@dataclass
class _ProgressView:
    """Shows the progress of all tasks in one bar."""

    workspace: Workspace
    bar: Bar
    start: float = field(default_factory=time.monotonic)
    tasks: dict[int, Progress] = field(default_factory=dict[int, Progress])

    def update(self, rank: int, own: Progress) -> None:
        """Show the progress of a task in this process."""
        self.tasks[rank] = own
        self._show()

    def poll(self) -> None:
        """Show the progress that tasks in other processes have written to files."""
        self.tasks |= read_progress(self.workspace.notes)
        self._show()

    def _show(self) -> None:
        tasks = self.tasks.values()
        seconds = max(time.monotonic() - self.start, 1e-9)
        text_bytes = sum(task.text_bytes for task in tasks)
        # The time left is that of what this run reads.
        self.bar.start = sum(task.found for task in tasks)
        self.bar.advance(
            sum(task.read for task in tasks) - self.bar.done,
            # The bar counts files as they are stored, which may be compressed.
            rate=f"{text_bytes / 1e6 / seconds:.1f} MB/s of text" if text_bytes else "",
            documents=count(sum(task.documents for task in tasks)),
            tokens=count(sum(task.tokens for task in tasks)),
        )
