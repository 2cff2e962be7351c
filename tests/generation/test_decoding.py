"""Sampling, stop strings, constrained filling, streaming, devices: what greedy comparisons do not show."""

from __future__ import annotations

import re
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.stats import chisquare
from torch_t5 import inputs, pair
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import t5smith
from programs import forward
from t5smith.base.errors import T5smithError
from t5smith.generation.completion import completion
from t5smith.generation.decoding import Decoder
from t5smith.generation.fill import Generator, generate, stream
from t5smith.generation.processors import Rules, warp
from t5smith.interop.model import Model
from t5smith.recipe.evaluate import GenerateSettings

LENGTH = 12
WARPS = [
    {},
    {"temperature": 0.6},
    {"top_k": 9},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"temperature": 1.5, "top_k": 30, "top_p": 0.9, "min_p": 0.02},
]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("models"), 2, True)[1]


def warped(scores, words):
    """Logits as transformers filters them."""
    kinds = (
        ("temperature", TemperatureLogitsWarper),
        ("top_k", TopKLogitsWarper),
        ("top_p", TopPLogitsWarper),
        ("min_p", MinPLogitsWarper),
    )
    own = LogitsProcessorList([kind(words[name]) for name, kind in kinds if name in words])
    return own(torch.zeros((len(scores), 1), dtype=torch.long), torch.tensor(scores)).numpy()


@pytest.mark.parametrize("words", WARPS, ids=str)
def test_filters_are_those_of_transformers(words):
    scores = np.random.default_rng(0).normal(0, 3, (40, 159)).astype(np.float32)
    rules = Rules.of(GenerateSettings(sample=True, **words), 1)
    mine, theirs = np.asarray(warp(jnp.asarray(scores), rules)), warped(scores, words)
    np.testing.assert_array_equal(np.isinf(mine), np.isinf(theirs))
    kept = ~np.isinf(theirs)
    np.testing.assert_allclose(mine[kept], theirs[kept], rtol=1e-6)


@pytest.mark.parametrize("words", [WARPS[1], WARPS[5]], ids=str)
@pytest.mark.slow
def test_draws_have_the_probabilities_of_transformers(ours, words):
    draws, prefix_length = 20_000, 2
    (row,) = inputs(1, 5, ours.vocabulary.size)
    base = {"sample": True, "constrain": False, "min_new_tokens": 0, "max_new_tokens": prefix_length + 1}
    settings = GenerateSettings(num_return_sequences=500, **base, **words)
    decoder, found = Decoder(ours, settings), []
    for number in range(draws // 500):
        found += [one.ids for one in decoder.decode([row], [number])[0]]
    tokens = np.array([(*ids, *[0] * (3 - len(ids))) for ids in found])
    # The first token of all, and the next one after the two most frequent first ones.
    starts = [(), *((int(first),) for first in np.argsort(np.bincount(tokens[:, 0]))[::-1][:2])]
    for start in starts:
        if start == (1,):
            continue
        own = tokens[(tokens[:, : len(start)] == start).all(axis=1)][:, len(start)]
        decoder_inputs = np.array([[0, *start, *[0] * (2 - len(start))]], np.int32)
        logits = forward(ours.parameters, ours.config, np.array([row], np.int32), decoder_inputs)
        logits = np.asarray(logits)[:, len(start)]
        expected = torch.softmax(torch.tensor(warped(logits, words)).double(), -1).numpy()[0]
        counts = np.bincount(own, minlength=len(expected))
        assert counts[expected == 0].sum() == 0
        common = expected * len(own) >= 5
        observed = [*counts[common], counts[~common].sum()]
        share = np.array([*expected[common], expected[~common].sum()])
        if share[-1] * len(own) < 5:
            observed, share = observed[:-1], share[:-1]
        assert len(share) > 2
        assert chisquare(observed, share / share.sum() * sum(observed)).pvalue > 1e-4


def test_draws_depend_on_seed_and_number_not_on_the_batch(ours):
    rows = inputs(7, 6, ours.vocabulary.size)
    settings = GenerateSettings(sample=True, constrain=False, max_new_tokens=LENGTH)

    def drawn(decoder, order):
        return dict(zip(order, decoder.decode([rows[n] for n in order], order), strict=True))

    decoder = Decoder(ours, settings)
    together = drawn(decoder, [0, 1, 2, 3, 4, 5, 6])
    assert drawn(decoder, [3, 1]) == {n: together[n] for n in (3, 1)}
    assert drawn(decoder, [6]) == {6: together[6]}
    other = Decoder(ours, settings.model_copy(update={"seed": 1}))
    assert drawn(other, [0, 1, 2, 3, 4, 5, 6]) != together
    # The same text with another number gets other draws, and so do several outputs of one text.
    assert decoder.decode([rows[0]], [50]) != decoder.decode([rows[0]], [0])
    several = Decoder(ours, settings.model_copy(update={"num_return_sequences": 4})).decode([rows[0]], [0])[0]
    assert len({one.ids for one in several}) == 4
    assert several[0] == together[0][0]


@pytest.mark.parametrize("words", [{}, {"sample": True}, {"num_beams": 3}], ids=str)
def test_log_probabilities_are_those_of_the_model(ours, words):
    rows = inputs(5, 8, ours.vocabulary.size)
    settings = GenerateSettings(
        constrain=False, max_new_tokens=LENGTH, log_probs=True, repetition_penalty=1.5, **words
    )
    for row, (one,) in zip(rows, Decoder(ours, settings).decode(rows, range(5)), strict=True):
        decoder_inputs = np.zeros((1, LENGTH), np.int32)
        decoder_inputs[0, 1 : len(one.ids)] = one.ids[:-1]
        padded = np.zeros((1, 24), np.int32)
        padded[0, : len(row)] = row
        logits = forward(ours.parameters, ours.config, padded, decoder_inputs)[0]
        expected = jax.nn.log_softmax(logits, axis=-1)[np.arange(len(one.ids)), np.array(one.ids)]
        np.testing.assert_allclose(one.log_probs, expected, atol=2e-5)


@pytest.mark.parametrize(
    "words",
    [{}, {"sample": True, "temperature": 3.0}, {"num_beams": 3}, {"no_repeat_ngram_size": 1}],
    ids=str,
)
@pytest.mark.parametrize("length", [8, 15])
def test_sentinels_come_in_order_each_once_with_text(ours, words, length):
    vocabulary = ours.vocabulary
    draw = np.random.default_rng(3)
    texts = []
    for spans in (1, 2, 3, 4, 0, 4):
        numbers = draw.choice(100, spans, replace=False)
        texts.append("".join(f"ax <extra_id_{n}> " for n in numbers) + "by")
    settings = GenerateSettings(max_new_tokens=length, **words)
    generator = Generator(ours, settings)
    for text, one in zip(texts, generator.each(texts), strict=True):
        wanted = re.findall("<extra_id_[0-9]+>", text)
        found = re.findall("<extra_id_[0-9]+>", one.text)
        assert found[: len(wanted)] == wanted or not wanted
        if wanted:
            # One more may close the output.
            assert len(found) <= len(wanted) + 1
            assert "<extra_id" not in one.filled
            ids = [n for n in one.ids if n != vocabulary.eos_id]
            bare = [not vocabulary.is_text[n] for n in ids]
            assert not any(a and b for a, b in pairwise(bare))
            assert len(found) > len(wanted) or not bare[-1]
        assert one.ids
        assert not one.unanswered
    free = GenerateSettings(max_new_tokens=length, constrain=False)
    assert any("<extra_id" in one.filled for one in Generator(ours, free).each(texts))


def test_an_output_is_never_empty(ours):
    # A model that always ends at once: its head sees nothing but </s>.
    p = ours.parameters
    ends = jax.tree.map(jnp.zeros_like, p.embedding).at[1].set(p.embedding[1] * 100)
    always = Model(
        jax.tree.map(lambda x: x, p.__class__(p.embedding, p.encoder, p.decoder, ends.T)),
        ours.config.__class__(**{**ours.config.__dict__, "tie_word_embeddings": False}),
        ours.vocabulary,
    )
    for words in ({}, {"num_beams": 2}, {"sample": True}):
        for one in generate(always, ["ax by", "cz"], max_new_tokens=LENGTH, **words):
            assert one.ids[0] != 1


@pytest.mark.parametrize("words", [{}, {"num_beams": 2}], ids=str)
def test_outputs_end_at_stop_strings(ours, words):
    texts = [" ".join(["ax", "by", "cz", "du"][: n % 4 + 1]) for n in range(8)]
    free = generate(ours, texts, max_new_tokens=LENGTH, **words)
    longest = max((one.text for one in free), key=len)
    # From the middle of a token to the middle of another.
    middle = longest[4:7]
    stopped = generate(ours, texts, max_new_tokens=LENGTH, stop=(middle, "qq"), **words)
    ended = 0
    for before, one in zip(free, stopped, strict=True):
        assert middle not in one.text
        if not words:
            assert (
                one.text == before.text.partition(middle)[0].rstrip()
                if middle in before.text
                else before.text
            )
        if middle in before.text:
            ended += 1
            if not words:
                assert len(one.ids) < len(before.ids)
                assert not one.cut
    assert ended


def test_streaming_shows_the_output_grow(ours):
    settings = GenerateSettings(max_new_tokens=LENGTH)
    text = "ax <extra_id_0> by <extra_id_1>"
    whole = generate(ours, [text], settings)[0]
    steps = list(stream(ours, text, settings))
    assert [len(one.ids) for one in steps] == list(range(1, len(whole.ids) + 1))
    assert steps[-1] == whole
    with pytest.raises(T5smithError, match=r"^num_beams: beam search cannot stream\. Set it to 1"):
        next(stream(ours, text, num_beams=2))


@pytest.mark.parametrize("words", [{}, {"num_beams": 3}], ids=str)
def test_parameters_on_several_devices_give_the_same(ours, words):
    rows = inputs(5, 9, ours.vocabulary.size)
    settings = GenerateSettings(max_new_tokens=LENGTH, constrain=False, **words)
    mesh = Mesh(np.array(jax.devices()).reshape(8), ("x",))

    def spread(x):
        axis = next((n for n in range(x.ndim) if x.shape[n] % 8 == 0 and x.ndim > 1), None)
        spec = PartitionSpec(*("x" if n == axis else None for n in range(x.ndim)))
        return jax.device_put(x, NamedSharding(mesh, spec))

    elsewhere = Model(jax.tree.map(spread, ours.parameters), ours.config, ours.vocabulary)
    one, many = (Decoder(model, settings).decode(rows, range(5)) for model in (ours, elsewhere))
    assert [[x.ids for x in row] for row in one] == [[x.ids for x in row] for row in many]


def test_bfloat16_weights_are_kept_in_bfloat16(ours):
    rows = inputs(5, 9, ours.vocabulary.size)
    decoder = Decoder(ours, GenerateSettings(precision="bfloat16", log_probs=True, max_new_tokens=LENGTH))
    matrices = [x for x in jax.tree.leaves(decoder.weights.layers) if x.ndim == 2]
    assert {x.dtype for x in [*matrices, decoder.weights.head]} == {jnp.dtype("bfloat16")}
    whole = Decoder(ours, GenerateSettings(log_probs=True, max_new_tokens=LENGTH)).decode(rows, range(5))
    for (half,), (full,) in zip(decoder.decode(rows, range(5)), whole, strict=True):
        same = next((n for n, (a, b) in enumerate(zip(half.ids, full.ids, strict=False)) if a != b), 1)
        np.testing.assert_allclose(half.log_probs[:same], full.log_probs[:same], atol=0.3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"num_beams": 2, "sample": True}, r"^sample: cannot be used together with num_beams\. Choose one"),
        ({"top_k": 3}, r"^top_k: has no effect without sample\. Add sample"),
        ({"early_stopping": True}, r"^early_stopping: has no effect without beams\. Set num_beams to 2"),
        ({"num_return_sequences": 2}, r"^num_return_sequences: 2 sequences of 1 beams\. Set num_beams"),
        ({"min_new_tokens": 65}, r"^min_new_tokens: 65 is more than max_new_tokens, which is 64\. Raise"),
        ({"stop": ("",)}, r"^stop: an empty text ends every output\. Give a text, or none"),
        ({"temperature": 0.0, "sample": True}, r"^temperature: 0.0 cannot be used; expected more than 0"),
        ({"beams": 2}, r"^beams: unknown key"),
    ],
)
def test_settings_that_contradict_each_other_are_rejected(words, message):
    with pytest.raises(T5smithError, match=message):
        GenerateSettings(**words)


def test_the_same_words_everywhere(finished):
    assert t5smith.GenerateSettings is GenerateSettings
    texts = ["Alle mennesker <extra_id_0> født frie"]
    words = {"max_new_tokens": 6, "num_beams": 2, "num_return_sequences": 2}
    by_words = t5smith.generate(finished.folder, texts, **words)
    assert by_words == t5smith.generate(finished.folder, texts, GenerateSettings(**words))
    assert len(by_words[0].others) == 1
    assert by_words == list(t5smith.generate_each(finished.folder, iter(texts), **words))


def test_no_completion_without_an_output(ours):
    with pytest.raises(ValueError, match="not enough values"):
        completion(ours.vocabulary, [3], [])
