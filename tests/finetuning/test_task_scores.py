"""Scores equal those of the libraries, and SQuAD's those of the published script, on 100 pairs each."""

import re
import string
from collections import Counter

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer
from sklearn import metrics

from t5smith.base.errors import T5smithError
from t5smith.finetuning import scores, squad

WORDING = "the a an cat dog sat on mat , . house's New-York 1990 red green ran fast slowly"
WORDS = WORDING.split()
RNG = np.random.default_rng(5)


def sentence():
    return " ".join(RNG.choice(WORDS, RNG.integers(1, 12)).tolist())


def changed(text):
    words = text.split()
    for _ in range(RNG.integers(0, 3)):
        words[RNG.integers(len(words))] = str(RNG.choice(WORDS))
    return " ".join(words)


RIGHT = [tuple(sentence() for _ in range(RNG.integers(1, 4))) for _ in range(100)]
TEXTS = [changed(right[RNG.integers(len(right))]) for right in RIGHT]
LABELS = [str(RNG.choice(["ja", "nei", "vet ikke"])) for _ in range(100)]
GUESSES = [label if RNG.random() < 0.6 else str(RNG.choice(["ja", "nei", "tja"])) for label in LABELS]
ONE = [(right[0],) for right in RIGHT]


def test_bleu_and_chrf_are_sacrebleus():
    streams = [[right[0] for right in RIGHT]]
    assert scores.score("bleu", TEXTS, ONE) == sacrebleu.corpus_bleu(TEXTS, streams).score
    assert scores.score("chrf", TEXTS, ONE) == sacrebleu.corpus_chrf(TEXTS, streams).score
    three = [(*right, *right, *right)[:3] for right in RIGHT]
    streams = [[right[n] for right in three] for n in range(3)]
    assert scores.score("bleu", TEXTS, three) == sacrebleu.corpus_bleu(TEXTS, streams).score
    # Texts may differ in the number of right ones.
    assert scores.score("bleu", TEXTS, RIGHT) > scores.score("bleu", TEXTS, ONE)


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_rouge_scores(name):
    scorer = rouge_scorer.RougeScorer([name])
    expected = [
        scorer.score_multi(right, text)[name].fmeasure for right, text in zip(RIGHT, TEXTS, strict=True)
    ]
    assert scores.score(name, TEXTS, RIGHT) == pytest.approx(100 * np.mean(expected), abs=1e-9)
    # The library's own words are of ASCII alone: æ and å would be none.
    assert scores.score(name, ["blåbær på Øya er bra"], [["Blåbær på øya er bra."]]) == 100
    assert scores.score(name, ["å æ ø å"], [["ø ø æ æ"]]) < 100


def test_labels_are_scored_by_scikit_learn():
    right = [(label,) for label in LABELS]
    assert scores.score("accuracy", GUESSES, right) == 100 * metrics.accuracy_score(LABELS, GUESSES)
    f1 = metrics.f1_score(LABELS, GUESSES, labels=sorted(set(LABELS)), average="macro", zero_division=0)
    assert scores.score("f1", GUESSES, right) == 100 * f1
    assert scores.score("mcc", GUESSES, right) == 100 * metrics.matthews_corrcoef(LABELS, GUESSES)


# SQuAD's evaluate-v1.1.py, its functions as they were published.


def normalize_answer(s):
    def remove_articles(text):
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text):
        return " ".join(text.split())

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return white_space_fix(remove_articles(remove_punc(s.lower())))


def f1_score(prediction, ground_truth):
    prediction_tokens = normalize_answer(prediction).split()
    ground_truth_tokens = normalize_answer(ground_truth).split()
    common = Counter(prediction_tokens) & Counter(ground_truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


def test_squad_is_the_published_script():
    f1, exact = [], []
    for text, right in zip(TEXTS, RIGHT, strict=True):
        f1.append(max(f1_score(text, one) for one in right))
        exact.append(max(normalize_answer(text) == normalize_answer(one) for one in right))
        assert squad.f1(text, right) == f1[-1]
    assert scores.score("squad_f1", TEXTS, RIGHT) == pytest.approx(100 * np.mean(f1))
    assert scores.score("exact_match", TEXTS, RIGHT) == pytest.approx(100 * np.mean(exact))
    assert 0 < np.mean(exact) < np.mean(f1) < 1


@pytest.mark.parametrize(
    ("text", "right", "exact", "f1"),
    [
        ("The Cat!", ["a cat"], 1, 1),
        ("anthem", ["them"], 0, 0),
        ("cat", ["dog", "the cat"], 1, 1),
        ("black cat", ["cat", "a white cat"], 0, 2 / 3),
        ("cat cat", ["cat"], 0, 2 / 3),
        ("New-York", ["NewYork"], 1, 1),
        ("«Oslo»", ["Oslo"], 0, 0),
        ("", ["cat"], 0, 0),
    ],
)
def test_squads_rules(text, right, exact, f1):
    assert (squad.exact_match(text, right), squad.f1(text, right)) == (exact, pytest.approx(f1))


def test_entities():
    right = [("PER: Kari; LOC: Oslo",), ("none",), ("PER: Ola",)]
    assert scores.score("entity_f1", ["PER: Kari;  LOC:  Oslo", "none", "PER: Ola"], right) == 100
    # Two of four written are right, of three.
    found = scores.score("entity_f1", ["PER: Kari; PER: Kari", "LOC: Ola", "PER: Ola"], right)
    assert found == pytest.approx(100 * 2 * 2 / (4 + 3))
    assert scores.score("entity_f1", ["none", "", "none"], right) == 0


@pytest.mark.parametrize(
    "name", ["bleu", "chrf", "rouge1", "exact_match", "accuracy", "f1", "mcc", "entity_f1"]
)
def test_intervals_surround_the_score_and_are_the_same_every_time(name):
    texts, right = (
        (GUESSES, [(label,) for label in LABELS]) if name in ("accuracy", "f1", "mcc") else (TEXTS, ONE)
    )
    low, high = scores.interval(name, texts, right, 50)
    assert low < scores.score(name, texts, right) < high or (name == "entity_f1" and low <= high)
    assert scores.interval(name, texts, right, 50) == (low, high)
    assert scores.interval(name, texts, right, 0) is None
    half = scores.interval(name, texts * 16, right * 16, 50)
    assert half[1] - half[0] <= 0.6 * (high - low)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(scores.importlib.util, "find_spec", lambda name: None)
    scores.check_libraries(["exact_match"])
    with pytest.raises(T5smithError, match=r"t5smith\[finetune\]"):
        scores.check_libraries(["exact_match", "bleu"])
