"""Removing exact and near duplicates, which are found by the hashes that were recorded with each shard.

One document of each group of duplicates is kept: the first held-out one, or else the first. So held-out
documents stay held out when a corpus grows, and no duplicate of one is trained on.
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
from t5smith.text.read_bytes import ReadBytes
from t5smith.vocabulary.vocabulary import Vocabulary

SORTED_AT_ONCE = 1 << 22
"""About the number of documents whose hashes are sorted at once."""
KEY_BYTES = 16
"""Bytes of a hash, of which each document has one for its whole text and one for each bucket."""
SHOWN_TOKENS = 80
"""Number of tokens that are shown of a dropped document."""
REASONS = {"exact_duplicates": "a duplicate", "near_duplicates": "nearly a duplicate"}
TRAIN = 1 << 62
"""Added to the numbers of training documents, so that held-out documents come before them."""

Pairs = NDArray[np.int64]
"""int64 (pairs, 2): number of a document that is kept, and of its duplicate."""


@dataclass(frozen=True)
class DraftShards:
    """The shards that may contain duplicates. Their documents are numbered across all shards.

    Attributes:
      shards: units and names, in the order of the text.
      starts: int64 (shards + 1,); number of the first document of each shard.
      buckets: number of hashes per signature.
    """

    workspace: Workspace
    shards: Sequence[tuple[Unit, str]]
    starts: NDArray[np.int64]
    buckets: int

    @classmethod
    def create(cls, workspace: Workspace, shards: Sequence[tuple[Unit, str]], buckets: int) -> DraftShards:
        """Count the documents of the shards."""
        sizes = [workspace.records(name).stat().st_size // RECORD.itemsize for _, name in shards]
        return cls(workspace, shards, np.cumsum([0, *sizes]), buckets)

    def records(self, number: int) -> NDArray[np.void]:
        """The records of a shard."""
        return np.fromfile(self.workspace.records(self.shards[number][1]), RECORD)

    def bytes_of_ids(self, name: str) -> int:
        """The bytes of the ids of a shard, in both splits."""
        files = (self.workspace.ids(split, name) for split in SPLITS)
        return sum(file.stat().st_size for file in files if file.is_file())

    def keys(self, bucket: int | None) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
        """Yield for each shard: hashes (documents, 2), and ranks (documents,), of which the lowest is kept.

        Args:
          bucket: of the signatures; None: the hashes of whole texts.
        """
        for number, (_, name) in enumerate(self.shards):
            records = self.records(number)
            keys: NDArray[np.uint64] = records["key"]
            if bucket is not None:
                keys = read_signatures(self.workspace.signatures(name), len(records), self.buckets, bucket)
            rank = np.arange(self.starts[number], self.starts[number + 1])
            yield keys, rank + np.where(records["valid"], 0, TRAIN)


def find_duplicates(draft: DraftShards, recipe: Recipe, bar: Bar) -> dict[str, Pairs]:
    """The duplicates that each step of a recipe drops, each with the document that is kept."""
    found: dict[str, Pairs] = {}
    steps = recipe.cleaning.duplicate_steps
    same = np.zeros((0, 2), np.int64)
    if "exact_duplicates" in steps:
        same = found["exact_duplicates"] = _equal_pairs(draft, None, bar)
    if "near_duplicates" in steps:
        pairs = np.zeros((0, 2), np.int64)
        for bucket in range(recipe.cleaning.near_duplicates.num_buckets):
            pairs = _pair_with_first(np.concatenate((pairs, _equal_pairs(draft, bucket, bar))))
        found["near_duplicates"] = pairs[~np.isin(pairs[:, 1], same[:, 1])]
    return {step: pairs % TRAIN for step, pairs in found.items()}


def _equal_pairs(draft: DraftShards, bucket: int | None, bar: Bar) -> Pairs:
    """Documents with equal hashes, each paired with the first of them."""
    parts = -(-max(int(draft.starts[-1]), 1) // SORTED_AT_ONCE)
    pairs = [np.zeros((0, 2), np.int64)]
    read = ReadBytes(int(draft.starts[-1]) * KEY_BYTES, bar.advance, 1 / parts)
    for part in range(parts):
        all_keys, all_ranks = [np.zeros((0, 2), np.uint64)], [np.zeros(0, np.int64)]
        for keys, ranks in draft.keys(bucket):
            read.add(len(keys) * KEY_BYTES)
            selected = keys.any(axis=1) & (keys[:, 1] % np.uint64(parts) == part)
            all_keys.append(keys[selected])
            all_ranks.append(ranks[selected])
        keys, ranks = np.concatenate(all_keys), np.concatenate(all_ranks)
        order = np.lexsort((ranks, keys[:, 0], keys[:, 1]))
        keys, ranks = keys[order], ranks[order]
        repeated = np.zeros(len(keys), np.bool_)
        repeated[1:] = (keys[1:] == keys[:-1]).all(axis=1)
        first = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(keys))))
        pairs.append(np.stack((ranks[first[repeated]], ranks[repeated]), axis=1))
    read.finish()
    return np.concatenate(pairs)


def _pair_with_first(pairs: Pairs) -> Pairs:
    """Pairs of the same connected groups, in which each document is paired with the first of its group."""
    # Importing these takes longer than preparing a small text.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    documents, nodes = np.unique(pairs, return_inverse=True)
    nodes = nodes.reshape(pairs.shape)
    size = len(documents)
    graph = coo_array((np.ones(len(nodes), np.bool_), (nodes[:, 0], nodes[:, 1])), (size, size))
    _, group = connected_components(graph, directed=False)
    first = np.full(size, np.iinfo(np.int64).max)
    np.minimum.at(first, group, documents)
    kept = first[group]
    return np.stack((kept, documents), axis=1)[kept != documents]


def rewrite_shards(
    draft: DraftShards, found: dict[str, Pairs], workspace: Workspace, vocabulary: Vocabulary, bar: Bar
) -> None:
    """Write the shards that do not exist yet, without the duplicates.

    Args:
      draft: the shards with duplicates.
      found: pairs of each step, see :func:`find_duplicates`.
      workspace: where the shards are written.
      vocabulary: of the ids.
      bar: advances by the bytes of ids of each shard.
    """
    by_document = {step: pairs[np.argsort(pairs[:, 1])] for step, pairs in found.items()}
    for number, (unit, name) in enumerate(draft.shards):
        if workspace.note(name).is_file():
            continue
        size = draft.bytes_of_ids(name)
        start, stop = draft.starts[number : number + 2]
        dropped: dict[str, NDArray[np.int64]] = {}
        for step, pairs in by_document.items():
            begin, end = np.searchsorted(pairs[:, 1], (start, stop))
            dropped[step] = pairs[begin:end, 1] - start
        _rewrite_shard(draft, workspace, unit, name, draft.records(number), dropped, vocabulary)
        bar.advance(size)


def _rewrite_shard(
    draft: DraftShards,
    workspace: Workspace,
    unit: Unit,
    name: str,
    records: NDArray[np.void],
    dropped: dict[str, NDArray[np.int64]],
    vocabulary: Vocabulary,
) -> None:
    """Write one shard: both splits, and last its note. `dropped` has the documents that each step drops."""
    note = json.loads(draft.workspace.note(name).read_text(encoding="utf-8"))
    members: list[str] = []
    if (names := draft.workspace.members(name)).is_file():
        members = json.loads(names.read_text(encoding="utf-8"))
    kept = np.ones(len(records), np.bool_)
    tallies = {step: Tally(step) for step in dropped}
    for step, documents in dropped.items():
        tallies[step].came = int(kept.sum())
        if len(documents):
            tallies[step].dropped[REASONS[step]] = len(documents)
        kept[documents] = False
    dtype = id_dtype(vocabulary.size)
    for split in SPLITS:
        rows = np.flatnonzero(records["valid"] == (split == "valid"))
        source = draft.workspace.ids(split, name)
        ids = np.fromfile(source, dtype) if source.is_file() else np.zeros(0, dtype)
        for step, documents in dropped.items():
            dropped_rows = np.isin(rows, documents)
            _add_examples(tallies[step], records[rows], dropped_rows, ids, unit, members, vocabulary)
        ids = ids[np.repeat(kept[rows], records["tokens"][rows])]
        rows = rows[kept[rows]]
        pieces = np.bincount(ids, minlength=vocabulary.size)
        data = ids.tobytes()
        note[split] |= {
            "documents": len(rows),
            "tokens": len(ids),
            "text_bytes": int(records["text_bytes"][rows].sum()),
            "unknown": int(pieces[vocabulary.unk_id]),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        if data:
            write(workspace.ids(split, name), data)
            write(workspace.lengths(split, name), records["tokens"][rows].tobytes())
            write(workspace.pieces(split, name), used_pieces(pieces))
    note["cleaning"] += [tally.facts() for tally in tallies.values()]
    write(workspace.note(name), json.dumps(note, ensure_ascii=False).encode())
    for split in SPLITS:
        draft.workspace.ids(split, name).unlink(missing_ok=True)


def _add_examples(
    tally: Tally,
    records: NDArray[np.void],
    dropped: NDArray[np.bool_],
    ids: NDArray[np.unsignedinteger],
    unit: Unit,
    members: Sequence[str],
    vocabulary: Vocabulary,
) -> None:
    """Add examples of dropped documents, those with the smallest hashes.

    Args:
      tally: of the step.
      records: RECORD (documents,); of one split of a shard.
      dropped: (documents,); those that the step drops.
      ids: of all these documents.
      unit: of the shard.
      members: the names of those of its archives.
      vocabulary: of the ids.
    """
    ends = np.cumsum(records["tokens"], dtype=np.int64)
    candidates = np.flatnonzero(dropped)
    _, first = np.unique(records["key"][candidates, 1], return_index=True)
    for row in candidates[first[:EXAMPLES]]:
        record = records[row]
        begin, end = int(ends[row]) - int(record["tokens"]), int(ends[row])
        cut = min(begin + SHOWN_TOKENS, end)
        text = vocabulary.decode(ids[begin:cut])
        if (ids[cut:end] != vocabulary.eos_id).any():
            text += "…"
        file = split_row_range(unit.files[record["file"]])[0]
        after = int(record["after"])
        if members and after:
            document = Document(text, file, int(record["line"]), member=members[after - 1])
        else:
            document = Document(text, file, int(record["line"]), after)
        tally.show(f"{record['key'][1]:016x}", REASONS[tally.step], document, text)


def remove_duplicates(
    recipe: Recipe, workspace: Workspace, shards: Sequence[tuple[Unit, str]], vocabulary: Vocabulary
) -> None:
    """Write the store's shards: the draft shards without duplicates.

    Raises:
      OSError: such as a full disk.
    """
    buckets = recipe.cleaning.near_duplicates.num_buckets
    draft = DraftShards.create(Workspace(workspace.store, workspace.notes, draft=True), shards, buckets)
    steps = recipe.cleaning.duplicate_steps
    rounds = int("exact_duplicates" in steps) + (buckets if "near_duplicates" in steps else 0)
    left = sum(draft.bytes_of_ids(name) for _, name in shards if not workspace.note(name).is_file())
    total = rounds * int(draft.starts[-1]) * KEY_BYTES + left
    with progress("prepare", total, "bytes compared") as bar:
        found = find_duplicates(draft, recipe, bar)
        rewrite_shards(draft, found, workspace, vocabulary, bar)
