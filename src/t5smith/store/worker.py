"""One task of `prepare`: read its part of the plan, give texts their ids, write the shards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from t5smith.recipe.recipe import Recipe
from t5smith.store.dedup_records import MinHasher, Records, signatures
from t5smith.store.plan import Plan, Work
from t5smith.store.shard_writer import Shard
from t5smith.store.token_store import id_dtype
from t5smith.store.workspace import SPLITS, Workspace, write
from t5smith.text.cleaning.pipeline import Cleaner
from t5smith.text.document import Document
from t5smith.text.documents import positioned_documents
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.encoding import BulkEncoder
from t5smith.vocabulary.vocabulary import Vocabulary

PROGRESS_INTERVAL_S = 0.2
"""So often a task says how far it is."""


@dataclass
class Progress:
    """How far a task is.

    Attributes:
      read: bytes of files.
      documents, tokens, text_bytes: of the shards finished in this run, held-out text included.
    """

    read: int = 0
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0


@dataclass
class Task:
    """Everything one task needs, made from what lies in the folders.

    Attributes:
      cleaner: the steps that texts go through.
      signatures: what near duplicates are found by; nothing: they are not looked for.
      told: called every now and then with the progress.
    """

    folders: Workspace
    recipe: Recipe
    plan: Plan
    vocabulary: Vocabulary
    tasks: int
    rank: int
    cleaner: Cleaner
    signatures: MinHasher | None
    told: Callable[[Progress], None]
    progress: Progress = field(default_factory=Progress)
    _last: float = 0.0

    @classmethod
    def load(cls, notes: Path, tasks: int, rank: int, told: Callable[[Progress], None] | None = None) -> Task:
        """The task of a number, from the job that lies in a folder of notes."""
        job = json.loads((notes / "job.json").read_text(encoding="utf-8"))
        recipe = Recipe.model_validate(job["recipe"])
        folders = Workspace(Path(job["store"]), notes, draft=bool(recipe.cleaning.duplicate_steps))
        file = folders.progress(rank)
        return cls(
            folders,
            recipe,
            Plan.read(notes / "plan.json"),
            Vocabulary.load(Path(job["vocab"])),
            tasks,
            rank,
            Cleaner(recipe),
            signatures(recipe, notes),
            told or (lambda progress: write(file, json.dumps(vars(progress)).encode())),
        )

    def run(self) -> None:
        """Make every shard of this task that is not there yet.

        Raises:
          T5smithError: text that cannot be read, a full disk.
        """
        words = self.vocabulary.bulk_encoder(id_dtype(self.vocabulary.size))
        for work in self.plan.work(self.tasks, self.rank):
            self._unit(work, words)
        self.told(self.progress)

    def _unit(self, work: Work, words: BulkEncoder) -> None:
        unit, part = work.unit, work.part
        done = frozenset(
            int(note.stem.partition("-")[2])
            for note in self.folders.note("").parent.glob(f"{unit.number:05d}-*.json")
        )
        blocks = unit.blocks
        if blocks is None and self.folders.end(unit.number).is_file():
            blocks = int(self.folders.end(unit.number).read_text())
        asked = range(blocks or 0)
        if unit.blocks is not None and unit.blocks > 1:
            asked = [part.block_of(part.start)]
        if blocks is not None and all(
            block in done for block in asked if block % part.readers == part.reader
        ):
            self._read(unit.bytes // (unit.blocks or 1))
            return
        blocks = _Blocks(self, work, done, words)
        try:
            for file in unit.files:
                for place, document in positioned_documents(
                    self.recipe.corpus, file, replace(part, finished=done), blocks.skipped, self._read
                ):
                    block = part.block_of(place)
                    if block != blocks.current:
                        blocks.go_to(block)
                    if document is not None and (text := blocks.cleaned(document)) is not None:
                        blocks.add(document, text, words.encode(text))
            blocks.end()
        except BaseException:
            blocks.abandon()
            raise

    def _read(self, amount: int) -> None:
        self.progress.read += amount
        now = time.monotonic()
        if now - self._last >= PROGRESS_INTERVAL_S:
            self._last = now
            self.told(self.progress)


class _Blocks:
    """The shards of one unit, one after the other, empty ones included."""

    def __init__(self, task: Task, work: Work, done: frozenset[int], words: BulkEncoder) -> None:
        self.task, self.work, self.done, self.words = task, work, done, words
        self.skipped = SkippedRecords(task.recipe.corpus.strict)
        self.tallies = task.cleaner.tallies()
        self.separator = (task.vocabulary.eos_id,) if task.recipe.prepare.document_separator == "eos" else ()
        self.current = work.part.block_of(work.part.start)
        self.shard = self._open()

    def cleaned(self, document: Document) -> str | None:
        """The text of a document after cleaning; nothing: it is dropped."""
        return self.task.cleaner.clean(document, self.tallies)

    def add(self, document: Document, text: str, ids: bytes) -> None:
        """Add a document to the current block."""
        if self.shard is not None:
            fraction = self.task.recipe.corpus.held_out_fraction
            self.shard.add(document, text, self.work.unit.split, fraction, ids)

    def go_to(self, block: int) -> None:
        """Finish the current block and those between."""
        while self.current < block:
            self._close()
            self.current += 1
            last = self.work.unit.blocks is not None and self.current >= self.work.part.block_of(
                self.work.part.stop or 1
            )
            self.shard = None if last else self._open()

    def end(self) -> None:
        """Finish the last one; where nobody knew how many there are, say so."""
        self._close()
        unit = self.work.unit
        if unit.blocks is None:
            write(self.task.folders.end(unit.number), str(self.current + 1).encode())

    def abandon(self) -> None:
        """Leave nothing of an unfinished shard."""
        if self.shard is not None:
            self.shard.abandon()

    def _open(self) -> Shard | None:
        # Reading from the beginning up to a block, all before it are another's.
        part = self.work.part
        if not part.includes(self.current) or self.current in self.done:
            return None
        task = self.task
        unit = self.work.unit
        name = unit.shard(self.current)
        records = Records(task.folders, name, unit.files, task.signatures) if task.folders.draft else None
        return Shard(task.folders, name, task.vocabulary, self.separator, records)

    def _close(self) -> None:
        if self.shard is None:
            return
        note = self.shard.close(self.skipped, self.tallies, self.words.cut)
        self.shard, self.words.cut = None, 0
        self.tallies = self.task.cleaner.tallies()
        self.skipped.clear()
        progress = self.task.progress
        for split in SPLITS:
            progress.documents += note[split]["documents"]
            progress.tokens += note[split]["tokens"]
            progress.text_bytes += note[split]["text_bytes"]
