"""Control words that stand in the text are counted, reported, and read as text or as unknown."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget import examples
from t5smith.base.artifact import read_manifest
from t5smith.pipeline import prepare
from t5smith.recipe.recipe import Recipe
from t5smith.reports.corpus_page import corpus_page
from t5smith.store.control_words import KNOWN, ControlWordCounter
from t5smith.store.statistics import read_figures
from t5smith.store.token_store import TokenStore
from t5smith.vocabulary.train import vocab
from t5smith.vocabulary.vocabulary import Vocabulary


@examples(200)
@given(parts=st.lists(st.sampled_from([*KNOWN, "<extra_id_7>", "<", "[", "s>", " ", "ord", "<b>", "[1]"])))
def test_counts_are_those_of_the_words_put_in(t5: Vocabulary, parts: list[str]) -> None:
    counter = ControlWordCounter(t5)
    text = " ".join(parts)
    counter.add(text)
    words = ["<extra_id_" if part == "<extra_id_7>" else part for part in parts]
    assert counter.counts == Counter(word for word in words if word in (*KNOWN, "<extra_id_"))


@pytest.fixture(scope="module")
def t5() -> Vocabulary:
    return Vocabulary.bundled()


def corpus(folder: Path, documents: list[str], **changes: object) -> Recipe:
    (folder / "a.txt").write_text("\n\n".join(documents))
    return Recipe(run_dir=folder / "run").replace(
        **{"corpus.train": [str(folder / "a.txt")], "corpus.held_out_fraction": 0.2, "vocab.size": 80},
        **changes,
    )


WIKI = [f"Kong {i} av <unk> var [UNK] i <unk> og [R] </s> {i * i}" for i in range(100)]


def test_words_are_counted_and_give_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = corpus(tmp_path, WIKI, **{"vocab.control_symbols": ["[R]"]})
    vocab(recipe)
    folder = prepare(recipe)
    said = " ".join(capfd.readouterr().err.split())
    facts = read_manifest(folder, "store").facts
    words = facts["control_words"]
    assert {word: own["occurrences"] for word, own in words.items()} == {
        "<unk>": 200,
        "</s>": 100,
        "[R]": 100,
        "[UNK]": 100,
    }
    vocabulary = Vocabulary.load(recipe.folder / "vocab")
    spelled = len(vocabulary.encode("a<unk>")) - len(vocabulary.encode("a"))
    assert spelled > 1
    tokens = facts["train"]["tokens"] + facts["valid"]["tokens"]
    assert words["<unk>"]["tokens"] == 200 * spelled
    assert words["<unk>"]["share"] == 200 * spelled / tokens
    assert [own["is_control_piece"] for own in words.values()] == [True, True, True, False]
    share = sum(own["share"] for own in words.values())
    assert (
        "warning: control words in the text, read as text: <unk> 200 times, </s> 100 times, [R] 100 times, "
        f"[UNK] 100 times; {share:.2%} of all tokens (AutoTokenizer reads <unk> as the control piece)"
    ) in said
    assert 'vocab.unknown_words = ["<unk>"]' in said
    page = corpus_page("a", facts, read_figures(folder))
    assert "Control words in the text" in page
    assert re.search(r"&lt;unk&gt;</t[dh]>.*?200<", page)


def test_unknown_words_are_the_unknown_id_in_the_store(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = corpus(
        tmp_path, [text.replace("</s> ", "") for text in WIKI], **{"vocab.unknown_words": ["[UNK]"]}
    )
    vocab(recipe)
    folder = prepare(recipe)
    said = " ".join(capfd.readouterr().err.split())
    assert "prepare words read as unknown: <unk> 200 times, [UNK] 100 times" in said
    assert "control words in the text" not in said
    facts = read_manifest(folder, "store").facts
    assert {own["read_as"] for own in facts["control_words"].values()} == {"unknown"}
    store = TokenStore.open(folder)
    assert sum(split.tokens.tolist().count(2) for split in (store.train, store.valid)) == 300
    assert facts["train"]["unknown"] + facts["valid"]["unknown"] == 300


def test_a_few_words_are_no_warning_and_none_are_not_mentioned(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    long = [f"dag {i} og natt {i * i} " * 60 for i in range(100)]
    for documents, line in ((long, ""), ([*long, "en <pad> her"], "<pad> 1 time; 0.0")):
        recipe = corpus(tmp_path, documents)
        vocab(recipe)
        facts = read_manifest(prepare(recipe), "store").facts
        said = " ".join(capfd.readouterr().err.split())
        assert ("control_words" in facts) == bool(line)
        assert line in said
        assert "warning: control words" not in said
