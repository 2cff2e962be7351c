"""Comparison of vocabularies: how well each encodes the same held-out documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.base.progress import Bar, count, progress
from t5smith.base.wrapping import pluralize
from t5smith.recipe.recipe import Recipe
from t5smith.text.corpus import find_corpora
from t5smith.text.documents import is_held_out, read_documents
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.import_tokenizer import import_tokenizer
from t5smith.vocabulary.normalizers import SPACE
from t5smith.vocabulary.vocabulary import Vocabulary

LONGEST_PIECES = 8
"""Number of the longest pieces that are listed."""


@dataclass(frozen=True)
class MeasuredVocabulary:
    """Figures of one vocabulary on a text.

    Attributes:
      name: as requested.
      read_from: the file.
      ids, sentinels: their numbers; `ids` includes sentinels and control pieces.
      pieces: number of pieces that text is encoded in.
      tokens: of the text, without `</s>`.
      unknown: number of `<unk>` among them, one for each run of unknown characters.
      used: number of pieces that occur.
      bytes_per_token: of raw text; more is better, but unknown text costs little.
      tokens_per_word: words are separated by white space.
      unknown_rate: share of the tokens.
      used_rate: share of the pieces.
      longest: the longest pieces that occur, with `▁` for a space.
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
      whole: whether it is all held-out text, not only its beginning.
      vocabularies: in the order requested.
    """

    documents: int
    bytes: int
    words: int
    whole: bool
    vocabularies: tuple[MeasuredVocabulary, ...]


def compare_vocabularies(
    recipe: Recipe, tokenizers: Sequence[str], max_bytes: int = 10_000_000
) -> Comparison:
    """Encode the same held-out documents of a recipe with each tokenizer.

    Args:
      recipe: its `corpus` names the text and what is held out.
      tokenizers: each a value of `vocab.tokenizer`, or a run folder.
      max_bytes: documents are read until they have this many bytes, the same number from each named corpus.

    Raises:
      T5smithError: a tokenizer cannot be used, or no document is held out.
    """
    if max_bytes < 1:
        raise T5smithError(f"{max_bytes} cannot be used", where="--max-bytes", expected="1 or more")
    with phase("compare", "reading the tokenizers", at_once=False):
        imported = [import_tokenizer(name, where="--compare") for name in tokenizers]
    with progress("compare", None, "bytes") as bar:
        texts, whole = _held_out(recipe, max_bytes, bar)
    size = sum(len(text.encode()) for text in texts)
    words = sum(len(text.split()) for text in texts)
    if not words:
        raise T5smithError(
            "there is no held-out text",
            where="corpus.valid" if recipe.corpus.valid else "corpus.held_out_fraction",
            fix="raise corpus.held_out_fraction, which cannot help if the text is a single document, or name "
            "files with text in corpus.valid",
        )
    with phase("compare", f"encoding with {pluralize(len(imported), 'tokenizer')}", at_once=False):
        measured = tuple(
            MeasuredVocabulary(
                name=tokenizer.name,
                read_from=tokenizer.file,
                **_measure(tokenizer.vocabulary, texts, size, words),
            )
            for tokenizer in imported
        )
    return Comparison(len(texts), size, words, whole, measured)


def _held_out(recipe: Recipe, max_bytes: int, bar: Bar) -> tuple[list[str], bool]:
    """The first held-out documents, and whether these are all."""
    corpus = recipe.corpus.of_split("valid" if recipe.corpus.valid else "train")
    field = "corpus.valid" if corpus.valid else "corpus.train"
    groups = find_corpora(corpus.valid or corpus.train, field, None, corpus)
    skipped = SkippedRecords(corpus.strict)
    texts: list[str] = []
    whole = True

    def held_out(files: Any) -> Iterator[str]:
        for document in read_documents(corpus, files, None, skipped):
            if corpus.valid or is_held_out(document.text, corpus.held_out_fraction):
                yield document.text

    for files in groups.values():
        taken = 0
        for text in held_out(files):
            if taken >= max_bytes / len(groups):
                whole = False
                break
            texts.append(text)
            taken += (size := len(text.encode()))
            bar.advance(size, documents=count(len(texts)))
    skipped.report()
    return texts, whole


def _measure(vocabulary: Vocabulary, texts: Sequence[str], size: int, words: int) -> dict[str, Any]:
    encoder = vocabulary.bulk_encoder(np.dtype(np.uint32))
    counts = np.zeros(vocabulary.size, np.int64)
    for text in texts:
        counts += np.bincount(np.frombuffer(encoder.encode(text), np.uint32), minlength=vocabulary.size)
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
    """The pieces with the most characters, without the `▁` before them; a byte-level vocabulary has none."""
    if vocabulary.is_byte_level:
        return ()
    pieces = vocabulary.readable_pieces(used)
    return tuple(sorted(pieces, key=lambda piece: (-len(piece.strip(SPACE)), piece))[:LONGEST_PIECES])
