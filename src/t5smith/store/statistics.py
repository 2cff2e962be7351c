"""What came of the text, for people to read: files, lengths of documents, pieces most used, sample windows.

It is found when the store is finished and lies in it as `figures.json`. The ids are not read again for it,
but for the windows: tasks count pieces while they have them in memory. Nothing grows with the store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t5smith.base.artifact import write_atomically
from t5smith.store.plan import Plan
from t5smith.store.shard_writer import PIECES
from t5smith.store.token_store import Split, id_dtype, open_split
from t5smith.store.workspace import SPLITS, Workspace
from t5smith.vocabulary.vocabulary import Vocabulary

FIGURES = "figures.json"
MOST_USED = 50
WINDOWS = 6
"""So many windows are shown, or one of each corpus if there are more of these."""
WINDOW = 160
"""Tokens of a window. The store does not know the objective's."""
_AT_ONCE = 1 << 22


def write_figures(
    folders: Workspace,
    plan: Plan,
    vocabulary: Vocabulary,
    shards: Mapping[str, Sequence[tuple[str, int]]],
    facts: Mapping[str, Any],
) -> None:
    """Write the figures of a store into it.

    Args:
      folders: the store, whole but for its manifest, and the notes of its shards.
      plan: the files it was made of.
      vocabulary: whose ids they are.
      shards: of each split the files and how many ids each has.
      facts: what the manifest will say of each split.
    """
    dtype = id_dtype(vocabulary.size)
    splits = {name: open_split(folders.store, name, shards[name], dtype, facts[name]) for name in SPLITS}
    counts = np.zeros(vocabulary.size, np.int64)
    for file, _ in shards["train"]:
        rows = np.fromfile(folders.pieces("train", file.removesuffix(".bin")), PIECES)
        counts[rows["id"]] += rows["count"]
    figures = {
        "came_in": came_in(plan),
        "lengths": {
            name: document_lengths(split.ends, int(bool(facts[name]["separators"])))
            for name, split in splits.items()
        },
        "pieces": most_used(counts, vocabulary),
        "windows": sample_windows(splits["train"], vocabulary, named="corpora" in facts["train"]),
    }
    write_atomically(folders.store / FIGURES, json.dumps(figures, ensure_ascii=False) + "\n")


def read_figures(store: Path) -> dict[str, Any]:
    """The figures of a finished store."""
    return json.loads((store / FIGURES).read_text(encoding="utf-8"))


def came_in(plan: Plan) -> list[dict[str, Any]]:
    """Files and their bytes on disk, of each corpus, and of each split where that is given."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for unit in plan.units:
        own = {"split": unit.split, "corpus": unit.corpus, "files": 0, "bytes": 0}
        own = found.setdefault((unit.split, unit.corpus), own)
        own["files"] += len(unit.files)
        own["bytes"] += unit.bytes
    return list(found.values())


def document_lengths(ends: NDArray[np.int64], separator: int) -> dict[str, Any]:
    """How long documents are, in tokens.

    Args:
      ends: int64 (documents,); where each document ends.
      separator: tokens at the end of each that are not counted, 0 or 1.

    Returns:
      `shortest`, `median`, `ninth_decile`, `longest`: the last three are the smallest length that half,
      nine tenths and all of the documents do not exceed. `powers`: rows of a power of two, how many
      documents have as many tokens or more, but not twice as many, and how many tokens these have together.
    """
    # Documents of n different lengths have n²/2 tokens or more, so that a table of lengths stays small.
    lengths, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for start in range(0, len(ends), _AT_ONCE):
        before = int(ends[start - 1]) if start else 0
        own = np.diff(ends[start : start + _AT_ONCE], prepend=before) - separator
        new, often = np.unique(own, return_counts=True)
        lengths, row = np.unique(np.concatenate([lengths, new]), return_inverse=True)
        both = np.concatenate([counts, often])
        counts = np.zeros(len(lengths), np.int64)
        np.add.at(counts, row, both)
    documents = np.cumsum(counts)
    total = int(documents[-1])
    power = np.frexp(lengths)[1] - 1
    return {
        "shortest": int(lengths[0]),
        "median": int(lengths[np.searchsorted(documents, -(-total // 2))]),
        "ninth_decile": int(lengths[np.searchsorted(documents, -(-total * 9 // 10))]),
        "longest": int(lengths[-1]),
        "powers": [
            [2**k, int(counts[power == k].sum()), int((counts * lengths)[power == k].sum())]
            for k in range(int(power[0]), int(power[-1]) + 1)
        ],
    }


def most_used(counts: NDArray[np.int64], vocabulary: Vocabulary) -> dict[str, Any]:
    """The pieces that are most used, and how many never are.

    Args:
      counts: int64 (vocabulary,); how often each id stands in the training split.
      vocabulary: whose ids they are.

    Returns:
      `tokens`: of text, `<unk>` among them. `most_used`: rows of a piece and its count, most first, then by
      id. `pieces`: how many there are that text can turn into. `unused`: how many of these no text did.
    """
    text = np.where(vocabulary.is_text, counts, 0)
    order = np.argsort(-text, kind="stable")[:MOST_USED]
    order = order[text[order] > 0]
    known = vocabulary.is_text.copy()
    known[vocabulary.unk_id] = False
    return {
        "tokens": int(text.sum()),
        "most_used": [
            [piece, int(text[number])] for piece, number in zip(vocabulary.pieces(order), order, strict=True)
        ],
        "pieces": int(known.sum()),
        "unused": int(np.count_nonzero(counts[known] == 0)),
    }


def sample_windows(split: Split, vocabulary: Vocabulary, *, named: bool) -> list[dict[str, Any]]:
    """Windows of a split as they are before masking, from places spread over each corpus.

    Args:
      split: of a store.
      vocabulary: whose ids it has.
      named: whether its corpora have names.

    Returns:
      For each window the name of its `corpus`, or nothing; the place of its first token, `start`; the number
      of its first `document`, from 1; its `texts`, one of each document in it; whether the first of them is
      there from its beginning, `begins`, and the last to its end, `ends`.
    """
    windows: list[dict[str, Any]] = []
    for corpus in split.corpora:
        size = min(WINDOW, corpus.tokens)
        number = min(-(-WINDOWS // len(split.corpora)), corpus.tokens // size)
        for i in range(number):
            # The middle of each of so many equal parts, none of which is shorter than a window.
            middle = corpus.tokens * (2 * i + 1) // (2 * number)
            start = corpus.start + min(middle - size // 2, corpus.tokens - size)
            first, last = np.searchsorted(split.ends, [start, start + size], "right")
            inside = split.ends[first:last] - start
            parts = np.split(np.asarray(split.tokens[start : start + size]), inside)
            ends = not len(parts[-1])
            windows.append(
                {
                    "corpus": corpus.name if named else "",
                    "start": start,
                    "document": int(first) + 1,
                    "begins": start == (int(split.ends[first - 1]) if first else 0),
                    "texts": [vocabulary.decode(part) for part in parts[: len(parts) - ends]],
                    "ends": ends,
                }
            )
    return windows
