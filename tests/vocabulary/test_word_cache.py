"""The word cache gives the same ids as the tokenizers library, for any text."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from budget import examples
from t5smith.vocabulary import word_cache as module
from t5smith.vocabulary.vocabulary import Vocabulary
from t5smith.vocabulary.word_cache import WordCache

U4 = np.dtype("<u4")
NASTY = (
    "aeé \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u3000\u200b\ufeff▁¨´¸ﷺﬁ½\u0301\u0308각가\0<>/s"
)
text = st.text(st.one_of(st.sampled_from(NASTY), st.characters(exclude_categories=["Cs"])), max_size=40)


def ids(words: WordCache, text: str) -> list[int]:
    return np.frombuffer(words.encode(text), words.dtype).tolist()


@examples(400)
@given(text=text)
def test_ids_equal_those_of_the_library(vocabulary: Vocabulary, text: str) -> None:
    words = vocabulary.bulk_encoder(U4)
    assert words.caches_words
    assert ids(words, text) == vocabulary.encode(text)
    assert ids(words, text) == vocabulary.encode(text)  # now from the cache


@examples(400)
@given(text=text)
def test_ids_of_t5s_vocabulary_equal_those_of_the_library(
    t5: Vocabulary, t5_words: WordCache, text: str
) -> None:
    assert t5_words.caches_words
    assert ids(t5_words, text) == t5.encode(text)


@pytest.fixture(scope="session")
def t5_words(t5: Vocabulary) -> WordCache:
    return t5.bulk_encoder(U4)


def test_a_full_cache_is_emptied(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED_WORDS", 3)
    words = vocabulary.bulk_encoder(U4)
    long = "x" * (module.MAX_CACHED_LENGTH + 1)
    for _ in range(2):
        for line in ("en to tre fire", "fire fem en", f"{long} en {long}"):
            assert ids(words, line) == vocabulary.encode(line)
            assert len(words._words) <= 3
            assert long not in words._words


@examples(300)
@given(text=st.from_regex(r"([ab]{1,3}[ \t\n]{1,4}){3,9}[ab]", fullmatch=True))
def test_parts_of_a_text_end_before_white_space(vocabulary: Vocabulary, text: str) -> None:
    """A run of white space that is cut in two would become two spaces instead of one."""
    tokenizer = Tokenizer.from_str(vocabulary._text.tokenizer.to_str())
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")  # type: ignore[assignment]
    words = WordCache(tokenizer, U4, raw=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_PART", 8)
        assert ids(words, text) == tokenizer.encode(text, add_special_tokens=False).ids


def test_a_long_text_is_encoded_in_parts(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = " ".join(f"ord{i}" for i in range(200)) + "\n" + "x" * 90 + " slutt"
    expected = vocabulary.encode(whole)
    monkeypatch.setattr(module, "MAX_PART", 50)
    monkeypatch.setattr(module, "MAX_UNBROKEN", 100)
    words = vocabulary.bulk_encoder(U4)
    assert ids(words, whole) == expected
    assert words.cut == 0
    assert len(ids(words, "y" * 250)) >= 2
    assert words.cut == 2


@pytest.mark.parametrize(
    "change",
    [
        pre_tokenizers.Metaspace(split=False),
        pre_tokenizers.Split(Regex(" (?=e)"), "removed"),
    ],
)
def test_a_tokenizer_that_does_not_cut_at_spaces_is_detected(vocabulary: Vocabulary, change: object) -> None:
    tree = json.loads(vocabulary._text.tokenizer.to_str())
    tree["model"]["vocab"].append(["▁er▁en", -1.0])
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    tokenizer.pre_tokenizer = change
    words = WordCache(tokenizer, U4, raw=False)
    assert not words.caches_words
    line = "det er en  dag e\nf"
    assert ids(words, line) == tokenizer.encode(line, add_special_tokens=False).ids


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("normalizer", [None, normalizers.NFC(), normalizers.Lowercase()])
@pytest.mark.parametrize("white", [False, True])
def test_common_tokenizers_are_encoded_by_words(
    vocabulary: Vocabulary, scheme: str, normalizer: object, white: bool
) -> None:
    tree = json.loads(vocabulary._text.tokenizer.to_str())
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    tokenizer.normalizer = normalizer
    steps = [pre_tokenizers.WhitespaceSplit()] if white else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.Metaspace(prepend_scheme=scheme)]
    )
    words = WordCache(tokenizer, U4, raw=False)
    for line in ("", "Det  Er en\ndag", " x ", "  y", "\tz\u00a0w", "1 2 ▁ 3"):
        assert ids(words, line) == tokenizer.encode(line, add_special_tokens=False).ids, line
