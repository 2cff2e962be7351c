"""One task of `prepare`: it reads its part of the plan, encodes the texts, and writes the shards."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from t5smith.recipe.recipe import Recipe
from t5smith.store.control_words import ControlWordCounter
from t5smith.store.dedup_records import RecordWriter
from t5smith.store.file_notes import FileNotes
from t5smith.store.plan import Assignment, Plan
from t5smith.store.shard_writer import ShardWriter
from t5smith.store.token_store import id_dtype
from t5smith.store.workspace import Workspace, write
from t5smith.text.cleaning.exclusion import Exclusions
from t5smith.text.cleaning.minhash import MinHasher, minhasher
from t5smith.text.cleaning.pipeline import Cleaner
from t5smith.text.documents import positioned_documents
from t5smith.text.locations import split_row_range
from t5smith.text.read_bytes import ReadBytes
from t5smith.text.recognition import readable_format
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.encoding import BulkEncoder
from t5smith.vocabulary.vocabulary import Vocabulary

PROGRESS_INTERVAL_S = 0.2
"""Time between two progress reports of a task."""


@dataclass
class Progress:
    """Progress of a task.

    Attributes:
      read: bytes read from files, as they are stored.
      found: of these, those that an earlier run has read.
      documents, tokens, text_bytes: of this run, in both splits.
      seconds: since the task started.
    """

    read: int = 0
    found: int = 0
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    seconds: float = 0.0


@dataclass
class Task:
    """A task with all that it needs.

    Attributes:
      tasks, rank: number of tasks, and which of them this is.
      cleaner: the recipe's cleaning steps.
      hasher: makes the signatures of near duplicates; None: the recipe does not look for them.
      on_progress: called with the progress, every PROGRESS_INTERVAL_S at most.
    """

    workspace: Workspace
    recipe: Recipe
    plan: Plan
    vocabulary: Vocabulary
    tasks: int
    rank: int
    cleaner: Cleaner
    hasher: MinHasher | None
    on_progress: Callable[[Progress], None]
    progress: Progress = field(default_factory=Progress)
    _started: float = field(default_factory=time.monotonic)
    _last_report: float = 0.0

    @classmethod
    def load(
        cls, notes: Path, tasks: int, rank: int, on_progress: Callable[[Progress], None] | None = None
    ) -> Task:
        """Load a task of the job in a folder of notes. It writes its progress there."""
        job = json.loads((notes / "job.json").read_text(encoding="utf-8"))
        recipe = Recipe.model_validate(job["recipe"])
        workspace = Workspace(Path(job["store"]), notes, draft=bool(recipe.cleaning.duplicate_steps))
        file = workspace.progress(rank)
        exclusions = Exclusions.load(notes, recipe)
        hasher = exclusions.hasher if exclusions else None
        if "near_duplicates" not in recipe.cleaning.steps:
            hasher = None
        elif hasher is None:
            hasher = minhasher(recipe, notes)

        def report(progress: Progress) -> None:
            write(file, json.dumps(vars(progress)).encode())
            if on_progress is not None:
                on_progress(progress)

        return cls(
            workspace,
            recipe,
            Plan.read(notes / "plan.json"),
            Vocabulary.load(Path(job["vocab"])),
            tasks,
            rank,
            Cleaner(recipe, exclusions),
            hasher,
            report,
        )

    def run(self) -> None:
        """Make all shards of this task that do not exist yet.

        Raises:
          T5smithError: text cannot be read.
          OSError: such as a full disk.
        """
        encoder = self.vocabulary.bulk_encoder(id_dtype(self.vocabulary.size))
        done = self.workspace.finished_shards()
        for assignment in self.plan.assignments(self.tasks, self.rank):
            self._run_assignment(assignment, frozenset(done.get(assignment.unit.number, ())), encoder)
        self._report(time.monotonic())

    def _run_assignment(self, assignment: Assignment, done: frozenset[int], encoder: BulkEncoder) -> None:
        unit, part = assignment.unit, assignment.part
        if self._is_done(assignment, done):
            self.progress.found += assignment.read
            self._on_read(assignment.read)
            return
        # Several tasks may read all of an archive, each for a part of its text.
        read = ReadBytes(assignment.read, self._on_read, 1 / part.readers)
        blocks = _BlockWriter(self, assignment, done, encoder)
        try:
            for file in unit.files:
                blocks.begin_file(file)
                for place, document in positioned_documents(
                    blocks.corpus, file, replace(part, finished=done), blocks.skipped, read.add
                ):
                    block = part.block_of(place)
                    if block != blocks.current:
                        blocks.go_to(block)
                    if document is None:
                        continue
                    blocks.documents += 1
                    text = self.cleaner.clean(document, blocks.tallies, unit.split)
                    if text is not None and blocks.shard is not None:
                        fraction = self.recipe.corpus.held_out_fraction
                        tokens, size = blocks.shard.add(
                            document, text, unit.split, fraction, encoder.encode(text)
                        )
                        blocks.control_words.add(text)
                        self.progress.documents += tokens > 0
                        self.progress.tokens += tokens
                        self.progress.text_bytes += size
                blocks.end_file(file)
            blocks.end()
            read.finish()
        except BaseException:
            blocks.abandon()
            raise

    def _is_done(self, assignment: Assignment, done: frozenset[int]) -> bool:
        """Whether an earlier run has made all shards of an assignment."""
        unit, part = assignment.unit, assignment.part
        blocks = unit.blocks
        if blocks is None:
            if not self.workspace.end(unit.number).is_file():
                return False
            blocks = int(self.workspace.end(unit.number).read_text())
        elif blocks > 1:
            return part.block_of(part.start) in done
        return all(block in done for block in range(part.reader, blocks, part.readers))

    def _on_read(self, amount: int) -> None:
        self.progress.read += amount
        now = time.monotonic()
        if now - self._last_report >= PROGRESS_INTERVAL_S:
            self._last_report = now
            self._report(now)

    def _report(self, now: float) -> None:
        self.progress.seconds = now - self._started
        self.on_progress(self.progress)


class _BlockWriter:
    """Writes the shards of a unit one after the other, including empty ones.

    Attributes:
      corpus: settings that the files are read with.
      documents: read so far, whether kept or dropped.
      files: for the note of the shard: how many files of each format begin in it, and those without any
        record, of a unit of small files.
    """

    def __init__(
        self, task: Task, assignment: Assignment, done: frozenset[int], encoder: BulkEncoder
    ) -> None:
        self.task, self.assignment, self.done, self.encoder = task, assignment, done, encoder
        self.corpus = task.recipe.corpus.of_split(assignment.unit.split)
        self.skipped = SkippedRecords(self.corpus.strict)
        self.tallies = task.cleaner.tallies()
        self.control_words = ControlWordCounter(task.vocabulary)
        self.separator = (task.vocabulary.eos_id,) if task.recipe.prepare.document_separator == "eos" else ()
        self.current = assignment.part.block_of(assignment.part.start)
        self.shard = self._open()
        self.documents, self._before = 0, 0
        self._documents_before, self._skipped_before = 0, Counter[str]()
        self.files = FileNotes()

    def begin_file(self, file: str) -> None:
        """Note a file's format, and start to count its records."""
        begins_here = self.current == 0 and self.shard is not None
        if begins_here and (kind := readable_format(self.corpus, split_row_range(file)[0])):
            self.files.formats[kind] += 1
        self._before = self._records()
        self._documents_before, self._skipped_before = self.documents, self.skipped.counts.copy()

    def end_file(self, file: str) -> None:
        """Note the records of a file that lies within one block."""
        if self.assignment.unit.blocks != 1:
            return
        skipped = self.skipped.counts - self._skipped_before
        self.files.count(file, self.documents - self._documents_before, skipped)
        if self._records() == self._before:
            self.files.without_records.append(file)

    def _records(self) -> int:
        return self.documents + self.skipped.counts.total()

    def go_to(self, block: int) -> None:
        """Finish the current block and all blocks before `block`."""
        unit, part = self.assignment.unit, self.assignment.part
        while self.current < block:
            self._close()
            self.current += 1
            past_the_end = unit.blocks is not None and self.current >= part.block_of(part.stop or 1)
            self.shard = None if past_the_end else self._open()

    def end(self) -> None:
        """Finish the last block, and record the number of blocks if the plan does not have it."""
        self._close()
        unit = self.assignment.unit
        if unit.blocks is None:
            write(self.task.workspace.end(unit.number), str(self.current + 1).encode())

    def abandon(self) -> None:
        """Remove the unfinished shard."""
        if self.shard is not None:
            self.shard.abandon()

    def _open(self) -> ShardWriter | None:
        """The current block's shard; None if it is another task's, or exists."""
        task, unit = self.task, self.assignment.unit
        if not self.assignment.part.includes(self.current) or self.current in self.done:
            return None
        name = unit.shard(self.current)
        records = (
            RecordWriter(task.workspace, name, unit.files, task.hasher) if task.workspace.draft else None
        )
        return ShardWriter(task.workspace, name, task.vocabulary, self.separator, records)

    def _close(self) -> None:
        if self.shard is None:
            return
        self.shard.close(self.skipped, self.tallies, self.encoder.cut, self.files, self.control_words.counts)
        self.control_words.counts.clear()
        self.shard, self.encoder.cut = None, 0
        self.tallies = self.task.cleaner.tallies()
        self.skipped.clear()
        self.files = FileNotes()
