"""Counting words such as `<unk>` that stand in the text itself.

Training reads them as text (or as unknown, `vocab.unknown_words`); `AutoTokenizer` reads those of them that
are pieces of the vocabulary as control pieces. Spelled out, one that is frequent is many tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from t5smith.base.progress import info, warn
from t5smith.base.wrapping import pluralize
from t5smith.vocabulary.tokenizer_json import SENTINEL
from t5smith.vocabulary.vocabulary import Vocabulary

KNOWN = (
    "<unk>",
    "<pad>",
    "</s>",
    "<s>",
    "<mask>",
    "[UNK]",
    "[PAD]",
    "[MASK]",
    "[CLS]",
    "[SEP]",
    "<|endoftext|>",
)
"""Control words of well-known tokenizers and corpora."""
SENTINELS = "<extra_id_"
"""Begins the name of every sentinel; they are counted together."""
WARNING_SHARE = 1e-4
"""A larger share of the tokens gives a warning."""
MAX_SHOWN = 4


class ControlWordCounter:
    """Counts control words in texts, in a small part of the time that encoding takes.

    Attributes:
      counts: occurrences by word since they were last cleared.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        control = vocabulary.pieces(np.flatnonzero(~vocabulary.is_text))
        own = [name for name in control if len(name) > 1 and not SENTINEL.fullmatch(name)]
        self.counts: Counter[str] = Counter()
        by_first: dict[str, list[str]] = {}
        for word in sorted({*KNOWN, *vocabulary.unknown_words, *own, SENTINELS}, key=len, reverse=True):
            by_first.setdefault(word[0], []).append(word)
        self._find = {
            first: re.compile(
                re.escape(first) + f"(?:{'|'.join(re.escape(word[1:]) for word in words)})"
            ).findall
            for first, words in by_first.items()
        }

    def add(self, text: str) -> None:
        """Count the control words of a text."""
        for first, find in self._find.items():
            # This search is many times faster than that for a word, and most texts have no such character.
            if first in text and (found := find(text)):
                self.counts.update(found)


def control_word_facts(
    counts: Mapping[str, int], vocabulary: Vocabulary, tokens: int
) -> dict[str, dict[str, Any]]:
    """For each word that occurs, the most frequent first: occurrences, their tokens, their share, `read_as`.

    Args:
      counts: occurrences of each word in the encoded text. (Duplicates that are removed later are included.)
      vocabulary: of the ids.
      tokens: number of tokens of the whole text.
    """
    letter = len(vocabulary.encode("a"))
    facts: dict[str, dict[str, Any]] = {}
    for word, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        name = f"{SENTINELS}0>" if word == SENTINELS else word
        size = count * (len(vocabulary.encode(f"a{name}")) - letter)
        facts[word] = {
            "occurrences": count,
            "tokens": size,
            "share": min(size / tokens, 1.0),
            "read_as": "unknown" if word in vocabulary.unknown_words else "text",
            "is_control_piece": word == SENTINELS or (vocabulary.id_of(word) is not None),
        }
    return facts


def report_control_words(facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Print how often control words occur; warn if those read as text are much of the tokens."""
    text = {word: own for word, own in facts.items() if own["read_as"] == "text"}
    unknown = {word: own for word, own in facts.items() if own["read_as"] == "unknown"}
    if unknown:
        info(f"prepare   words read as unknown: {_listed(unknown)}")
    if not text:
        return
    share = sum(own["share"] for own in text.values())
    line = f"control words in the text, read as text: {_listed(text)}; {share:.2g} of all tokens"
    if share >= 1e-6:
        line = line.replace(f"{share:.2g}", f"{share:.4%}" if share < WARNING_SHARE else f"{share:.2%}")
    if share < WARNING_SHARE:
        info(f"prepare   {line}")
        return
    control = [word for word, own in text.items() if own["is_control_piece"]]
    differs = f" (AutoTokenizer reads {control[0]} as the control piece)" if control else ""
    word = next(iter(text))
    fix = f'clean them out, or set vocab.unknown_words = ["{word}"] if they stand for unknown text'
    warn(f"{line}{differs}; {fix}")


def _listed(facts: Mapping[str, Mapping[str, Any]]) -> str:
    parts = [f"{_named(word)} {pluralize(own['occurrences'], 'time')}" for word, own in facts.items()]
    return ", ".join([*parts[:MAX_SHOWN], f"{len(parts) - MAX_SHOWN} more"] if parts[MAX_SHOWN:] else parts)


def _named(word: str) -> str:
    return f"{SENTINELS}…>" if word == SENTINELS else word
