"""Masks and corruption against t5's own outputs, and their invariants."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from budget import examples
from t5smith.base.errors import T5smithError
from t5smith.objective.corruption import corrupt
from t5smith.objective.lengths import Masking, span_lengths
from t5smith.objective.rng import TRAINING, uniforms
from t5smith.objective.spans import Spans, draw_spans, draws_needed, roll_spans

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "t5_span_corruption.json").read_text())
SENTINELS = np.arange(32_099, 31_999, -1, dtype=np.int32)
PAD, EOS = 0, 1


def draw(seed, lengths, rows, first=0):
    """Masks of some rows of a stream."""
    numbers = uniforms(seed, TRAINING, first, rows, draws_needed(lengths))
    return draw_spans(numbers, lengths)


def corrupted(window, mask, extra=3):
    """Inputs and targets of one row, in arrays that are longer than needed."""
    size = 2 * len(window) + 2 + extra
    inputs, targets = corrupt(
        np.array([window], np.int32),
        Spans.of_masks(np.array([mask], bool)),
        sentinel_ids=SENTINELS,
        eos_id=EOS,
        pad_id=PAD,
        input_length=size,
        target_length=size,
    )
    return inputs[0].tolist(), targets[0].tolist()


def trimmed(row):
    """A row up to its `</s>`; the rest must be padding."""
    end = row.index(EOS)
    assert not any(row[end + 1 :])
    return row[: end + 1]


def restored(inputs, targets, sentinels=SENTINELS):
    """Text and mask back from inputs and targets: span j of the targets goes where sentinel j stands."""
    spans: dict[int, list[int]] = {}
    for token in trimmed(targets)[:-1]:
        if token in sentinels:
            spans[token] = []
        else:
            spans[[*spans][-1]].append(token)
    window, mask = [], []
    for token in trimmed(inputs)[:-1]:
        part = spans[token] if token in sentinels else [token]
        window += part
        mask += [token in sentinels] * len(part)
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


settings_of_lengths = st.builds(
    span_lengths, st.integers(2, 400), st.builds(Masking, st.floats(0.05, 0.9), st.floats(1, 20))
)


@examples(1000)
@given(settings_of_lengths, st.integers(1, 5), st.integers(0, 99))
def test_masks_have_the_counts_of_the_length_function(lengths, rows, seed):
    spans = draw(seed, lengths, rows)
    masks = spans.masks(lengths.window)
    assert masks.shape == (rows, lengths.window)
    assert (masks.sum(1) == lengths.noise).all()
    starts = masks & ~np.pad(masks, ((0, 0), (1, 0)))[:, :-1]
    assert (starts.sum(1) == lengths.spans).all()
    assert not masks[:, 0].any()
    assert masks[:, -1].all()
    again = Spans.of_masks(masks)
    for name in ("row", "start", "stop"):
        np.testing.assert_array_equal(getattr(spans, name), getattr(again, name))


@examples(1000)
@given(
    st.integers(2, 300),
    st.builds(
        Masking,
        st.floats(0.05, 0.9),
        st.floats(1, 20),
        roll=st.booleans(),
        eos=st.booleans(),
        prefix=st.integers(0, 2),
    ),
    st.integers(1, 4),
    st.data(),
)
def test_drawn_spans_fit_and_give_back_the_window(window, masking, rows, data):
    lengths = span_lengths(window, masking)
    tokens = data.draw(st.integers(2, 31_900)) + np.arange(rows * window, dtype=np.int32).reshape(rows, -1)
    tokens = 2 + tokens % 31_000
    spans = draw(data.draw(st.integers(0, 99)), lengths, rows)
    if masking.roll:
        by = np.array([data.draw(st.integers(0, window - 1)) for _ in range(rows)])
        rolled = roll_spans(spans, by, window)
        masks = spans.masks(window)
        for row in range(rows):
            np.testing.assert_array_equal(rolled.masks(window)[row], np.roll(masks[row], by[row]))
        spans = rolled
    prefix = (31_998, 31_999)[: masking.prefix]
    sentinels = np.arange(31_999 + lengths.sentinels, 31_999, -1, dtype=np.int32)
    inputs, targets = corrupt(
        tokens,
        spans,
        sentinel_ids=sentinels,
        eos_id=EOS if masking.eos else None,
        pad_id=PAD,
        input_length=lengths.inputs,
        target_length=lengths.targets,
        prefix=prefix,
    )
    assert inputs.shape == (rows, lengths.inputs)
    assert targets.shape == (rows, lengths.targets)
    masks = spans.masks(window)
    for row in range(rows):
        inputs_row, targets_row = ([*array[row]] for array in (inputs, targets))
        if masking.eos:
            inputs_row, targets_row = trimmed(inputs_row)[:-1], trimmed(targets_row)[:-1]
        else:
            inputs_row, targets_row = unpadded(inputs_row), unpadded(targets_row)
        assert tuple(inputs_row[: masking.prefix]) == prefix
        order = [token for token in targets_row if token >= 32_000]
        assert order == [*sentinels[: len(order)]]
        assert restored([*inputs_row[masking.prefix :], EOS], [*targets_row, EOS], sentinels) == (
            tokens[row].tolist(),
            masks[row].tolist(),
        )
        # Unrolled rows are full to the last place; rolled ones lack at most one.
        assert (inputs[row] == PAD).sum() <= masking.roll
        assert (targets[row] == PAD).sum() <= masking.roll


def unpadded(row):
    """A row without `</s>` up to its padding, which must be at the end."""
    end = len(row)
    while row[end - 1] == PAD:
        end -= 1
    assert PAD not in row[:end]
    return row[:end]


def test_every_split_into_spans_is_equally_likely():
    # 3 of 7 tokens in 2 spans: 2 ways to split the noise, 3 to split the text, 6 masks in all.
    lengths = span_lengths(7, Masking(3 / 7, 1.5))
    assert (lengths.noise, lengths.spans) == (3, 2)
    _, counts = np.unique(draw(0, lengths, 60_000).masks(7), axis=0, return_counts=True)
    assert len(counts) == 6
    assert chisquare(counts).pvalue > 0.001


def test_every_choice_is_equally_likely_also_if_the_complement_is_drawn():
    # 6 of 9 tokens in 3 spans: 10 ways for the noise (3 of its 5 places are left whole), 1 for the text.
    lengths = span_lengths(9, Masking(6 / 9, 2.0))
    assert (lengths.noise, lengths.spans) == (6, 3)
    assert draws_needed(lengths) == 2
    _, counts = np.unique(draw(0, lengths, 50_000).masks(9), axis=0, return_counts=True)
    assert len(counts) == 10
    assert chisquare(counts).pvalue > 0.001


def test_a_row_does_not_depend_on_the_other_rows():
    lengths = span_lengths(200, Masking(0.15, 3.0))
    whole = draw(3, lengths, 12).masks(200)
    for first, rows in ((0, 1), (5, 3), (11, 1)):
        np.testing.assert_array_equal(draw(3, lengths, rows, first).masks(200), whole[first : first + rows])
    assert len(np.unique(whole, axis=0)) == 12
    assert (whole != draw(4, lengths, 12).masks(200)).any()


def test_more_spans_than_sentinels_is_an_error():
    mask = [bool(i % 2) for i in range(202)]
    with pytest.raises(T5smithError, match="needs 101 sentinels"):
        corrupted(range(2, 204), mask)


def test_arrays_too_short_are_an_error():
    with pytest.raises(T5smithError, match="inputs of 4 positions do not fit into 3"):
        corrupt(
            np.array([[5, 6, 7]], np.int32),
            Spans.of_masks(np.array([[False, True, False]])),
            sentinel_ids=SENTINELS,
            eos_id=EOS,
            pad_id=PAD,
            input_length=3,
            target_length=9,
        )


@pytest.mark.parametrize("mask", [[0, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
def test_without_eos_arrays_of_the_exact_size_hold_everything(mask):
    masks = np.array([mask, mask], bool)
    spans = Spans.of_masks(masks)
    count, noise = len(spans.row) // 2, sum(mask)
    inputs, targets = corrupt(
        np.array([[5, 6, 7], [8, 9, 10]], np.int32),
        spans,
        sentinel_ids=SENTINELS,
        eos_id=None,
        pad_id=PAD,
        input_length=3 - noise + count,
        target_length=noise + count + (not mask[-1]),
    )
    for row, window in enumerate(([5, 6, 7], [8, 9, 10])):
        pair = [*inputs[row].tolist(), EOS], [*targets[row].tolist(), EOS]
        assert restored(*pair) == (window, masks[row].tolist())
