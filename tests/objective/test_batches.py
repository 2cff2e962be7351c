"""Batch b depends only on (store, objective, seed, b)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from t5smith.base.errors import T5smithError
from t5smith.objective import batches as module
from t5smith.objective.batches import Objective, TrainingBatches, evaluation_batches, held_out_windows
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.store.token_store import Split
from t5smith.vocabulary.vocabulary import Vocabulary

WINDOWS = 23
SETTINGS = ObjectiveSettings(input_length=32)
WINDOW = 34


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.bundled()


@pytest.fixture(scope="module")
def objective(vocabulary):
    return Objective.create(SETTINGS, vocabulary)


@pytest.fixture(scope="module")
def split():
    # All tokens differ, so that any of them identifies its window.
    tokens = np.arange(100, 100 + WINDOWS * WINDOW + 5, dtype=np.uint16)
    return Split("train", tokens, np.array([len(tokens)]), 0)


def windows_of(batch, split):
    """The window of each row."""
    return (batch["input_ids"][:, 0] - 100) // WINDOW


def test_batches_are_the_same_in_any_order_of_access(split, objective):
    batches = TrainingBatches(split, objective, 4, seed=7)
    forward = [batches[b] for b in range(12)]
    again = TrainingBatches(split, objective, 4, seed=7)
    for b in (11, 3, 0, 7):
        for name in ("input_ids", "targets"):
            np.testing.assert_array_equal(again[b][name], forward[b][name])
    other = TrainingBatches(split, objective, 4, seed=8)[0]
    assert (other["input_ids"] != forward[0]["input_ids"]).any()


def test_every_epoch_visits_all_windows_once_in_a_different_order(split, objective):
    batches = TrainingBatches(split, objective, WINDOWS, seed=0, shift_windows=False)
    epochs = [windows_of(batches[b], split).tolist() for b in range(3)]
    assert all(sorted(epoch) == list(range(WINDOWS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_shifted_epochs_cut_at_different_offsets_and_still_read_everything_once(split, objective):
    batches = TrainingBatches(split, objective, 1, seed=0)
    count, length = batches.order.windows_per_epoch(), objective.window
    assert count == WINDOWS - 1
    shifts = []
    for epoch in range(6):
        starts = [batches[epoch * count + i]["input_ids"][0, 0] - 100 for i in range(count)]
        shift = min(starts)
        assert sorted(starts) == [shift + i * length for i in range(count)]
        shifts.append(int(shift))
    assert shifts[0] == 0
    assert len(set(shifts)) > 3
    assert max(shifts) < length


@pytest.mark.parametrize("spare", [0, 1, 33])
def test_text_of_hardly_one_window_is_shifted_as_far_as_possible(objective, spare):
    length = objective.window
    short = Split("train", np.arange(100, 100 + length + spare, dtype=np.uint16), np.array([9]), 0)
    batches = TrainingBatches(short, objective, 2, seed=0)
    starts = {int(start) - 100 for b in range(40) for start in batches[b]["input_ids"][:, 0]}
    assert starts <= set(range(spare + 1))
    assert len(starts) == 1 if not spare else len(starts) > 1


def test_evaluation_masks_do_not_depend_on_the_batch_size(split, objective):
    def rows(batch_size, **more):
        batches = evaluation_batches(split, objective, batch_size=batch_size, masks_per_window=4, **more)
        return {name: np.concatenate([batch[name] for batch in batches]) for name in ("input_ids", "targets")}

    one, other = rows(8), rows(13)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    assert windows_of(one, split).tolist() == [w for w in range(WINDOWS) for _ in range(4)]
    assert len(np.unique(one["targets"][:4], axis=0)) == 4
    some, chosen = rows(8, windows=2), held_out_windows(WINDOWS, 2)
    assert len(some["targets"]) == 8
    expected = [row for window in chosen for row in one["targets"][4 * window : 4 * window + 4]]
    np.testing.assert_array_equal(some["targets"], expected)


def test_a_smaller_choice_of_held_out_windows_is_part_of_a_larger_one(monkeypatch):
    choices = [held_out_windows(1_000, windows).tolist() for windows in (1, 7, 50, 999)]
    assert [len(choice) for choice in choices] == [1, 7, 50, 999]
    for smaller, larger in pairwise(choices):
        assert set(smaller) < set(larger)
        assert smaller == sorted(smaller)
    # From all over the text, and the same however many are hashed together.
    assert all(5 < sum(part <= w < part + 250 for w in choices[2]) < 25 for part in range(0, 1_000, 250))
    monkeypatch.setattr(module, "_HASHED_AT_ONCE", 64)
    assert held_out_windows(1_000, 50).tolist() == choices[2]
    assert len(held_out_windows(1_000, 0)) == len(held_out_windows(1_000, 5_000)) == 1_000


def test_held_out_batches_are_made_when_they_are_asked_for(split, objective, monkeypatch):
    """However large the held-out split, nothing is read before, and then one batch."""
    read = []
    windows_at = Split.windows_at

    def counted(self, starts, length):
        read.append(len(starts))
        return windows_at(self, starts, length)

    monkeypatch.setattr(Split, "windows_at", counted)
    batches = evaluation_batches(split, objective, batch_size=6, masks_per_window=4)
    assert (len(batches), batches.rows, read) == (16, 92, [])
    assert len(batches[15]["targets"]) == 2
    assert len(next(iter(batches))["targets"]) == 6
    assert read == [2, 6]
    with pytest.raises(IndexError):
        batches[16]


def test_more_masks_per_window_leave_the_first_ones_as_they_are(split, objective):
    def targets(masks_per_window):
        (batch,) = evaluation_batches(split, objective, batch_size=500, masks_per_window=masks_per_window)
        return batch["targets"].reshape(WINDOWS, masks_per_window, -1)

    np.testing.assert_array_equal(targets(5)[:, :2], targets(2))


def test_every_row_is_full(split, objective):
    batch = TrainingBatches(split, objective, 4, seed=0)[0]
    assert batch["input_ids"].shape == (4, objective.input_length)
    assert batch["targets"].shape == (4, objective.target_length)
    assert all((array != objective.pad_id).all() for array in batch.values())


def test_more_spans_than_sentinels_is_an_error_before_training(vocabulary):
    with pytest.raises(T5smithError, match="114 masked spans"):
        Objective.create(ObjectiveSettings(input_length=2048), vocabulary)


def test_a_split_shorter_than_a_window_is_an_error(objective):
    short = Split("train", np.zeros(9, np.uint16), np.array([9]), 0)
    assert objective.window == WINDOW
    with pytest.raises(T5smithError, match="fewer than one window"):
        TrainingBatches(short, objective, 4, seed=0)


def masks_of(batch, objective):
    """For each row the positions of its sentinels, which depend on its mask alone."""
    return [
        tuple(np.flatnonzero(np.isin(row, objective.sentinel_ids)).tolist()) for row in batch["input_ids"]
    ]


def test_every_step_has_different_masks(split, objective):
    batches = TrainingBatches(split, objective, 4, seed=0)
    assert len({tuple(masks_of(batches[b], objective)) for b in range(10)}) == 10


def test_held_out_windows_share_no_masks():
    """Each window has its own, also next to each other: 12 masks of 3 windows are 12 different ones."""
    tokens = np.arange(100, 100 + 3 * 568, dtype=np.uint16)
    long = Objective.create(ObjectiveSettings(), Vocabulary.bundled())
    (batch,) = evaluation_batches(
        Split("valid", tokens, np.array([len(tokens)]), 0), long, batch_size=12, masks_per_window=4
    )
    assert len(set(masks_of(batch, long))) == 12
