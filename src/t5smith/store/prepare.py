"""From text and a vocabulary to the token store: the ids of every document in a row, and their counts.

The text is read block by block (:mod:`t5smith.store.plan`) by tasks that write a shard for each. What is
finished stays, however a run ends, and is not done again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t5smith.base import artifact
from t5smith.base.lock import in_run_folder
from t5smith.base.progress import Bar, count, info, progress, warn
from t5smith.recipe.recipe import Recipe, plain
from t5smith.store.dedup import without_duplicates
from t5smith.store.merge import finish, shards
from t5smith.store.plan import Plan
from t5smith.store.token_store import check
from t5smith.store.worker import Progress, Task
from t5smith.store.workspace import Workspace
from t5smith.text.cleaning.pipeline import cleaning_inputs
from t5smith.text.corpus import CorpusFiles, named_weights
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.vocabulary import Vocabulary

FORMAT = 4
"""Raised when the same text and settings would give another store than before."""
IN_PROCESS_BYTES = 4 << 20
"""Files of fewer bytes in all are not worth starting processes for."""


def prepare(recipe: Recipe, *, verify: bool = False, files: CorpusFiles | None = None) -> Path:
    """Tokenise a recipe's text; the folder of the store. Nothing is done if it is there already.

    Args:
      recipe: names the text and the run folder, in which there must be a vocabulary.
      verify: make nothing, but read the whole store that is there and check it.
      files: the recipe's files, if they have been found before.

    Raises:
      T5smithError: no vocabulary yet, text that cannot be read, a split without text, a full disk; with
        `verify`: no store, or one that is not as it was written.
    """
    if not verify:
        return _prepare(recipe, files)
    folder = recipe.folder / "store"
    check(folder)
    return folder


@in_run_folder
def _prepare(recipe: Recipe, files: CorpusFiles | None) -> Path:
    folder = recipe.folder / "store"
    folders = Workspace.of(folder)
    vocab_folder = recipe.folder / "vocab"
    made_vocab = artifact.read_manifest(vocab_folder, "vocab")
    named_weights(recipe.corpus)
    files = files or CorpusFiles.find(recipe.corpus)
    corpus = files.inputs()
    inputs = {
        "format": FORMAT,
        "vocab": made_vocab.files["tokenizer.json"]["sha256"],
        "corpus": corpus,
        "prepare": {"document_separator": recipe.prepare.document_separator},
        **cleaning_inputs(recipe),
    }
    key = artifact.fingerprint(inputs)
    if found := artifact.find_up_to_date(folder, "store", key):
        shutil.rmtree(folders.notes, ignore_errors=True)
        skipped = SkippedRecords(recipe.corpus.strict)
        skipped.merge(found.facts["skipped_records"])
        skipped.raise_if_strict()
        info(f"prepare   unchanged: {found.facts['train']['tokens']:,} tokens in {folder}")
        return folder
    if stale := _other_settings(recipe, made_vocab.inputs, corpus):
        warn(f"the vocabulary that is there was made from other {stale}; `t5smith vocab` makes it anew")
    vocabulary = Vocabulary.load(vocab_folder)
    with artifact.disk_errors(folder):
        plan = _plan(recipe, files, folders, key, vocab_folder)
        _run(recipe, folders, plan)
        if recipe.cleaning.duplicate_steps:
            without_duplicates(recipe, folders, list(shards(folders, plan)), vocabulary)
        finish(recipe, folders, plan, vocabulary, inputs)
        artifact.replace_atomically(folders.store, folder)
        shutil.rmtree(folders.notes)
    return folder


def _other_settings(recipe: Recipe, vocab: Mapping[str, Any], corpus: Mapping[str, Any]) -> str:
    """Whether a vocabulary was trained with other settings than the recipe has now, or on other text."""
    if "corpus" not in vocab:
        return ""  # it was brought in
    settings = recipe.vocab.model_dump(exclude={"tokenizer"})
    found = ["settings"] if artifact.fingerprint(settings) != artifact.fingerprint(vocab["vocab"]) else []
    text = {name: value for name, value in corpus.items() if not name.startswith("valid")}
    found += ["text"] if artifact.fingerprint(text) != artifact.fingerprint(vocab["corpus"]) else []
    return " and other ".join(found)


def _plan(recipe: Recipe, files: CorpusFiles, folders: Workspace, key: str, vocab: Path) -> Plan:
    """The plan of a run that was begun, or a new one in empty folders."""
    job = folders.notes / "job.json"
    draft = Workspace(folders.store, folders.notes, draft=bool(recipe.cleaning.duplicate_steps))
    # Without the unfinished store the notes are of one that was finished, and half removed.
    begun = folders.store.is_dir() and job.is_file()
    begun = begun and json.loads(job.read_text(encoding="utf-8"))["key"] == key
    plan = Plan.create(files)
    # The same text may lie elsewhere by now.
    if begun and Plan.read(folders.notes / "plan.json") == plan:
        shutil.rmtree(folders.notes / "failures", ignore_errors=True)
        shutil.rmtree(folders.notes / "progress", ignore_errors=True)
        draft.make()
    else:
        shutil.rmtree(folders.store, ignore_errors=True)
        shutil.rmtree(folders.notes, ignore_errors=True)
        draft.make()
        artifact.write_atomically(folders.notes / "plan.json", plan.to_json())
    tree = {
        "key": key,
        "recipe": plain(recipe),
        "vocab": str(vocab.absolute()),
        "store": str(folders.store.absolute()),
    }
    artifact.write_atomically(job, json.dumps(tree, ensure_ascii=False))
    return plan


def _run(recipe: Recipe, folders: Workspace, plan: Plan) -> None:
    settings = recipe.prepare
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = sum(unit.bytes for unit in plan.units)
    tasks = settings.tasks or (cores if size >= IN_PROCESS_BYTES or settings.executor != "local" else 1)
    with progress("prepare", _to_read(plan, tasks), "bytes") as bar:
        show = _ProgressView(folders, bar)
        if settings.executor == "local" and (tasks == 1 or size < IN_PROCESS_BYTES):
            for rank in range(tasks):
                Task.load(folders.notes, tasks, rank, lambda told, rank=rank: show.of(rank, told)).run()
            return
        from t5smith.store.executors import run_tasks

        run_tasks(recipe, folders.notes.absolute(), tasks, min(tasks, settings.workers or cores), show.look)
        show.look()


def _to_read(plan: Plan, tasks: int) -> int:
    """Bytes that all tasks read together; some files are read by several."""
    return sum(
        work.unit.bytes // (work.unit.blocks or 1) for rank in range(tasks) for work in plan.work(tasks, rank)
    )


@dataclass
class _ProgressView:
    """The progress of all tasks in one bar."""

    folders: Workspace
    bar: Bar
    start: float = field(default_factory=time.monotonic)
    tasks: dict[str, Progress] = field(default_factory=dict[str, Progress])

    def of(self, rank: int, told: Progress) -> None:
        """One that works in this process."""
        self.tasks[f"{rank:05d}"] = told
        self._show()

    def look(self) -> None:
        """Those that work elsewhere, by what they wrote."""
        for file in (self.folders.notes / "progress").iterdir():
            if file.suffix != ".part":
                self.tasks[file.name] = Progress(**json.loads(file.read_text()))
        self._show()

    def _show(self) -> None:
        every = self.tasks.values()
        seconds = max(time.monotonic() - self.start, 1e-9)
        self.bar.advance(
            # Tasks read a little past the ends of their blocks.
            min(sum(task.read for task in every), self.bar.total or 0) - self.bar.done,
            documents=count(sum(task.documents for task in every)),
            tokens=count(sum(task.tokens for task in every)),
            rate=f"{sum(task.text_bytes for task in every) / 1e6 / seconds:.1f} MB/s",
        )
