"""How well vocabularies suit a text: the same held-out documents, cut into the pieces of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.base.progress import Bar, count, progress
from t5smith.recipe.recipe import Recipe
from t5smith.text.corpus import find_corpora
from t5smith.text.documents import is_held_out, read_documents
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.import_tokenizer import import_tokenizer
from t5smith.vocabulary.normalizers import SPACE
from t5smith.vocabulary.vocabulary import Vocabulary

LONGEST = 8
"""So many of the longest pieces are told."""


@dataclass(frozen=True)
class MeasuredVocabulary:
    """One vocabulary on a text.

    Attributes:
      name: what it was asked for as.
      read_from: the file.
      ids, sentinels: how many it has; `ids` counts sentinels and control pieces too.
      pieces: those that text may become.
      tokens: of the text, without `</s>`.
      unknown: those of them that are `<unk>`, one for each run of unknown characters.
      used: pieces that occur.
      bytes_per_token: of raw text; more is better, but unknown text costs little here.
      tokens_per_word: words are what stands between white space.
      unknown_rate: share of the tokens.
      used_rate: share of the pieces.
      longest: the longest pieces that occur, `▁` for a space.
    """

    name: str
    read_from: str
    ids: int
    sentinels: int
    pieces: int
    tokens: int
    unknown: int
    used: int
    bytes_per_token: float
    tokens_per_word: float
    unknown_rate: float
    used_rate: float
    longest: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Vocabularies on the same text.

    Attributes:
      documents, bytes, words: of the raw text.
      whole: whether it is all held-out text, not the first of it.
      vocabularies: in the order they were asked for.
    """

    documents: int
    bytes: int
    words: int
    whole: bool
    vocabularies: tuple[MeasuredVocabulary, ...]


def compare_vocabularies(
    recipe: Recipe, tokenizers: Sequence[str], max_bytes: int = 10_000_000
) -> Comparison:
    """Measure tokenizers on the held-out documents of a recipe, the same ones for all.

    Args:
      recipe: its `corpus` says what is held out.
      tokenizers: each as `vocab.tokenizer` is written, or a run folder.
      max_bytes: whole documents are taken until there are as many, evenly of each named corpus.

    Raises:
      T5smithError: a tokenizer cannot be used, or no document is held out.
    """
    if max_bytes < 1:
        raise T5smithError(f"{max_bytes} cannot be used", where="--max-bytes", expected="1 or more")
    found = [import_tokenizer(name, where="--compare") for name in tokenizers]
    with progress("compare", None, "bytes") as bar:
        texts, whole = _held_out(recipe, max_bytes, bar)
    size = sum(len(text.encode()) for text in texts)
    words = sum(len(text.split()) for text in texts)
    if not words:
        raise T5smithError(
            "there is no held-out text",
            where="corpus.valid" if recipe.corpus.valid else "corpus.held_out_fraction",
            fix="raise corpus.held_out_fraction, or name files with text in corpus.valid",
        )
    measured = tuple(
        MeasuredVocabulary(name=one.name, read_from=one.file, **_measure(one.vocabulary, texts, size, words))
        for one in found
    )
    return Comparison(len(texts), size, words, whole, measured)


def _held_out(recipe: Recipe, max_bytes: int, bar: Bar) -> tuple[list[str], bool]:
    """The first held-out documents, and whether there are no more."""
    corpus = recipe.corpus
    field = "corpus.valid" if corpus.valid else "corpus.train"
    groups = find_corpora(corpus.valid or corpus.train, field)
    skipped = SkippedRecords(corpus.strict)
    texts: list[str] = []
    whole = True

    def of(files: Any) -> Iterator[str]:
        for document in read_documents(corpus, files, None, skipped):
            if corpus.valid or is_held_out(document.text, corpus.held_out_fraction):
                yield document.text

    for files in groups.values():
        taken = 0
        for text in of(files):
            if taken >= max_bytes / len(groups):
                whole = False
                break
            texts.append(text)
            taken += (size := len(text.encode()))
            bar.advance(size, documents=count(len(texts)))
    skipped.report()
    return texts, whole


def _measure(vocabulary: Vocabulary, texts: Sequence[str], size: int, words: int) -> dict[str, Any]:
    table = vocabulary.bulk_encoder(np.dtype(np.uint32))
    counts = np.zeros(vocabulary.size, np.int64)
    for text in texts:
        counts += np.bincount(np.frombuffer(table.encode(text), np.uint32), minlength=vocabulary.size)
    tokens, unknown = int(counts.sum()), int(counts[vocabulary.unk_id])
    is_piece = vocabulary.is_text.copy()
    is_piece[vocabulary.unk_id] = False
    used = np.flatnonzero((counts > 0) & is_piece)
    pieces = int(is_piece.sum())
    return {
        "ids": vocabulary.size,
        "sentinels": len(vocabulary.sentinel_ids),
        "pieces": pieces,
        "tokens": tokens,
        "unknown": unknown,
        "used": len(used),
        "bytes_per_token": size / max(tokens, 1),
        "tokens_per_word": tokens / words,
        "unknown_rate": unknown / max(tokens, 1),
        "used_rate": len(used) / max(pieces, 1),
        "longest": _longest(vocabulary, used),
    }


def _longest(vocabulary: Vocabulary, used: np.ndarray) -> tuple[str, ...]:
    """The longest pieces in characters, the space before them not counted; bytes have none."""
    if vocabulary.is_byte_level:
        return ()
    pieces = vocabulary.readable_pieces(used)
    return tuple(sorted(pieces, key=lambda piece: (-len(piece.strip(SPACE)), piece))[:LONGEST])
