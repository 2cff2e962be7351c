"""Statistics of a store equal those of plain Python, with any number of tasks."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5smith.base.artifact import read_manifest
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan
from t5smith.store import shard_writer as shards
from t5smith.store import statistics as module
from t5smith.store.prepare import prepare
from t5smith.store.statistics import document_lengths, most_used, read_figures, sample_windows
from t5smith.store.token_store import Corpus, Split, TokenStore
from t5smith.vocabulary import word_cache as words
from t5smith.vocabulary.train import build, vocab
from t5smith.vocabulary.vocabulary import Vocabulary

MakeRecipe = Callable[..., Recipe]


@given(
    lengths=st.lists(st.one_of(st.integers(1, 9), st.integers(1, 10**12)), min_size=1, max_size=60),
    separator=st.integers(0, 1),
    at_once=st.integers(1, 70),
)
def test_lengths_of_documents_equal_a_plain_count(lengths: list[int], separator: int, at_once: int) -> None:
    ends = np.cumsum([length + separator for length in lengths])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_DOCUMENTS_AT_ONCE", at_once)
        found = document_lengths(ends, separator)
    ordered = sorted(lengths)
    assert (found["shortest"], found["longest"]) == (ordered[0], ordered[-1])
    for name, share in (("median", 0.5), ("ninth_decile", 0.9)):
        reached = [
            length for length in ordered if sum(one <= length for one in ordered) >= share * len(lengths)
        ]
        assert found[name] == reached[0]
    documents = Counter(length.bit_length() - 1 for length in lengths)
    for power, number, tokens in found["powers"]:
        k = power.bit_length() - 1
        assert power == 2**k
        assert number == documents.pop(k, 0)
        assert tokens == sum(length for length in lengths if 2**k <= length < 2 ** (k + 1))
    assert not documents
    assert all(row[1] for row in (found["powers"][0], found["powers"][-1]))


def test_most_used_pieces_equal_a_plain_count(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_USED", 5)
    settings = recipe()
    store = TokenStore.open(prepare(settings))
    vocabulary = Vocabulary.load(settings.folder / "vocab")
    found = read_figures(store.folder)["pieces"]
    ids = [number for number in store.train.tokens.tolist() if number != vocabulary.eos_id]
    counts = Counter(ids)
    expected = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:5]
    assert found["most_used"] == [[vocabulary.pieces([number])[0], count] for number, count in expected]
    assert found["tokens"] == len(ids)
    # 40 pieces, including <pad>, </s> and <unk>.
    assert found["pieces"] == 37
    assert found["unused"] == 37 - len(counts)


@pytest.fixture
def small() -> Vocabulary:
    return Vocabulary(build([("▁a", -1.0), ("▁b", -1.5), ("c", -2.0)]).to_str())


def test_unk_counts_as_used_but_not_as_a_piece(small: Vocabulary) -> None:
    counts = np.zeros(small.size, np.int64)
    counts[small.unk_id], counts[small.eos_id], counts[small.size - 1] = 7, 99, 5
    assert most_used(counts, small) == {"tokens": 7, "most_used": [["<unk>", 7]], "pieces": 3, "unused": 3}


def split_of(small: Vocabulary, texts: list[str], corpora: tuple[Corpus, ...] = ()) -> Split:
    ids = [[*small.encode(text), small.eos_id] for text in texts]
    ends = np.cumsum([len(one) for one in ids])
    return Split("train", np.concatenate(ids).astype(np.uint16), ends, 1, corpora)


def test_sample_windows_show_documents_and_their_ends(
    small: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLE_WINDOW_LENGTH", 4)
    monkeypatch.setattr(module, "SAMPLE_WINDOWS", 3)
    # a b </s> a </s> | b b b </s> | a a a a </s>
    split = split_of(small, ["a b", "a", "b b b", "a a a a"])
    windows = sample_windows(split, small, named=False)
    assert [window["start"] for window in windows] == [0, 5, 9]
    assert [window["texts"] for window in windows] == [["a b", "a"], ["b b b"], ["a a a a"]]
    assert [(window["begins"], window["ends"]) for window in windows] == [
        (True, False),
        (True, True),
        (True, False),
    ]
    assert [window["document"] for window in windows] == [1, 3, 4]
    monkeypatch.setattr(module, "SAMPLE_WINDOWS", 1)
    (window,) = sample_windows(split, small, named=False)
    assert window == {
        "corpus": "",
        "start": 5,
        "document": 3,
        "begins": True,
        "texts": ["b b b"],
        "ends": True,
    }
    monkeypatch.setattr(module, "SAMPLE_WINDOW_LENGTH", 5)
    (window,) = sample_windows(split, small, named=False)
    assert (window["start"], window["texts"], window["begins"], window["ends"]) == (
        5,
        ["b b b", "a"],
        True,
        False,
    )
    monkeypatch.setattr(module, "SAMPLE_WINDOW_LENGTH", 7)
    (window,) = sample_windows(split, small, named=False)
    assert (window["start"], window["texts"], window["begins"], window["ends"]) == (
        4,
        ["", "b b b", "a a"],
        False,
        False,
    )


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=9), window=st.integers(1, 30))
def test_sample_windows_are_inside_their_corpora_and_do_not_overlap(sizes: list[int], window: int) -> None:
    small = Vocabulary(build([("▁a", -1.0), ("▁b", -1.5), ("c", -2.0)]).to_str())
    stops = np.cumsum(sizes).tolist()
    corpora = tuple(
        Corpus(f"c{i}", stop - size, stop) for i, (size, stop) in enumerate(zip(sizes, stops, strict=True))
    )
    token = small.encode("a")[0]
    split = Split("train", np.full(stops[-1], token, np.uint16), np.array([stops[-1]]), 1, corpora)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SAMPLE_WINDOW_LENGTH", window)
        found = sample_windows(split, small, named=True)
    last: dict[str, int] = {}
    for one in found:
        corpus = corpora[int(one["corpus"][1:])]
        size = min(window, corpus.tokens)
        assert len("".join(one["texts"]).split()) == size
        assert last.get(corpus.name, corpus.start) <= one["start"] <= corpus.stop - size
        last[corpus.name] = one["start"] + size
    assert last.keys() == {corpus.name for corpus in corpora}
    if min(sizes) >= window * module.SAMPLE_WINDOWS:
        assert len(found) >= module.SAMPLE_WINDOWS


def test_input_sizes_are_listed_by_corpus_and_split(recipe: MakeRecipe, tmp_path: Path) -> None:
    for name in ("x", "y", "held"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.txt").write_text(f"det er dag {name}\n\nog natt" * (i + 1))
    prepared = prepare(
        recipe(
            train=(f"x={tmp_path}/x", f"y={tmp_path}/y/1.txt", f"y={tmp_path}/y/2.txt"),
            valid=(f"{tmp_path}/held",),
        )
    )
    found = read_figures(prepared)["came_in"]
    bytes_ = [(tmp_path / "x" / f"{i}.txt").stat().st_size for i in range(3)]
    assert found == [
        {"split": "train", "corpus": "x", "files": 3, "bytes": sum(bytes_)},
        {"split": "train", "corpus": "y", "files": 2, "bytes": sum(bytes_[1:])},
        {
            "split": "valid",
            "corpus": "",
            "files": 3,
            "bytes": sum(file.stat().st_size for file in (tmp_path / "held").iterdir()),
        },
    ]
    names = [window["corpus"] for window in read_figures(prepared)["windows"]]
    assert set(names) == {"x", "y"}


def test_statistics_do_not_depend_on_the_number_of_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several units and shards, each written in several parts."""
    monkeypatch.setattr(plan, "MIN_BLOCK_BYTES", 1_000)
    monkeypatch.setattr(plan, "MAX_BLOCK_BYTES", 1_000)
    monkeypatch.setattr(shards, "BUFFER_BYTES", 100)
    draw = random.Random(5)
    for i in range(30):
        text = " ".join(draw.choices(["det", "er", "en", "dag", "natt", "år"], k=draw.randint(5, 60)))
        (tmp_path / f"{i:02}.txt").write_text(f"{text} nr {i}")
    with (tmp_path / "large.jsonl").open("w") as file:
        for i in range(100):
            file.write(json.dumps({"text": f"det er dag {i} " * draw.randint(1, 9)}) + "\n")
    found: list[str] = []
    for tasks in (1, 8):
        recipe = Recipe.model_validate(
            {
                "run_dir": tmp_path / f"run{tasks}",
                "corpus": {
                    "train": (f"small={tmp_path}/*.txt", f"large={tmp_path}/large.jsonl"),
                    "held_out_fraction": 0.2,
                },
                "vocab": {"size": 60},
                "prepare": {"tasks": tasks},
            }
        )
        vocab(recipe)
        folder = prepare(recipe)
        found.append((folder / module.FIGURES).read_text(encoding="utf-8"))
    assert found[0] == found[1]
    store, figures = TokenStore.open(folder), json.loads(found[0])
    assert len(store.train.tokens.files) > 10
    assert [(one["corpus"], one["files"]) for one in figures["came_in"]] == [("small", 30), ("large", 1)]
    vocabulary = Vocabulary.load(recipe.folder / "vocab")
    assert figures["pieces"] == most_used(store.train.counts(vocabulary.size), vocabulary)
    assert figures["lengths"]["valid"] == document_lengths(store.valid.ends, 1)


def long_words(count: int) -> list[str]:
    draw = random.Random(3)
    return [
        " ".join("x" * draw.choice([2, 5, 9, 40, 300]) for _ in range(draw.randint(1, 9)))
        for _ in range(count)
    ]


def test_cut_runs_of_characters_are_reported_with_any_number_of_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "MIN_BLOCK_BYTES", 2_000)
    monkeypatch.setattr(plan, "MAX_BLOCK_BYTES", 2_000)
    monkeypatch.setattr(words, "MAX_PART", 16)
    monkeypatch.setattr(words, "MAX_UNBROKEN", 32)
    texts = long_words(120)
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    # n characters and the space before them, in parts of 32.
    expected = sum(
        math.ceil((len(word) + bool(i)) / 32) - 1 for text in texts for i, word in enumerate(text.split())
    )
    told: list[int] = []
    for tasks in (1, 3, 8):
        recipe = Recipe.model_validate(
            {
                "run_dir": tmp_path / f"run{tasks}",
                "corpus": {"train": (str(file),), "held_out_fraction": 0.3},
                "vocab": {"size": 30},
                "prepare": {"tasks": tasks},
            }
        )
        vocab(recipe)
        told.append(read_manifest(prepare(recipe), "store").facts["cut_stretches"])
        lines = [line for line in capfd.readouterr().err.splitlines() if "cut before" in line]
        assert len(lines) == 1
        assert f"{told[-1]:,} runs" in lines[0]
    assert told == [expected] * 3


def test_without_cuts_nothing_is_reported(recipe: MakeRecipe, capfd: pytest.CaptureFixture[str]) -> None:
    assert read_manifest(prepare(recipe()), "store").facts["cut_stretches"] == 0
    assert "cut before" not in capfd.readouterr().err
