"""Masks and corruption against t5's own outputs, and as invariants."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5smith.errors import T5smithError
from t5smith.objective.lengths import span_lengths
from t5smith.objective.spans import TRAINING, corrupt, generator, noise_masks

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "t5_span_corruption.json").read_text())
SENTINELS = np.arange(32_099, 31_999, -1, dtype=np.int32)
PAD, EOS = 0, 1


def corrupted(window, mask, extra=3):
    """Inputs and targets of one row, in arrays with room to spare."""
    size = 2 * len(window) + 2 + extra
    inputs, targets = corrupt(
        np.array([window], np.int32),
        np.array([mask], bool),
        sentinel_ids=SENTINELS,
        eos_id=EOS,
        pad_id=PAD,
        input_length=size,
        target_length=size,
    )
    return inputs[0].tolist(), targets[0].tolist()


def trimmed(row):
    """A row up to its `</s>`; all behind it must be padding."""
    end = row.index(EOS)
    assert not any(row[end + 1 :])
    return row[: end + 1]


def restored(inputs, targets):
    """Text and mask back from inputs and targets: span j of the targets goes where sentinel j stands."""
    spans: dict[int, list[int]] = {}
    for token in trimmed(targets)[:-1]:
        if token in SENTINELS:
            spans[token] = []
        else:
            spans[[*spans][-1]].append(token)
    window, mask = [], []
    for token in trimmed(inputs)[:-1]:
        part = spans[token] if token in SENTINELS else [token]
        window += part
        mask += [token in SENTINELS] * len(part)
    return window, mask


BEGINS_WITH_TEXT = [row for row in GOLDEN["sentinels"] if row["mask"].startswith("0")]


def test_the_golden_file_has_masks_that_begin_with_text():
    assert len(BEGINS_WITH_TEXT) == 22


@pytest.mark.parametrize("row", BEGINS_WITH_TEXT)
def test_inputs_and_targets_are_those_of_t5(row):
    mask = [bit == "1" for bit in row["mask"]]
    inputs, targets = corrupted(row["tokens"], mask)
    assert trimmed(inputs) == [*row["noise_span_to_unique_sentinel"], EOS]
    assert trimmed(targets) == [*row["nonnoise_span_to_unique_sentinel"], EOS]


@given(st.lists(st.tuples(st.integers(2, 31_999), st.booleans()), min_size=1, max_size=120))
def test_inputs_and_targets_together_give_back_any_window_and_mask(tokens):
    window, mask = map(list, zip(*tokens, strict=True))
    inputs, targets = corrupted(window, mask)
    assert restored(inputs, targets) == (window, mask)


@given(st.lists(st.booleans(), min_size=1, max_size=100))
def test_a_closing_sentinel_stands_exactly_where_text_follows_the_last_span(mask):
    _, targets = corrupted(range(2, 2 + len(mask)), mask)
    assert (trimmed(targets)[-2] in SENTINELS) == (not mask[-1])


@given(st.integers(2, 400), st.floats(0.05, 0.9), st.floats(1, 20), st.integers(1, 5), st.integers(0, 99))
def test_masks_have_the_counts_of_the_length_function(window, density, mean, rows, seed):
    lengths = span_lengths(window, density, mean)
    masks = noise_masks(generator(seed, TRAINING, 0), rows, lengths)
    assert masks.shape == (rows, window)
    assert (masks.sum(1) == lengths.noise).all()
    starts = masks & ~np.pad(masks, ((0, 0), (1, 0)))[:, :-1]
    assert (starts.sum(1) == lengths.spans).all()
    assert not masks[:, 0].any()
    assert masks[:, -1].all()


def test_arrays_of_exactly_the_lengths_function_are_filled_to_the_last_place():
    lengths = span_lengths(568, 0.15, 3.0)
    masks = noise_masks(generator(0, TRAINING, 0), 16, lengths)
    windows = np.full((16, 568), 7, np.int32)
    inputs, targets = corrupt(
        windows,
        masks,
        sentinel_ids=SENTINELS,
        eos_id=EOS,
        pad_id=PAD,
        input_length=lengths.inputs,
        target_length=lengths.targets,
    )
    assert (inputs[:, -1] == EOS).all()
    assert (targets[:, -1] == EOS).all()
    assert (inputs != PAD).all()
    assert (targets != PAD).all()


def test_every_split_into_spans_is_equally_likely():
    # 3 of 7 tokens in 2 spans: 2 ways to split the noise, 3 to split the text, 6 masks in all.
    lengths = span_lengths(7, 3 / 7, 1.5)
    assert (lengths.noise, lengths.spans) == (3, 2)
    masks = noise_masks(generator(0, TRAINING, 0), 60_000, lengths)
    _, counts = np.unique(masks, axis=0, return_counts=True)
    assert len(counts) == 6
    chi_square = ((counts - 10_000) ** 2 / 10_000).sum()
    assert chi_square < 20.5  # p = 0.001 at 5 degrees of freedom


def test_the_same_seed_and_step_give_the_same_masks_and_others_do_not():
    lengths = span_lengths(200, 0.15, 3.0)
    one = noise_masks(generator(3, TRAINING, 5), 4, lengths)
    assert (one == noise_masks(generator(3, TRAINING, 5), 4, lengths)).all()
    assert (one != noise_masks(generator(3, TRAINING, 6), 4, lengths)).any()
    assert (one != noise_masks(generator(4, TRAINING, 5), 4, lengths)).any()


def test_more_spans_than_sentinels_is_refused():
    mask = [bool(i % 2) for i in range(202)]
    with pytest.raises(T5smithError, match="needs 101 sentinels"):
        corrupted(range(2, 204), mask)


def test_arrays_too_short_are_refused():
    with pytest.raises(T5smithError, match="inputs of 4 positions do not fit into 3"):
        corrupt(
            np.array([[5, 6, 7]], np.int32),
            np.array([[False, True, False]]),
            sentinel_ids=SENTINELS,
            eos_id=EOS,
            pad_id=PAD,
            input_length=3,
            target_length=9,
        )
