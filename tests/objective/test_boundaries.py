"""Spans that must stay within a document are moved, not cut."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from budget import examples
from t5smith.objective.boundaries import crosses_documents, keep_within_documents
from t5smith.objective.lengths import Masking, span_lengths
from t5smith.objective.rng import TRAINING, uniforms
from t5smith.objective.spans import Spans, draw_spans, draws_needed, roll_spans


def drawn(window, density, mean, rows=8, seed=0, roll=False):
    lengths = span_lengths(window, Masking(density, mean))
    spans = draw_spans(uniforms(seed, TRAINING, 0, rows, draws_needed(lengths)), lengths)
    return roll_spans(spans, np.arange(rows) * 7 % window, window) if roll else spans


def crossing(spans, document_starts):
    return crosses_documents(spans, np.cumsum(document_starts, axis=1))


def documents_of(window, rows, lengths):
    """Documents of these lengths in turn, with another offset in every row."""
    places = np.cumsum(np.tile(lengths, -(-2 * window // sum(lengths)) + 1))
    document_starts = np.zeros((rows, window), bool)
    for row in range(rows):
        own = places - (row * 13) % places[-1] % window
        document_starts[row, own[(own > 0) & (own < window)]] = True
    return document_starts


@examples(500)
@given(
    st.integers(4, 120),
    st.floats(0.05, 0.8),
    st.floats(1, 12),
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.integers(0, 99),
    st.booleans(),
)
def test_counts_stay_and_spans_never_touch_and_the_end_stays_masked(
    window, density, mean, documents, seed, roll
):
    before = drawn(window, density, mean, seed=seed, roll=roll)
    document_starts = documents_of(window, before.rows, documents)
    after = keep_within_documents(before, document_starts)
    np.testing.assert_array_equal(after.row, before.row)
    mask_before, mask_after = before.masks(window), after.masks(window)
    np.testing.assert_array_equal(mask_before.sum(1), mask_after.sum(1))
    np.testing.assert_array_equal(mask_before[:, -1], mask_after[:, -1])
    again = Spans.of_masks(mask_after)
    np.testing.assert_array_equal(again.start, after.start)
    np.testing.assert_array_equal(again.stop, after.stop)
    crossed = np.unique(before.row[crossing(before, document_starts)])
    still = np.unique(after.row[crossing(after, document_starts)])
    assert set(still) <= set(crossed)
    same = (mask_before == mask_after).all(axis=1)
    untouched = np.setdiff1d(np.arange(before.rows), crossed)
    assert same[untouched].all(), "rows without a crossing span are as drawn"
    assert same[still].all(), "rows that cannot be helped are as drawn"
    assert not same[np.setdiff1d(crossed, still)].any()


def test_documents_with_room_are_never_crossed():
    before = drawn(568, 0.15, 3.0, rows=2_000)
    document_starts = documents_of(568, 2_000, [40, 75, 210, 33, 500])
    assert crossing(before, document_starts).sum() > 500
    assert not crossing(keep_within_documents(before, document_starts), document_starts).any()


def test_documents_of_one_token_leave_no_room():
    before = drawn(60, 0.3, 3.0)
    document_starts = np.ones((8, 60), bool)
    after = keep_within_documents(before, document_starts)
    np.testing.assert_array_equal(after.start, before.start)
    single = drawn(60, 0.3, 1.0)
    assert not crossing(single, document_starts).any()


def test_a_span_is_moved_off_the_boundary_it_would_cross():
    document_starts = np.zeros((1, 12), bool)
    document_starts[0, 6] = True
    mask = np.zeros((1, 12), bool)
    mask[0, [4, 5, 6, 11]] = True
    after = keep_within_documents(Spans.of_masks(mask), document_starts).masks(12)
    assert np.flatnonzero(after[0]).tolist() == [3, 4, 5, 11]
    mask[0] = np.isin(np.arange(12), [5, 6, 7, 11])
    after = keep_within_documents(Spans.of_masks(mask), document_starts).masks(12)
    assert np.flatnonzero(after[0]).tolist() == [6, 7, 8, 11]


def test_where_one_part_has_no_room_the_other_is_tried():
    document_starts = np.zeros((1, 13), bool)
    document_starts[0, 7] = True
    mask = np.isin(np.arange(13), [6, 7, 9, 10, 11, 12])[None]
    after = keep_within_documents(Spans.of_masks(mask), document_starts)
    assert not crossing(after, document_starts).any()
    assert np.flatnonzero(after.masks(13)[0]).tolist() == [5, 6, 9, 10, 11, 12]
