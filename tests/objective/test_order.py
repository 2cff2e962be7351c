"""The order of windows: each once per epoch, corpora in their shares, without state."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from budget import examples
from t5smith.base.errors import T5smithError
from t5smith.objective.batches import Objective, TrainingBatches, corpus_weights, prefetched
from t5smith.objective.order import PERIOD, WindowOrder, temperature_weights
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.store.token_store import Corpus, Split, TokenStore
from t5smith.vocabulary.vocabulary import Vocabulary

CORPORA = (Corpus("a", 0, 1_000), Corpus("b", 1_000, 1_400), Corpus("c", 1_400, 1_425))
WINDOW = 20


def order(weights=(5.0, 4.0, 1.0), seed=0, shift=False, corpora=CORPORA):
    return WindowOrder(corpora, weights, WINDOW, seed, shift)


@examples(10)
@given(st.integers(0, 99), st.booleans())
def test_each_corpus_has_its_own_epochs(seed, shift):
    one = order(seed=seed, shift=shift)
    q = np.arange(600)
    starts, corpus = one.starts(q), one.corpus_of(q)
    for number, part in enumerate(CORPORA):
        own = starts[corpus == number]
        assert ((own >= part.start) & (own + WINDOW <= part.stop)).all()
        count = one.windows_per_epoch(number)
        for epoch in range(2):
            visited = own[epoch * count : (epoch + 1) * count]
            assert len(np.unique(visited)) == count
            assert len(np.unique((visited - part.start) % WINDOW)) == 1
    count = one.windows_per_epoch(0)
    first, second = (starts[corpus == 0][at : at + count] for at in (0, count))
    assert (first - first.min() != second - second.min()).any()


def test_corpora_of_one_size_have_orders_and_shifts_of_their_own():
    equal = Corpus("a", 0, 1_000), Corpus("b", 1_000, 2_000)
    one = order(weights=(1.0, 1.0), shift=True, corpora=equal)
    q = np.arange(600)
    starts, corpus = one.starts(q), one.corpus_of(q)
    visits = 4 * one.windows_per_epoch()
    first, second = (starts[corpus == number][:visits] - part.start for number, part in enumerate(equal))
    assert (first[: visits // 4] != second[: visits // 4]).any()
    assert (first % WINDOW != second % WINDOW).any()


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=5), st.integers(0, 9))
def test_shares_are_those_of_the_weights(weights, seed):
    parts = tuple(Corpus(str(i), 100 * i, 100 * i + 100) for i in range(len(weights)))
    one = order(weights=weights, seed=seed, corpora=parts)
    share = np.bincount(one.corpus_of(np.arange(PERIOD)), minlength=len(weights)) / PERIOD
    np.testing.assert_allclose(share, np.array(weights) / sum(weights), atol=2e-4)
    assert (share > 0).all()


def test_temperature_is_mt5s_alpha():
    sizes = [1_000_000, 10_000, 100]
    alpha = 0.3
    expected = np.array([size**alpha for size in sizes])
    np.testing.assert_allclose(temperature_weights(sizes, 1 / alpha), expected / expected.sum())
    np.testing.assert_allclose(temperature_weights(sizes, 1.0), np.array(sizes) / sum(sizes))
    np.testing.assert_allclose(temperature_weights(sizes, 1_000.0), [1 / 3] * 3, atol=0.01)


def test_the_order_does_not_depend_on_the_order_of_access():
    whole = order(shift=True).starts(np.arange(500))
    for at in (np.array([499, 3, 250]), np.arange(100, 130), np.array([7])):
        np.testing.assert_array_equal(order(shift=True).starts(at), whole[at])
    assert (order(seed=1).starts(np.arange(50)) != order().starts(np.arange(50))).any()


def test_a_corpus_shorter_than_a_window_is_named():
    with pytest.raises(T5smithError, match="the corpus 'c' has 10 tokens, fewer than one window of 20"):
        order(corpora=(*CORPORA[:2], Corpus("c", 1_400, 1_410)))


def split(corpora=CORPORA, size=1_425):
    tokens = (3 + np.arange(size)).astype(np.uint16)
    return Split("train", tokens, np.arange(25, size + 1, 25), 0, corpora)


def ul2(window=WINDOW):
    return Objective.create(ObjectiveSettings(name="ul2", window_length=window), Vocabulary.bundled())


def test_denoisers_and_corpora_are_independent():
    objective = ul2()
    one = order(weights=(1.0, 1.0, 1.0))
    q = np.arange(40_000)
    pairs = Counter(zip(one.corpus_of(q).tolist(), objective.plan.place(q).denoiser, strict=True))
    table = np.array([[pairs[c, d] for d in range(7)] for c in range(3)])
    assert chi2_contingency(table).pvalue > 0.001
    assert (np.abs(table / table.sum(1, keepdims=True) - 1 / 7) < 0.01).all()


def test_weights_and_temperature_of_a_recipe():
    assert corpus_weights(CorpusSettings(), split()) == pytest.approx([1000 / 1425, 400 / 1425, 25 / 1425])
    named = {"train": ("a=x", "b=y", "c=z")}
    given_weights = CorpusSettings(**named, weights=("c=1", "a=2", "b=0.5"))
    assert corpus_weights(given_weights, split()) == [2.0, 0.5, 1.0]
    warm = corpus_weights(CorpusSettings(**named, temperature=2.0), split())
    assert warm == pytest.approx(temperature_weights([1_000, 400, 25], 2.0))


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_prefetched_batches_are_the_same():
    batches = TrainingBatches(split(), ul2(), 3, 0)
    for b, batch in enumerate(prefetched(batches, 4, 9, ahead=3, workers=0), 4):
        same(batch, batches[b])
    assert b == 8


def test_batches_made_by_processes_are_the_same(prepared):
    store = TokenStore.open(prepared / "store")
    vocabulary = Vocabulary.load(prepared / "vocab")
    settings = ObjectiveSettings(name="mixture", denoisers=("0.15 3 1 <extra_id_99>",), window_length=16)
    batches = TrainingBatches(store.train, Objective.create(settings, vocabulary), 3, 0)
    for b, batch in enumerate(prefetched(batches, 2, 9, ahead=2, workers=2), 2):
        same(batch, batches[b])
    assert b == 8


def test_a_split_on_disk_is_pickled_by_file_name(prepared):
    one = TokenStore.open(prepared / "store").train
    sent = pickle.dumps(one)
    assert len(sent) < 2 * len(one.tokens) / 2
    again = pickle.loads(sent)
    assert isinstance(again.ends, np.memmap)
    np.testing.assert_array_equal(again.tokens, one.tokens)
    np.testing.assert_array_equal(again.ends, one.ends)
    assert again.corpora == one.corpora
    same(
        TrainingBatches(again, ul2(), 2, 0)[3],
        pickle.loads(pickle.dumps(TrainingBatches(one, ul2(), 2, 0)))[3],
    )


@settings(max_examples=50)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.data())
def test_documents_start_where_the_previous_one_ended(lengths, data):
    ends = np.cumsum(lengths)
    tokens = np.zeros(ends[-1], np.uint16)
    one = Split("train", tokens, ends, 0)
    length = data.draw(st.integers(1, len(tokens)))
    starts = np.array(data.draw(st.lists(st.integers(0, len(tokens) - length), min_size=1, max_size=5)))
    document_starts = one.document_starts(starts, length)
    for row, start in enumerate(starts):
        inside = [int(end) - start for end in ends if start < end < start + length]
        # A document that starts with the window needs no mark: no text is before it.
        found = [place for place in np.flatnonzero(document_starts[row]).tolist() if place]
        assert found == inside
