"""Statistics of a finished store for its report: input files, lengths of documents, pieces, sample windows.

They are computed when the store is finished, and written into it as `figures.json`. Only the sample windows
are read from the store: tasks count pieces while the ids are in memory. Memory does not grow with the store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t5smith.base.disk import write_atomically
from t5smith.store.plan import Plan
from t5smith.store.shard_writer import PIECES
from t5smith.store.token_store import Split, id_dtype, open_split
from t5smith.store.workspace import SPLITS, Workspace
from t5smith.vocabulary.vocabulary import Vocabulary
from t5smith.vocabulary.white_space import visible

FIGURES = "figures.json"
MOST_USED = 50
SAMPLE_WINDOWS = 6
"""Number of sample windows, if there are not more corpora: each corpus has at least one."""
SAMPLE_WINDOW_LENGTH = 160
"""Length of a sample window in tokens; the objective's window length is not known here."""
_DOCUMENTS_AT_ONCE = 1 << 22


def write_figures(
    workspace: Workspace,
    plan: Plan,
    vocabulary: Vocabulary,
    shards: Mapping[str, Sequence[tuple[str, int]]],
    facts: Mapping[str, Any],
) -> None:
    """Write `figures.json` into an unfinished store.

    Args:
      workspace: with all of the store but its manifest, and the notes of its shards.
      plan: with the input files.
      vocabulary: of the ids.
      shards: of each split, the files and their numbers of ids.
      facts: of each split, for the manifest.
    """
    dtype = id_dtype(vocabulary.size)
    splits = {name: open_split(workspace.store, name, shards[name], dtype, facts[name]) for name in SPLITS}
    counts = np.zeros(vocabulary.size, np.int64)
    for file, _ in shards["train"]:
        rows = np.fromfile(workspace.pieces("train", file.removesuffix(".bin")), PIECES)
        counts[rows["id"]] += rows["count"]
    figures = {
        "came_in": input_sizes(plan),
        "lengths": {
            name: document_lengths(split.ends, int(bool(facts[name]["separators"])))
            for name, split in splits.items()
        },
        "pieces": most_used(counts, vocabulary),
        "windows": sample_windows(splits["train"], vocabulary, named="corpora" in facts["train"]),
    }
    write_atomically(workspace.store / FIGURES, json.dumps(figures, ensure_ascii=False) + "\n")


def read_figures(store: Path) -> dict[str, Any]:
    """The figures of a finished store."""
    return json.loads((store / FIGURES).read_text(encoding="utf-8"))


def input_sizes(plan: Plan) -> list[dict[str, Any]]:
    """Numbers of files and their bytes on disk, by corpus, and by split if validation files are named."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for unit in plan.units:
        own = {"split": unit.split, "corpus": unit.corpus, "files": 0, "bytes": 0}
        own = found.setdefault((unit.split, unit.corpus), own)
        own["files"] += len(unit.files)
        own["bytes"] += unit.bytes
    return list(found.values())


def document_lengths(ends: NDArray[np.int64], separator: int) -> dict[str, Any]:
    """Statistics of the lengths of documents in tokens.

    Args:
      ends: int64 (documents,); end of each document.
      separator: number of tokens at the end of each that are not counted, 0 or 1.

    Returns:
      `shortest`, `median`, `ninth_decile`, `longest`: the last three are the smallest length that half,
      nine tenths and all of the documents do not exceed. `powers`: rows of a power of two p, the number of
      documents of p to 2p - 1 tokens, and their number of tokens.
    """
    # Documents of n different lengths have at least n²/2 tokens together, so the table of lengths is small.
    lengths, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for start in range(0, len(ends), _DOCUMENTS_AT_ONCE):
        before = int(ends[start - 1]) if start else 0
        own = np.diff(ends[start : start + _DOCUMENTS_AT_ONCE], prepend=before) - separator
        own_lengths, own_counts = np.unique(own, return_counts=True)
        lengths, row = np.unique(np.concatenate([lengths, own_lengths]), return_inverse=True)
        old_and_new = np.concatenate([counts, own_counts])
        counts = np.zeros(len(lengths), np.int64)
        np.add.at(counts, row, old_and_new)
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
    """The most used pieces, and the number of unused ones.

    Args:
      counts: int64 (vocabulary,); count of each id in the training split.
      vocabulary: of the ids.

    Returns:
      `tokens`: number of text tokens, including `<unk>`. `most_used`: rows of a piece and its count, the
      highest first, then by id. `pieces`: number of pieces that text can be encoded in. `unused`: number of
      these that do not occur.
    """
    text = np.where(vocabulary.is_text, counts, 0)
    order = np.argsort(-text, kind="stable")[:MOST_USED]
    order = order[text[order] > 0]
    known = vocabulary.is_text.copy()
    known[vocabulary.unk_id] = False
    return {
        "tokens": int(text.sum()),
        "most_used": [
            [visible(piece), int(text[number])]
            for piece, number in zip(vocabulary.pieces(order), order, strict=True)
        ],
        "pieces": int(known.sum()),
        "unused": int(np.count_nonzero(counts[known] == 0)),
    }


def sample_windows(split: Split, vocabulary: Vocabulary, *, named: bool) -> list[dict[str, Any]]:
    """Windows of a split before masking, spread evenly over each corpus.

    Args:
      split: of a store.
      vocabulary: of the ids.
      named: whether the corpora have names.

    Returns:
      Of each window: `corpus`, its name or empty; `start`, position of its first token; `document`, number of
      its first document, from 1; `texts`, one per document; `begins`, whether the first text is the beginning
      of its document; `ends`, whether the last text is the end of its document.
    """
    windows: list[dict[str, Any]] = []
    for corpus in split.corpora:
        size = min(SAMPLE_WINDOW_LENGTH, corpus.tokens)
        number = min(-(-SAMPLE_WINDOWS // len(split.corpora)), corpus.tokens // size)
        for i in range(number):
            # The middle of one of `number` equal parts of the corpus, each at least a window long.
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
