"""Examples for people: held-out sentences with two words masked, and what the model fills in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from t5smith.generation.fill import complete
from t5smith.interop.model import Model
from t5smith.objective.objective import Objective
from t5smith.objective.rng import EXAMPLES, generator
from t5smith.recipe.evaluate import GenerateSettings
from t5smith.store.token_store import Split
from t5smith.vocabulary.vocabulary import SPACE, Vocabulary
from t5smith.vocabulary.white_space import visible

SENTENCE_TOKENS = (12, 32)
"""Least and most tokens of an example's sentence: it fits on a line or two."""
MAX_WORD_TOKENS = 3
"""Most tokens of a masked word: about as many as a span in training has."""
MAX_NEW_TOKENS = 24
"""Most tokens that the model may write."""
DOCUMENTS, DOCUMENT_TOKENS = 200, 2_000
"""Sentences are taken from the first documents, and from the first tokens of each."""


def fill_examples(model: Model, objective: Objective, held_out: Split, n: int) -> list[dict[str, Any]]:
    """Mask a word in each half of `n` held-out sentences, and let the model fill them in.

    Returns:
      For each example: `text`, `input` and `kept` (the text around the masked words), `truth` and `fills`
      (the masked words and the model's), `output` and `filled`.
    """
    vocabulary, rng = model.vocabulary, generator(0, EXAMPLES, 0)
    candidates = list(_sentences(vocabulary, held_out))
    chosen: list[dict[str, Any]] = []
    for index in rng.permutation(len(candidates)):
        ids = candidates[index]
        spans = _two_words(vocabulary, ids, rng)
        if len(chosen) == n:
            break
        if spans is None:
            continue
        kept = [ids[: spans[0][0]], ids[spans[0][1] : spans[1][0]], ids[spans[1][1] :]]
        first, second = (int(sentinel) for sentinel in vocabulary.sentinel_ids[:2])
        inputs = [*kept[0], first, *kept[1], second, *kept[2]]
        chosen.append({"ids": ids, "kept": kept, "spans": spans, "inputs": inputs})
    # A mixture's first denoiser that masks spans is the one with the shortest.
    prefixes = [spec.prefix for spec in objective.denoisers if spec.lengths is not None]
    prefix = prefixes[0] if prefixes else objective.denoisers[0].prefix
    max_new_tokens = MAX_NEW_TOKENS * _tokens_per_piece(vocabulary)
    # Without constraint: what the model writes by itself shows more of it.
    settings = GenerateSettings(max_new_tokens=max_new_tokens, min_new_tokens=0, constrain=False)
    completions = complete(model, [one["inputs"] for one in chosen], settings, prefix)
    return [
        {
            "text": vocabulary.decode(one["ids"]),
            "input": vocabulary.decode(one["inputs"]),
            "kept": [vocabulary.decode(part) for part in one["kept"]],
            "truth": [vocabulary.decode(one["ids"][start:stop]) for start, stop in one["spans"]],
            "fills": list(
                map(visible, completion.fills) if vocabulary.keeps_whitespace else completion.fills
            ),
            "output": completion.text,
            "filled": completion.filled,
        }
        for one, completion in zip(chosen, completions, strict=True)
    ]


def _tokens_per_piece(vocabulary: Vocabulary) -> int:
    """How many tokens hold as much text as a piece does on average: of bytes it takes more."""
    return 4 if vocabulary.is_byte_level else 1


def _sentences(vocabulary: Vocabulary, split: Split) -> Iterator[list[int]]:
    """Sentences of a suitable length from the first documents of a split."""
    low, high = (tokens * _tokens_per_piece(vocabulary) for tokens in SENTENCE_TOKENS)
    for end, start in zip(split.ends[:DOCUMENTS], (0, *split.ends), strict=False):
        text = vocabulary.decode(split.tokens[start : min(end, start + DOCUMENT_TOKENS)])
        sentences = re.split(r"(?<=[.!?]) +(?=\w)" + r"|\s*\n\s*" * vocabulary.keeps_whitespace, text)
        # The last sentence may be cut off.
        for ids in vocabulary.encode_batch(sentences[:-1] or sentences):
            if low <= len(ids) <= high and vocabulary.unk_id not in ids:
                yield ids


def _two_words(
    vocabulary: Vocabulary, ids: list[int], rng: np.random.Generator
) -> list[tuple[int, int]] | None:
    """A short word in each half of a sentence as [start, stop) in `ids`; None if a half has none.

    The last word is never masked: its full stop would be masked with it.
    """
    starts = [at for at, piece in enumerate(vocabulary.readable_pieces(ids)) if piece.startswith(SPACE)]
    words = list(pairwise(starts))
    halves = words[1 : len(words) // 2], words[len(words) // 2 + 1 :]
    longest = MAX_WORD_TOKENS * _tokens_per_piece(vocabulary)
    short = [[word for word in half if word[1] - word[0] <= longest] for half in halves]
    return [half[rng.integers(len(half))] for half in short] if all(short) else None
