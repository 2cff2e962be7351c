"""Greedy decoding, penalties and beam search equal those of transformers 5, with the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_t5 import inputs, padded, pair

from budget import ALL
from t5smith.generation.decoding import Decoder, _without_padding
from t5smith.recipe.evaluate import GenerateSettings

COUNT, BATCH, LENGTH = (200 if ALL else 24), 24, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def theirs_of(model, rows, words):
    """Sequences without padding, and their scores."""
    ids, mask = padded(rows)
    words = {name: {"true": True, "false": False}.get(value, value) for name, value in words.items()}
    with torch.no_grad():
        found = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=LENGTH,
            return_dict_in_generate=True,
            output_scores=True,
            **({"num_beams": 1} | words),
        )
    sequences = [row[1:] for row in found.sequences.tolist()]
    cut = [row[: row.index(1) + 1] if 1 in row else row for row in sequences]
    # A model of random weights also writes padding, which is none of the output.
    return [_without_padding(np.array(row), 0) for row in cut], found.get("sequences_scores")


def compare(folder, seed, tied, words, umt5=False):
    theirs, ours = pair(folder, seed, tied, umt5)
    settings = GenerateSettings(max_new_tokens=LENGTH, constrain=False, **({"min_new_tokens": 0} | words))
    decoder = Decoder(ours, settings)
    rows = inputs(COUNT, seed, ours.vocabulary.size)
    lengths = set()
    for begin in range(0, COUNT, BATCH):
        part = rows[begin : begin + BATCH]
        expected, scores = theirs_of(theirs, part, words)
        found = [one for row in decoder.decode(part, range(len(part))) for one in row]
        assert [one.ids for one in found] == expected
        if scores is not None:
            assert [one.score for one in found] == pytest.approx(scores.tolist(), rel=2e-4, abs=2e-5)
        lengths |= {len(one) for one in expected}
    # Some end, and some are cut.
    assert umt5 or words.get("length_penalty", 0.0) == 2 or len(lengths) > 2
    assert LENGTH in lengths


@pytest.mark.parametrize(
    ("seed", "tied", "words"),
    [
        (1, False, {}),
        (2, True, {}),
        (1, False, {"repetition_penalty": 1.7}),
        (2, True, {"no_repeat_ngram_size": 2}),
        (1, False, {"no_repeat_ngram_size": 1, "min_new_tokens": 5}),
        (2, True, {"no_repeat_ngram_size": 3, "repetition_penalty": 0.8}),
    ],
    ids=str,
)
def test_greedy_decoding_is_that_of_transformers(folder, seed, tied, words):
    compare(folder, seed, tied, words)


@pytest.mark.parametrize("early_stopping", ["false", "true", "never"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, -1.0, 2.0])
def test_beam_search_is_that_of_transformers(folder, early_stopping, length_penalty):
    if not ALL and (early_stopping, length_penalty) in {("true", 0.0), ("never", 2.0), ("false", -1.0)}:
        pytest.skip("all of them run with EXAMPLES=all")
    words = {"num_beams": 4, "early_stopping": early_stopping, "length_penalty": length_penalty}
    compare(folder, 0, False, words | {"num_return_sequences": 4})


def test_beams_with_penalties_are_those_of_transformers(folder):
    words = {"num_beams": 3, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3}
    compare(folder, 1, False, words | {"num_return_sequences": 2})


def test_a_position_bias_per_layer(folder):
    compare(folder, 5, False, {}, umt5=True)
