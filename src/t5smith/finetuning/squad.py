"""Exact match and F1 by the rules of SQuAD's evaluation script (Rajpurkar et al. 2016, version 1.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single spaces."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", text).split())


def exact_match(answer: str, right: Sequence[str]) -> float:
    """1 if an answer equals one of the right ones, else 0."""
    return float(any(normalized(answer) == normalized(one) for one in right))


def f1(answer: str, right: Sequence[str]) -> float:
    """The highest F1 of an answer's words with those of one of the right answers, from 0 to 1."""
    return max(_f1(normalized(answer).split(), normalized(one).split()) for one in right)


def _f1(answer: Sequence[str], right: Sequence[str]) -> float:
    common = sum((Counter(answer) & Counter(right)).values())
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(right)
    return 2 * precision * recall / (precision + recall)
