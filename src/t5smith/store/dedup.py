"""Documents that are there twice, or nearly: found by what the shards noted of them, and taken out.

Of documents that are the same one stays: the first, but one that is held out before any to train on. So
what is held out stays so while a corpus grows, and nothing of it is trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t5smith.base.progress import Bar, progress
from t5smith.recipe.recipe import Recipe
from t5smith.store.dedup_records import RECORD, read_signatures
from t5smith.store.plan import Unit
from t5smith.store.shard_writer import used_pieces
from t5smith.store.token_store import id_dtype
from t5smith.store.workspace import SPLITS, Workspace, write
from t5smith.text.cleaning.pipeline import EXAMPLES, Tally
from t5smith.text.document import Document
from t5smith.text.locations import split_row_range
from t5smith.vocabulary.vocabulary import Vocabulary

AT_ONCE = 1 << 22
"""Documents whose hashes are sorted at once, about."""
SHOWN_TOKENS = 80
"""Of a dropped document, so many tokens are shown."""
REASONS = {"exact_duplicates": "a duplicate", "near_duplicates": "nearly a duplicate"}
TRAIN = 1 << 62
"""Added to the numbers of documents to train on, so that held-out ones come before them."""

Pairs = NDArray[np.int64]
"""(pairs, 2): numbers of a document that stays, and of one that is the same."""


@dataclass(frozen=True)
class DraftShards:
    """The shards as they were written, their documents numbered through.

    Attributes:
      shards: their names and units, in the order of the text.
      starts: int64 (shards + 1,); the number of each one's first document.
      buckets: of their signatures.
    """

    folders: Workspace
    shards: Sequence[tuple[Unit, str]]
    starts: NDArray[np.int64]
    buckets: int

    @classmethod
    def of(cls, folders: Workspace, shards: Sequence[tuple[Unit, str]], buckets: int) -> DraftShards:
        """Those that are there."""
        sizes = [folders.records(name).stat().st_size // RECORD.itemsize for _, name in shards]
        return cls(folders, shards, np.cumsum([0, *sizes]), buckets)

    def records(self, number: int) -> NDArray[np.void]:
        """The records of a shard."""
        return np.fromfile(self.folders.records(self.shards[number][1]), RECORD)

    def keys(self, bucket: int | None) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
        """Of each shard: hashes, (documents, 2), and numbers by which documents are preferred, (documents,).

        Args:
          bucket: of the signatures; nothing: the hashes of whole texts.
        """
        for number, (_, name) in enumerate(self.shards):
            records = self.records(number)
            keys: NDArray[np.uint64] = records["key"]
            if bucket is not None:
                keys = read_signatures(self.folders.signatures(name), len(records), self.buckets, bucket)
            rank = np.arange(self.starts[number], self.starts[number + 1])
            yield keys, rank + np.where(records["valid"], 0, TRAIN)


def find(draft: DraftShards, recipe: Recipe, bar: Bar) -> dict[str, Pairs]:
    """What each step of a recipe drops, and in favour of what: numbers of documents."""
    found: dict[str, Pairs] = {}
    steps = recipe.cleaning.duplicate_steps
    same = np.zeros((0, 2), np.int64)
    if "exact_duplicates" in steps:
        same = found["exact_duplicates"] = _equal(draft, None, bar)
    if "near_duplicates" in steps:
        stars = np.zeros((0, 2), np.int64)
        for bucket in range(recipe.cleaning.near_duplicates.num_buckets):
            stars = _stars(np.concatenate((stars, _equal(draft, bucket, bar))))
        found["near_duplicates"] = stars[~np.isin(stars[:, 1], same[:, 1])]
    return {step: pairs % TRAIN for step, pairs in found.items()}


def _equal(draft: DraftShards, bucket: int | None, bar: Bar) -> Pairs:
    """Documents with equal hashes: each with the first of them."""
    parts = -(-max(int(draft.starts[-1]), 1) // AT_ONCE)
    pairs = [np.zeros((0, 2), np.int64)]
    for part in range(parts):
        keys_, ranks_ = [np.zeros((0, 2), np.uint64)], [np.zeros(0, np.int64)]
        for keys, ranks in draft.keys(bucket):
            mine = keys.any(axis=1) & (keys[:, 1] % np.uint64(parts) == part)
            keys_.append(keys[mine])
            ranks_.append(ranks[mine])
        keys, ranks = np.concatenate(keys_), np.concatenate(ranks_)
        order = np.lexsort((ranks, keys[:, 0], keys[:, 1]))
        keys, ranks = keys[order], ranks[order]
        again = np.zeros(len(keys), np.bool_)
        again[1:] = (keys[1:] == keys[:-1]).all(axis=1)
        first = np.maximum.accumulate(np.where(again, 0, np.arange(len(keys))))
        pairs.append(np.stack((ranks[first[again]], ranks[again]), axis=1))
    bar.advance()
    return np.concatenate(pairs)


def _stars(pairs: Pairs) -> Pairs:
    """The same groups with each document tied to the first of its group alone."""
    # Importing these takes longer than preparing a small text.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, ends = np.unique(pairs, return_inverse=True)
    ends = ends.reshape(pairs.shape)
    size = len(names)
    graph = coo_array((np.ones(len(ends), np.bool_), (ends[:, 0], ends[:, 1])), (size, size))
    _, group = connected_components(graph, directed=False)
    first = np.full(size, np.iinfo(np.int64).max)
    np.minimum.at(first, group, names)
    own = first[group]
    return np.stack((own, names), axis=1)[own != names]


def drop(
    draft: DraftShards, found: dict[str, Pairs], folders: Workspace, vocabulary: Vocabulary, bar: Bar
) -> None:
    """Write the shards without what was found; those that are there already are left alone.

    Args:
      draft: the shards with duplicates.
      found: what is dropped, by step.
      folders: where they go.
      vocabulary: of their ids; shows what was dropped.
      bar: told of each shard.
    """
    sorted_ = {step: pairs[np.argsort(pairs[:, 1])] for step, pairs in found.items()}
    for number, (unit, name) in enumerate(draft.shards):
        bar.advance()
        if folders.note(name).is_file():
            continue
        start, stop = draft.starts[number : number + 2]
        own: dict[str, NDArray[np.int64]] = {}
        for step, pairs in sorted_.items():
            begin, end = np.searchsorted(pairs[:, 1], (start, stop))
            own[step] = pairs[begin:end, 1] - start
        _rewrite(draft, folders, unit, name, draft.records(number), own, vocabulary)


def _rewrite(
    draft: DraftShards,
    folders: Workspace,
    unit: Unit,
    name: str,
    records: NDArray[np.void],
    dropped: dict[str, NDArray[np.int64]],
    vocabulary: Vocabulary,
) -> None:
    """One shard: both splits, and last its note."""
    note = json.loads(draft.folders.note(name).read_text(encoding="utf-8"))
    stays = np.ones(len(records), np.bool_)
    tallies = {step: Tally(step) for step in dropped}
    left = len(records)
    for step, rows in dropped.items():
        tallies[step].came = left
        if len(rows):
            tallies[step].dropped[REASONS[step]] = len(rows)
        left -= len(rows)
        stays[rows] = False
    dtype = id_dtype(vocabulary.size)
    for split in SPLITS:
        half = np.flatnonzero(records["valid"] == (split == "valid"))
        source, target = draft.folders.ids(split, name), folders.ids(split, name)
        ids = np.fromfile(source, dtype) if source.is_file() else np.zeros(0, dtype)
        ends = np.cumsum(records["tokens"][half], dtype=np.int64)
        for step, rows in dropped.items():
            own = np.flatnonzero(np.isin(half, rows))
            _, firsts = np.unique(records["key"][half[own], 1], return_index=True)
            for row in own[firsts[:EXAMPLES]]:
                one = records[half[row]]
                begin, end = int(ends[row]) - int(one["tokens"]), int(ends[row])
                cut = min(begin + SHOWN_TOKENS, end)
                more = bool((ids[cut:end] != vocabulary.eos_id).any())
                text = vocabulary.decode(ids[begin:cut]) + "…" * more
                file = split_row_range(unit.files[one["file"]])[0]
                document = Document(text, file, int(one["line"]), int(one["after"]))
                tallies[step].show(f"{one['key'][1]:016x}", REASONS[step], document, text)
        kept = stays[half]
        if not kept.all():
            ids = ids[np.repeat(kept, records["tokens"][half])]
            half = half[kept]
        counts = note[split]
        counts["documents"], counts["tokens"] = len(half), len(ids)
        counts["text_bytes"] = int(records["text_bytes"][half].sum())
        pieces = np.bincount(ids, minlength=vocabulary.size)
        counts["unknown"] = int(pieces[vocabulary.unk_id])
        counts["bytes"] = ids.nbytes
        if len(ids):
            data = ids.tobytes()
            counts["sha256"] = hashlib.sha256(data).hexdigest()
            write(target, data)
            write(folders.lengths(split, name), records["tokens"][half].tobytes())
            write(folders.pieces(split, name), used_pieces(pieces))
        else:
            counts["sha256"] = hashlib.sha256().hexdigest()
    note["cleaning"] += [tally.facts() for tally in tallies.values()]
    write(folders.note(name), json.dumps(note, ensure_ascii=False).encode())
    for split in SPLITS:
        draft.folders.ids(split, name).unlink(missing_ok=True)


def without_duplicates(
    recipe: Recipe, folders: Workspace, shards: Sequence[tuple[Unit, str]], vocabulary: Vocabulary
) -> None:
    """From draft shards to those of the store.

    Raises:
      OSError: as when the disk is full.
    """
    buckets = recipe.cleaning.near_duplicates.num_buckets
    draft = DraftShards.of(Workspace(folders.store, folders.notes, draft=True), shards, buckets)
    steps = recipe.cleaning.duplicate_steps
    rounds = ("exact_duplicates" in steps) + ("near_duplicates" in steps) * buckets
    with progress("duplicates", rounds + len(shards), "parts") as bar:
        found = find(draft, recipe, bar)
        drop(draft, found, folders, vocabulary, bar)
