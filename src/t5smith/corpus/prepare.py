"""From text and a vocabulary to the token store: the ids of every document in a row, and their counts.

The text is read block by block (:mod:`t5smith.corpus.plan`) by tasks that write a shard for each. What is
finished stays, however a run ends, and is not done again.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from t5smith import artefact
from t5smith.corpus.cleaning import Tally, cleaning_inputs
from t5smith.corpus.duplicates import without_duplicates
from t5smith.corpus.faults import Faults
from t5smith.corpus.figures import write_figures
from t5smith.corpus.folders import SPLITS, Folders
from t5smith.corpus.plan import Plan, Unit
from t5smith.corpus.shards import COUNTS
from t5smith.corpus.sources import inputs
from t5smith.corpus.store import check
from t5smith.corpus.tasks import Progress, Task
from t5smith.errors import T5smithError
from t5smith.lock import in_run_folder
from t5smith.progress import Bar, count, progress, say, warn
from t5smith.recipe import Recipe, plain
from t5smith.vocab.vocabulary import Vocabulary
from t5smith.vocab.words import LONGEST_WORD

FORMAT = 3
"""Raised when the same text and settings would give another store than before."""
MUCH_UNKNOWN = 0.001
"""A share of `<unk>` above this is worth a warning."""
REASONS = 3
"""So many reasons for dropping documents are told of each step."""
LITTLE = 4 << 20
"""Files of fewer bytes in all are not worth starting processes for."""


def prepare(recipe: Recipe, *, verify: bool = False) -> Path:
    """Tokenise a recipe's text; the folder of the store. Nothing is done if it is there already.

    Args:
      recipe: names the text and the run folder, in which there must be a vocabulary.
      verify: make nothing, but read the whole store that is there and check it.

    Raises:
      T5smithError: no vocabulary yet, text that cannot be read, a split without text, a full disk; with
        `verify`: no store, or one that is not as it was written.
    """
    if not verify:
        return _prepare(recipe)
    folder = recipe.folder / "store"
    check(folder)
    return folder


@in_run_folder
def _prepare(recipe: Recipe) -> Path:
    folder = recipe.folder / "store"
    folders = Folders.of(folder)
    vocab_folder = recipe.folder / "vocab"
    vocab_files = artefact.read_manifest(vocab_folder, "vocab").files
    made_from = {
        "format": FORMAT,
        "vocab": vocab_files["tokenizer.json"]["sha256"],
        "corpus": inputs(recipe.corpus),
        "prepare": {"document_separator": recipe.prepare.document_separator},
        **cleaning_inputs(recipe),
    }
    key = artefact.fingerprint(made_from)
    if found := artefact.find_current(folder, "store", key):
        shutil.rmtree(folders.notes, ignore_errors=True)
        told = Faults(recipe.corpus.strict)
        told.merge(found.facts["left_out"])
        told.refuse()
        say(f"prepare   unchanged: {found.facts['train']['tokens']:,} tokens in {folder}")
        return folder
    vocabulary = Vocabulary.load(vocab_folder)
    with artefact.disk_errors(folder):
        plan = _plan(recipe, folders, key, vocab_folder)
        _run(recipe, folders, plan)
        if recipe.cleaning.duplicate_steps:
            without_duplicates(recipe, folders, list(_shards(folders, plan)), vocabulary)
        _finish(recipe, folders, plan, vocabulary, made_from)
        artefact.swap_in(folders.store, folder)
        shutil.rmtree(folders.notes)
    return folder


def _plan(recipe: Recipe, folders: Folders, key: str, vocab: Path) -> Plan:
    """The plan of a run that was begun, or a new one in empty folders."""
    job = folders.notes / "job.json"
    draft = Folders(folders.store, folders.notes, draft=bool(recipe.cleaning.duplicate_steps))
    # Without the unfinished store the notes are of one that was finished, and half removed.
    begun = folders.store.is_dir() and job.is_file()
    if begun and json.loads(job.read_text(encoding="utf-8"))["key"] == key:
        shutil.rmtree(folders.notes / "failures", ignore_errors=True)
        shutil.rmtree(folders.notes / "progress", ignore_errors=True)
        draft.make()
        plan = Plan.read(folders.notes / "plan.json")
    else:
        shutil.rmtree(folders.store, ignore_errors=True)
        shutil.rmtree(folders.notes, ignore_errors=True)
        plan = Plan.create(recipe.corpus)
        draft.make()
        artefact.write_atomically(folders.notes / "plan.json", plan.to_json())
    tree = {
        "key": key,
        "recipe": plain(recipe),
        "vocab": str(vocab.absolute()),
        "store": str(folders.store.absolute()),
    }
    artefact.write_atomically(job, json.dumps(tree, ensure_ascii=False))
    return plan


def _run(recipe: Recipe, folders: Folders, plan: Plan) -> None:
    settings = recipe.prepare
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = sum(unit.bytes for unit in plan.units)
    tasks = settings.tasks or (cores if size >= LITTLE or settings.executor != "local" else 1)
    with progress("prepare", _to_read(plan, tasks), "bytes") as bar:
        show = _Show(folders, bar)
        if settings.executor == "local" and (tasks == 1 or size < LITTLE):
            for rank in range(tasks):
                Task.load(folders.notes, tasks, rank, lambda told, rank=rank: show.of(rank, told)).run()
            return
        from t5smith.corpus.executors import run_tasks

        run_tasks(recipe, folders.notes.absolute(), tasks, min(tasks, settings.workers or cores), show.look)
        show.look()


def _to_read(plan: Plan, tasks: int) -> int:
    """Bytes that all tasks read together; some files are read by several."""
    return sum(
        work.unit.bytes // (work.unit.blocks or 1) for rank in range(tasks) for work in plan.work(tasks, rank)
    )


@dataclass
class _Show:
    """The progress of all tasks in one bar."""

    folders: Folders
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


def _finish(
    recipe: Recipe, folders: Folders, plan: Plan, vocabulary: Vocabulary, made_from: Mapping[str, Any]
) -> None:
    """From shards to a store: what is known of them all, where documents end, the manifest."""
    for leftover in folders.store.rglob("*.part"):
        leftover.unlink()
    faults = Faults(recipe.corpus.strict)
    tallies = {step: Tally(step) for step in recipe.cleaning.steps}
    totals = {split: dict.fromkeys(COUNTS, 0) for split in SPLITS}
    by_corpus: dict[str, dict[str, dict[str, int]]] = {split: {} for split in SPLITS}
    shards: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    known: dict[str, dict[str, Any]] = {}
    cut = 0
    for unit, name in _shards(folders, plan):
        note = json.loads(folders.note(name).read_text(encoding="utf-8"))
        faults.merge(note["faults"])
        for one in note["cleaning"]:
            tallies[one["step"]].merge(one)
        cut += note["cut"]
        for split in SPLITS:
            own = note[split]
            if not unit.split or unit.split == split:
                corpus = by_corpus[split].setdefault(unit.corpus, dict.fromkeys(COUNTS[:3], 0))
                for what in corpus:
                    corpus[what] += own[what]
            for what in COUNTS:
                totals[split][what] += own[what]
            if own["tokens"]:
                shards[split].append((f"{name}.bin", own["tokens"]))
                known[f"{split}/{name}.bin"] = {"bytes": own["bytes"], "sha256": own["sha256"]}
    faults.refuse()
    faults.tell()
    cleaning = [tally.told() for tally in tallies.values()]
    _tell_cleaning(cleaning)
    _refuse_empty(recipe, totals, by_corpus["train"])
    separator = recipe.prepare.document_separator == "eos"
    facts: dict[str, Any] = {"vocab_size": vocabulary.size, "left_out": faults.facts(), "cut_stretches": cut}
    if cut:
        warn(
            f"{cut:,} stretches of {LONGEST_WORD:,} characters without white space were cut before tokenising"
        )
    if cleaning:
        facts["cleaning"] = cleaning
    for split in SPLITS:
        _write_ends(folders, split, totals[split]["documents"], shards[split])
        facts[split] = _facts(totals[split], by_corpus[split], separator)
        _tell(facts[split], split)
    table = json.dumps(shards, ensure_ascii=False, separators=(",", ":"))
    artefact.write_atomically(folders.store / "shards.json", table)
    write_figures(folders, plan, vocabulary, shards, facts)
    artefact.seal(folders.store, "store", made_from, facts, known)


def _shards(folders: Folders, plan: Plan) -> Iterator[tuple[Unit, str]]:
    for unit in plan.units:
        blocks = unit.blocks if unit.blocks is not None else int(folders.end(unit.number).read_text())
        for block in range(blocks):
            yield unit, unit.shard(block)


def _write_ends(folders: Folders, split: str, documents: int, shards: list[tuple[str, int]]) -> None:
    """int64 (documents,): where each document ends, as one file of numpy's."""
    # Made in memory: numpy's own writer does not say why a disk refused.
    header = io.BytesIO()
    described = {"descr": "<i8", "fortran_order": False, "shape": (documents,)}
    np.lib.format.write_array_header_1_0(header, described)
    tokens = 0
    with (folders.store / f"{split}.ends.npy").open("wb") as file:
        file.write(header.getvalue())
        for name, size in shards:
            lengths = np.frombuffer(
                folders.lengths(split, name.removesuffix(".bin")).read_bytes(), np.dtype(np.uint32)
            )
            file.write((np.cumsum(lengths, dtype=np.int64) + tokens).astype("<i8").tobytes())
            tokens += size


def _facts(
    totals: Mapping[str, int], by_corpus: Mapping[str, Mapping[str, int]], separator: bool
) -> dict[str, Any]:
    """The counts of a split, for the manifest."""
    separators = totals["documents"] if separator else 0
    text_tokens = totals["tokens"] - separators
    return {
        "documents": totals["documents"],
        "tokens": totals["tokens"],
        "separators": separators,
        "text_bytes": totals["text_bytes"],
        "unknown": totals["unknown"],
        "unknown_rate": totals["unknown"] / text_tokens,
        "empty_documents": totals["empty"],
        "bytes_per_token": totals["text_bytes"] / text_tokens,
        **({} if "" in by_corpus else {"corpora": {name: dict(own) for name, own in by_corpus.items()}}),
    }


def _refuse_empty(
    recipe: Recipe, totals: Mapping[str, Mapping[str, int]], train: Mapping[str, Mapping[str, int]]
) -> None:
    for name in SPLITS:
        if totals[name]["tokens"]:
            continue
        if name == "valid" and not recipe.corpus.valid:
            raise T5smithError(
                "no document fell to the held-out split",
                where="corpus.held_out_fraction",
                fix="raise it, name files in corpus.valid, or make documents smaller (corpus.document)",
            )
        skipped = totals[name]["empty"]
        what = f"the {name} split has no text" + (f" ({skipped:,} empty documents)" if skipped else "")
        fix = "name files with text in them" + ", or clean less (cleaning.steps)" * bool(
            recipe.cleaning.steps
        )
        raise T5smithError(what, where=f"corpus.{name}", fix=fix)
    for name, counts in train.items():
        if not counts["tokens"]:
            raise T5smithError(f"the corpus {name!r} has no text to train on", where="corpus.train")


def _tell_cleaning(cleaning: list[dict[str, Any]]) -> None:
    """A line for each step: how many documents it dropped and changed, and the commonest reasons."""
    for one in cleaning:
        number = sum(one["dropped"].values())
        reasons = ", ".join(f"{reason} {times:,}" for reason, times in list(one["dropped"].items())[:REASONS])
        more = ", …" * (len(one["dropped"]) > REASONS)
        changed = f", changed {one['changed']:,}" if one["changed"] else ""
        why = f" ({reasons}{more})" if len(one["dropped"]) > 1 else ""
        say(f"prepare   {one['step']}: dropped {number:,} of {one['in']:,} documents{why}{changed}")


def _tell(facts: dict[str, Any], name: str) -> None:
    """What the person should know of a split: its size, what was left out, what the vocabulary cannot say."""
    empty = f", {facts['empty_documents']:,} empty documents left out" if facts["empty_documents"] else ""
    for corpus, counts in facts.get("corpora", {}).items():
        say(f"prepare   {name} {corpus}: {counts['documents']:,} documents, {counts['tokens']:,} tokens")
    say(
        f"prepare   {name} split: {facts['documents']:,} documents, {facts['tokens']:,} tokens, "
        f"{facts['bytes_per_token']:.2f} bytes a token, {facts['unknown_rate']:.3%} unknown{empty}"
    )
    if facts["unknown_rate"] > MUCH_UNKNOWN:
        warn(
            f"{facts['unknown_rate']:.2%} of the tokens of the {name} split are <unk>: the vocabulary lacks "
            f"characters of this text; train it on text like this"
        )
