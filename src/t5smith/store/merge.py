"""From shards to a store: what is known of them all, where documents end, what the person is told of it."""

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
from t5smith.store.plan import Plan, Unit
from t5smith.store.shard_writer import COUNTS
from t5smith.store.statistics import write_figures
from t5smith.store.workspace import SPLITS, Workspace
from t5smith.text.cleaning.pipeline import Tally
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.vocabulary import Vocabulary
from t5smith.vocabulary.word_cache import MAX_UNBROKEN

UNKNOWN_WARNING_SHARE = 0.001
"""A share of `<unk>` above this is worth a warning."""
REASONS = 3
"""So many reasons for dropping documents are told of each step."""


def finish(
    recipe: Recipe, folders: Workspace, plan: Plan, vocabulary: Vocabulary, inputs: Mapping[str, Any]
) -> None:
    """Make the store of what all tasks have written.

    Args:
      recipe: what was asked for.
      folders: with the shards and their notes.
      plan: which shards there are.
      vocabulary: of their ids.
      inputs: for the manifest.

    Raises:
      T5smithError: a split, a corpus or a file without text; anything left out, if that is refused.
    """
    for leftover in folders.store.rglob("*.part"):
        leftover.unlink()
    skipped = SkippedRecords(recipe.corpus.strict)
    tallies = {step: Tally(step) for step in recipe.cleaning.steps}
    totals = {split: dict.fromkeys(COUNTS, 0) for split in SPLITS}
    by_corpus: dict[str, dict[str, dict[str, int]]] = {split: {} for split in SPLITS}
    written: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    known: dict[str, dict[str, Any]] = {}
    cut = 0
    useless = _UnusableFiles()
    for unit, name in shards(folders, plan):
        note = json.loads(folders.note(name).read_text(encoding="utf-8"))
        skipped.merge(note["faults"])
        useless.look(unit, note)
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
                written[split].append((f"{name}.bin", own["tokens"]))
                known[f"{split}/{name}.bin"] = {"bytes": own["bytes"], "sha256": own["sha256"]}
    skipped.raise_if_strict()
    useless.refuse()
    skipped.report()
    cleaning = [tally.told() for tally in tallies.values()]
    _tell_cleaning(cleaning)
    _refuse_empty(recipe, totals, by_corpus["train"])
    separator = recipe.prepare.document_separator == "eos"
    facts: dict[str, Any] = {
        "vocab_size": vocabulary.size,
        "skipped_records": skipped.facts(),
        "cut_stretches": cut,
    }
    if cut:
        warn(
            f"{cut:,} stretches of {MAX_UNBROKEN:,} characters without white space were cut before tokenising"
        )
    if cleaning:
        facts["cleaning"] = cleaning
    for split in SPLITS:
        _write_ends(folders, split, totals[split]["documents"], written[split])
        facts[split] = _facts(totals[split], by_corpus[split], separator)
        _tell(facts[split], split)
    table = json.dumps(written, ensure_ascii=False, separators=(",", ":"))
    artifact.write_atomically(folders.store / "shards.json", table)
    write_figures(folders, plan, vocabulary, written, facts)
    artifact.seal(folders.store, "store", inputs, facts, known)


class _UnusableFiles:
    """Finds a large file of which nothing can be used: none of those who read parts of it knows."""

    def __init__(self) -> None:
        self._good: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def look(self, unit: Unit, note: Mapping[str, Any]) -> None:
        """See what came of a block."""
        if len(unit.files) != 1 or unit.blocks == 1:
            return
        file = unit.files[0]
        dropped = sum(sum(one["dropped"].values()) for one in note["cleaning"])
        self._good[file] += dropped + sum(note[split]["documents"] + note[split]["empty"] for split in SPLITS)
        if note["faults"]["first"]:
            self._first.setdefault(file, note["faults"]["first"][0])

    def refuse(self) -> None:
        """Stop if there is one.

        Raises:
          T5smithError: there is.
        """
        for file, first in self._first.items():
            if not self._good[file]:
                raise T5smithError(f"nothing in it can be used; the first: {first}", where=file)


def shards(folders: Workspace, plan: Plan) -> Iterator[tuple[Unit, str]]:
    """Every shard with what it is of, in the order of the text."""
    for unit in plan.units:
        blocks = unit.blocks if unit.blocks is not None else int(folders.end(unit.number).read_text())
        for block in range(blocks):
            yield unit, unit.shard(block)


def _write_ends(folders: Workspace, split: str, documents: int, shards: list[tuple[str, int]]) -> None:
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
            steps = " and cleaning (cleaning.steps)" * bool(recipe.cleaning.steps)
            raise T5smithError(
                f"the corpus {name!r} has no text to train on",
                where="corpus.train",
                fix=f"leave it out, give more of it, or see what the held-out split{steps} took of it",
            )


def _tell_cleaning(cleaning: list[dict[str, Any]]) -> None:
    """A line for each step: how many documents it dropped and changed, and the commonest reasons."""
    for one in cleaning:
        number = sum(one["dropped"].values())
        reasons = ", ".join(f"{reason} {times:,}" for reason, times in list(one["dropped"].items())[:REASONS])
        more = ", …" * (len(one["dropped"]) > REASONS)
        changed = f", changed {one['changed']:,}" if one["changed"] else ""
        why = f" ({reasons}{more})" if len(one["dropped"]) > 1 else ""
        info(
            f"prepare   {one['step']}: dropped {number:,} of {pluralize(one['in'], 'document')}{why}{changed}"
        )


def _tell(facts: dict[str, Any], name: str) -> None:
    """What the person should know of a split: its size, what was left out, what the vocabulary cannot say."""
    empty = f", {pluralize(facts['empty_documents'], 'empty document')} left out" * bool(
        facts["empty_documents"]
    )
    for corpus, counts in facts.get("corpora", {}).items():
        has = f"{pluralize(counts['documents'], 'document')}, {pluralize(counts['tokens'], 'token')}"
        info(f"prepare   {name} {corpus}: {has}")
        if not counts["tokens"]:
            warn(f"nothing of the corpus {corpus!r} is held out, so held-out figures do not speak of it")
    info(
        f"prepare   {name} split: {pluralize(facts['documents'], 'document')}, {facts['tokens']:,} tokens, "
        f"{facts['bytes_per_token']:.2f} bytes a token, {facts['unknown_rate']:.3%} unknown{empty}"
    )
    if facts["unknown_rate"] > UNKNOWN_WARNING_SHARE:
        warn(
            f"{facts['unknown_rate']:.2%} of the tokens of the {name} split are <unk>: the vocabulary lacks "
            f"characters of this text; train it on text like this"
        )
