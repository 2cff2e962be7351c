"""Finishing the store: totals of all shards, ends of documents, the manifest, and the printed summary."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from t5smith.base import artifact
from t5smith.base.errors import T5smithError
from t5smith.base.progress import info, warn
from t5smith.base.wrapping import pluralize
from t5smith.recipe.recipe import Recipe
from t5smith.store.control_words import control_word_facts, report_control_words
from t5smith.store.file_notes import FileNotes
from t5smith.store.plan import Plan, Unit
from t5smith.store.shard_writer import COUNTS
from t5smith.store.statistics import write_figures
from t5smith.store.workspace import SPLITS, Workspace
from t5smith.text.cleaning.exclusion import STEP, Exclusions, report_excluded
from t5smith.text.cleaning.pipeline import Tally
from t5smith.text.documents import smaller_documents
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.vocabulary import Vocabulary
from t5smith.vocabulary.word_cache import MAX_UNBROKEN

UNKNOWN_WARNING_SHARE = 0.001
"""A larger share of `<unk>` in a split gives a warning."""
MAX_REASONS = 3
"""Number of reasons for dropping documents that are shown for each cleaning step."""


def finish_store(
    recipe: Recipe,
    workspace: Workspace,
    plan: Plan,
    vocabulary: Vocabulary,
    inputs: Mapping[str, Any],
    not_read: Mapping[str, Any],
    exclusions: Exclusions | None = None,
) -> None:
    """Complete and seal the unfinished store when all its shards are written.

    Args:
      recipe: the settings of the run.
      workspace: with the shards and their notes.
      plan: of the shards.
      vocabulary: of the ids.
      inputs: for the manifest.
      not_read: files of folders that are not read, see :meth:`t5smith.text.folders.notes.FolderNotes.facts`.
      exclusions: texts that are not trained on.

    Raises:
      T5smithError: a split, a corpus or a file has no text; with `corpus.strict`, records were skipped.
    """
    for leftover in workspace.store.rglob("*.part"):
        leftover.unlink()
    totals = _Totals(recipe, exclusions is not None)
    for unit, name in list_shards(workspace, plan):
        totals.add(unit, name, json.loads(workspace.note(name).read_text(encoding="utf-8")))
    totals.skipped.raise_if_strict()
    totals.raise_if_a_file_is_unusable()
    totals.input_files.report()
    totals.skipped.report()
    cleaning = [tally.told() for tally in totals.tallies.values()]
    _report_cleaning(cleaning)
    plain = totals.input_files.formats.keys() == {"text"}
    _raise_if_empty(recipe, totals.counts, totals.corpora["train"], plain)
    facts: dict[str, Any] = {
        "vocab_size": vocabulary.size,
        "skipped_records": totals.skipped.facts(),
        "cut_stretches": totals.cut,
        "input_files": totals.input_files.facts() | ({"not_read": not_read} if not_read else {}),
    }
    if totals.cut:
        warn(f"{totals.cut:,} runs of {MAX_UNBROKEN:,} characters without spaces were cut before encoding")
    facts |= {"cleaning": cleaning} if cleaning else {}
    if exclusions is not None:
        facts["excluded"] = _excluded(exclusions, totals.tallies[STEP])
    separator = recipe.prepare.document_separator == "eos"
    for split in SPLITS:
        _write_ends(workspace, split, totals.counts[split]["documents"], totals.shards[split])
        facts[split] = _split_facts(totals.counts[split], totals.corpora[split], separator)
        _report_split(facts[split], split)
    tokens = sum(facts[split]["tokens"] for split in SPLITS)
    if words := control_word_facts(totals.control_words, vocabulary, tokens):
        facts["control_words"] = words
        report_control_words(words)
    table = json.dumps(totals.shards, ensure_ascii=False, separators=(",", ":"))
    artifact.write_atomically(workspace.store / "shards.json", table)
    write_figures(workspace, plan, vocabulary, totals.shards, facts)
    artifact.seal(workspace.store, "store", inputs, facts, totals.files)


class _Totals:
    """Sums of the notes of all shards.

    Attributes:
      skipped: records that were skipped.
      tallies: what each cleaning step did.
      counts: of each split, see COUNTS.
      corpora: documents, tokens and bytes of each split and corpus.
      shards: of each split, the names of its files and their numbers of tokens.
      files: sizes and hashes of these files, for the manifest.
      cut: runs of characters without white space that were cut.
      control_words: occurrences of each in the text.
      input_files: their formats, and those without a record.
    """

    def __init__(self, recipe: Recipe, excluding: bool) -> None:
        self.skipped = SkippedRecords(recipe.corpus.strict)
        steps = recipe.cleaning
        of_documents = (*steps.document_steps, STEP) if excluding else steps.document_steps
        self.tallies = {step: Tally(step) for step in (*of_documents, *steps.duplicate_steps)}
        self.counts = {split: dict.fromkeys(COUNTS, 0) for split in SPLITS}
        self.corpora: dict[str, dict[str, dict[str, int]]] = {split: {} for split in SPLITS}
        self.shards: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
        self.files: dict[str, dict[str, Any]] = {}
        self.cut = 0
        self.control_words: Counter[str] = Counter()
        self.input_files = FileNotes()
        self._usable: Counter[str] = Counter()
        self._first_skipped: dict[str, str] = {}

    def add(self, unit: Unit, name: str, note: Mapping[str, Any]) -> None:
        """Add a shard by its note."""
        self.skipped.merge(note["skipped_records"])
        for step in note["cleaning"]:
            self.tallies[step["step"]].merge(step)
        self.cut += note["cut"]
        self.control_words.update(note.get("control_words", {}))
        if "files" in note:  # not if an older version has begun the store
            self.input_files.merge(note["files"])
        for split in SPLITS:
            own = note[split]
            if not unit.split or unit.split == split:
                corpus = self.corpora[split].setdefault(unit.corpus, dict.fromkeys(COUNTS[:3], 0))
                for count in corpus:
                    corpus[count] += own[count]
            for count in COUNTS:
                self.counts[split][count] += own[count]
            if own["tokens"]:
                self.shards[split].append((f"{name}.bin", own["tokens"]))
                self.files[f"{split}/{name}.bin"] = {"bytes": own["bytes"], "sha256": own["sha256"]}
        if len(unit.files) == 1 and unit.blocks != 1:
            dropped = sum(sum(step["dropped"].values()) for step in note["cleaning"])
            read = sum(note[split]["documents"] + note[split]["empty"] for split in SPLITS)
            self._usable[unit.files[0]] += dropped + read
            self.input_files.count(unit.files[0], dropped + read, note["skipped_records"]["counts"])
            for message in note["skipped_records"]["first"][:1]:
                self._first_skipped.setdefault(unit.files[0], message)

    def raise_if_a_file_is_unusable(self) -> None:
        """Check files of several blocks. The tasks that read a part of a file cannot know.

        Raises:
          T5smithError: all records of a file were skipped.
        """
        for file, message in self._first_skipped.items():
            if not self._usable[file]:
                raise T5smithError(f"it has no usable record; the first: {message}", where=file)


def list_shards(workspace: Workspace, plan: Plan) -> Iterator[tuple[Unit, str]]:
    """All shards and their units, in the order of the text."""
    for unit in plan.units:
        blocks = unit.blocks if unit.blocks is not None else int(workspace.end(unit.number).read_text())
        for block in range(blocks):
            yield unit, unit.shard(block)


def _write_ends(workspace: Workspace, split: str, documents: int, shards: list[tuple[str, int]]) -> None:
    """Write int64 (documents,): the end of each document, as a .npy file."""
    # numpy's own writer does not raise the reason if the disk is full.
    header = io.BytesIO()
    description = {"descr": "<i8", "fortran_order": False, "shape": (documents,)}
    np.lib.format.write_array_header_1_0(header, description)
    tokens = 0
    with (workspace.store / f"{split}.ends.npy").open("wb") as file:
        file.write(header.getvalue())
        for name, size in shards:
            lengths = np.frombuffer(
                workspace.lengths(split, name.removesuffix(".bin")).read_bytes(), np.dtype(np.uint32)
            )
            file.write((np.cumsum(lengths, dtype=np.int64) + tokens).astype("<i8").tobytes())
            tokens += size


def _split_facts(
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


def _raise_if_empty(
    recipe: Recipe,
    counts: Mapping[str, Mapping[str, int]],
    corpora: Mapping[str, Mapping[str, int]],
    plain: bool,
) -> None:
    """Raise if a split, or the training part of a corpus, has no text; `plain`: it is all plain text."""
    if not recipe.corpus.valid and sum(counts[split]["documents"] for split in SPLITS) == 1:
        raise T5smithError(
            "the text is a single document, so no other is left to be held out",
            where="corpus.train",
            expected="two documents or more",
            fix=smaller_documents(recipe.corpus, plain),
        )
    for split in SPLITS:
        if counts[split]["tokens"]:
            continue
        if split == "valid" and not recipe.corpus.valid:
            raise T5smithError(
                f"none of {pluralize(counts['train']['documents'], 'document')} fell into the held-out "
                f"split, whose share is {recipe.corpus.held_out_fraction:g}; a hash of their text decides",
                where="corpus.held_out_fraction",
                fix="raise it, to 0.1 for a small text, name files in corpus.valid, or make documents "
                "smaller (corpus.document)",
            )
        what = f"the {split} split has no text"
        if empty := counts[split]["empty"]:
            what += f" ({pluralize(empty, 'empty document')})"
        fix = "name files with text"
        if recipe.cleaning.steps:
            fix += ", or remove cleaning steps (cleaning.steps)"
        raise T5smithError(what, where=f"corpus.{split}", fix=fix)
    for name, own in corpora.items():
        if not own["tokens"]:
            cause = "the held-out split"
            if recipe.cleaning.steps:
                cause += " and cleaning (cleaning.steps)"
            raise T5smithError(
                f"the corpus {name!r} has no text to train on",
                where="corpus.train",
                fix=f"remove it, name more text for it, or check what {cause} took of it",
            )


def _excluded(exclusions: Exclusions, tally: Tally) -> dict[str, dict[str, Any]]:
    """The counts of each file of exclusions, which are printed."""
    facts = exclusions.facts(tally.dropped, tally.entries)
    report_excluded(facts)
    return facts


def _report_cleaning(cleaning: list[dict[str, Any]]) -> None:
    """Print for each step how many documents it dropped and changed, and the most frequent reasons."""
    for step in cleaning:
        dropped: dict[str, int] = step["dropped"]
        line = f"{step['step']}: dropped {sum(dropped.values()):,} of {pluralize(step['in'], 'document')}"
        if len(dropped) > 1:
            reasons = [f"{reason} {number:,}" for reason, number in dropped.items()]
            shown = [*reasons[:MAX_REASONS], "…"] if len(reasons) > MAX_REASONS else reasons
            line += f" ({', '.join(shown)})"
        if step["changed"]:
            line += f", changed {step['changed']:,}"
        info(f"prepare   {line}")


def _report_split(facts: dict[str, Any], split: str) -> None:
    """Print the size of a split and of each of its corpora; warn about unknown tokens."""
    for corpus, counts in facts.get("corpora", {}).items():
        size = f"{pluralize(counts['documents'], 'document')}, {pluralize(counts['tokens'], 'token')}"
        info(f"prepare   {split} {corpus}: {size}")
        if not counts["tokens"]:
            warn(f"no document of the corpus {corpus!r} is held out, so held-out scores do not cover it")
    line = (
        f"{split} split: {pluralize(facts['documents'], 'document')}, {facts['tokens']:,} tokens, "
        f"{facts['bytes_per_token']:.2f} bytes per token, {facts['unknown_rate']:.3%} unknown"
    )
    if facts["empty_documents"]:
        line += f", {pluralize(facts['empty_documents'], 'empty document')} dropped"
    info(f"prepare   {line}")
    if facts["unknown_rate"] > UNKNOWN_WARNING_SHARE:
        warn(
            f"{facts['unknown_rate']:.2%} of the tokens of the {split} split are <unk>: the vocabulary lacks "
            f"characters of this text; train it on such text"
        )
