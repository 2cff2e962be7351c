"""Scores of generated texts by the field's libraries, in per cent, with bootstrap intervals.

BLEU and chrF are sacrebleu's, ROUGE is rouge-score's, macro F1 and Matthews' correlation are scikit-learn's.
Words of ROUGE are those of any script, not of ASCII alone as the library's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from t5smith.base.errors import T5smithError
from t5smith.finetuning import squad
from t5smith.finetuning.tasks import NO_ENTITIES
from t5smith.recipe.finetune.presets import Score

LIBRARIES: dict[str, str] = {
    **dict.fromkeys(("bleu", "chrf"), "sacrebleu"),
    **dict.fromkeys(("rouge1", "rouge2", "rougeL"), "rouge_score"),
    **dict.fromkeys(("f1", "mcc"), "sklearn"),
}
"""The library that each score needs; the others need none."""
WORD = re.compile(r"[^\W_]+")
SHARE = 0.95
"""Of the bootstrap samples, so many are within an interval."""

Texts = Sequence[str]
References = Sequence[Sequence[str]]


def check_libraries(scores: Iterable[Score]) -> None:
    """Raise T5smithError if a library that scores need is not installed."""
    for name in scores:
        library = LIBRARIES.get(name)
        if library is not None and importlib.util.find_spec(library) is None:
            raise T5smithError(
                f"the score {name} needs the package {library}, which is not installed",
                where="finetune.tasks",
                fix="install it with `pip install 't5smith[finetune]'`, or remove the score",
            )


def score(name: Score, texts: Texts, references: References) -> float:
    """A score of texts, in per cent.

    Args:
      name: of the score.
      texts: what the model wrote.
      references: the right texts for each.
    """
    assert len(texts) == len(references) > 0
    if name in _EACH:
        return 100 * float(each(name, texts, references).mean())
    return _WHOLE[name](texts, references)


def each(name: Score, texts: Texts, references: References) -> Float[np.ndarray, " n"]:
    """The score of each text by itself, from 0 to 1; see :func:`one`."""
    return np.array([one(name)(text, right) for text, right in zip(texts, references, strict=True)])


def one(name: Score) -> Callable[[str, Sequence[str]], float]:
    """How a single text is judged, by which the worst errors are found."""
    return _EACH.get(name) or (_is_right if name in ("f1", "mcc") else squad.f1)


def interval(name: Score, texts: Texts, references: References, samples: int) -> tuple[float, float] | None:
    """The 95 % interval of a score by bootstrap (Efron 1979; Koehn 2004): quantiles over resampled texts.

    The draws are the same in every call. None without samples.
    """
    if not samples:
        return None
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(texts), (samples, len(texts)))
    if name in _EACH:
        own = each(name, texts, references)
        found = 100 * own[draws].mean(axis=1)
    elif name in ("bleu", "chrf"):
        return _sacrebleu_interval(name, texts, references, samples)
    elif name == "entity_f1":
        counts = np.array([_entity_counts(*pair) for pair in zip(texts, references, strict=True)])
        found = np.array([_f1_of(*counts[draw].sum(axis=0)) for draw in draws])
    else:
        taken = ((np.array(texts)[draw], [references[int(at)] for at in draw]) for draw in draws)
        found = np.array([_WHOLE[name](own.tolist(), right) for own, right in taken])
    low, high = np.quantile(found, [(1 - SHARE) / 2, (1 + SHARE) / 2]).tolist()
    return low, high


def _streams(references: References) -> list[list[str | None]]:
    """References as sacrebleu has them: the first ones of all texts, the second ones, ...; None: no more."""
    most = max(map(len, references))
    return [[right[n] if n < len(right) else None for right in references] for n in range(most)]


def _sacrebleu(name: str) -> Any:
    metrics = importlib.import_module("sacrebleu.metrics")
    return metrics.BLEU() if name == "bleu" else metrics.CHRF()


def _sacrebleu_score(name: str, texts: Texts, references: References) -> float:
    return float(_sacrebleu(name).corpus_score(list(texts), _streams(references)).score)


def _sacrebleu_interval(name: str, texts: Texts, references: References, samples: int) -> tuple[float, float]:
    found = _sacrebleu(name).corpus_score(list(texts), _streams(references), n_bootstrap=samples)
    mean, half = float(vars(found)["_mean"]), float(vars(found)["_ci"])
    return mean - half, mean + half


class _Words:
    """Splits a text for ROUGE."""

    def tokenize(self, text: str) -> list[str]:
        """Its words in lower case."""
        return WORD.findall(text.lower())


def _rouge(name: str, text: str, right: Sequence[str]) -> float:
    scorer = importlib.import_module("rouge_score.rouge_scorer").RougeScorer([name], tokenizer=_Words())
    return float(scorer.score_multi(list(right), text)[name].fmeasure)


def _is_right(text: str, right: Sequence[str]) -> float:
    """Of one label; the mean is scikit-learn's accuracy_score."""
    return float(text == right[0])


def _sklearn(name: str, texts: Texts, references: References) -> float:
    metrics = importlib.import_module("sklearn.metrics")
    right = [one[0] for one in references]
    with warnings.catch_warnings():
        # A class that no text has: its F1 is 0, as the library says.
        warnings.simplefilter("ignore")
        if name == "mcc":
            return 100 * float(metrics.matthews_corrcoef(right, list(texts)))
        labels = sorted(set(right))
        return 100 * float(
            metrics.f1_score(right, list(texts), labels=labels, average="macro", zero_division=0)
        )


def _entities(text: str) -> Counter[str]:
    parts = (" ".join(part.split()) for part in text.split(";"))
    return Counter(part for part in parts if part and part != NO_ENTITIES)


def _entity_counts(text: str, right: Sequence[str]) -> tuple[int, int, int]:
    """Entities that are right, that were written, and that there are."""
    own, theirs = _entities(text), _entities(right[0])
    return sum((own & theirs).values()), sum(own.values()), sum(theirs.values())


def _f1_of(right: float, written: float, there: float) -> float:
    return 100 * 2 * float(right) / float(written + there) if written + there else 100.0


def _entity_f1(texts: Texts, references: References) -> float:
    """Micro F1 of entities: type and words have to be right, as in CoNLL's script."""
    counts = [_entity_counts(*pair) for pair in zip(texts, references, strict=True)]
    return _f1_of(*np.sum(counts, axis=0).tolist())


_EACH: Mapping[Score, Callable[[str, Sequence[str]], float]] = {
    "rouge1": partial(_rouge, "rouge1"),
    "rouge2": partial(_rouge, "rouge2"),
    "rougeL": partial(_rouge, "rougeL"),
    "accuracy": _is_right,
    "exact_match": squad.exact_match,
    "squad_f1": squad.f1,
}
"""Scores that are the mean over texts."""
_WHOLE: Mapping[Score, Callable[[Texts, References], float]] = {
    "bleu": partial(_sacrebleu_score, "bleu"),
    "chrf": partial(_sacrebleu_score, "chrf"),
    "f1": partial(_sklearn, "f1"),
    "mcc": partial(_sklearn, "mcc"),
    "entity_f1": _entity_f1,
}
"""Scores of all texts together."""
