"""For any objective: every row, taken apart, gives back exactly the windows of the order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from unpack import segments_of, window_of

from budget import examples
from t5smith.base.errors import T5smithError
from t5smith.objective.batches import Objective, TrainingBatches
from t5smith.objective.denoisers import UL2, Denoiser
from t5smith.objective.objective import check_objective
from t5smith.objective.rng import TRAINING, uniforms
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.store.token_store import Split
from t5smith.vocabulary.vocabulary import Vocabulary

VOCABULARY = Vocabulary.bundled()
# No id comes twice within a window, and none is a control id.
TOKENS = (3 + np.arange(9_000) % 31_000).astype(np.uint16)
ENDS = np.cumsum(np.random.default_rng(0).integers(1, 90, 400))
SPLIT = Split("train", TOKENS, np.append(ENDS[ENDS < 9_000], 9_000), 0)

denoisers = st.builds(
    Denoiser,
    st.floats(0.05, 0.9).map(lambda value: round(value, 2)),
    st.one_of(st.none(), st.floats(1, 20).map(lambda value: round(value, 1))),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.sampled_from(["", "[R]", "<extra_id_99>", "<extra_id_98>"]),
).map(str)
common = {"roll": st.booleans(), "eos": st.booleans(), "cross_documents": st.booleans()}
objectives = st.one_of(
    st.fixed_dictionaries(
        {
            "name": st.just("span_corruption"),
            "noise_density": st.floats(0.05, 0.9),
            "mean_noise_span_length": st.floats(1, 20),
            **common,
        },
        optional={"input_length": st.integers(8, 200), "window_length": st.integers(2, 120)},
    ),
    st.fixed_dictionaries(
        {"name": st.just("prefix_lm"), "window_length": st.integers(2, 120), **common},
        optional={"noise_density": st.floats(0.05, 0.95)},
    ),
    st.fixed_dictionaries({"name": st.just("ul2"), "window_length": st.integers(12, 120), **common}),
    st.fixed_dictionaries(
        {
            "name": st.just("mixture"),
            "denoisers": st.lists(denoisers, min_size=1, max_size=4),
            "window_length": st.integers(4, 120),
            **common,
        }
    ),
)


def create(**values):
    """An objective, unless it is invalid; the message of the error must be one line."""
    try:
        return Objective.create(ObjectiveSettings.model_validate(values), VOCABULARY)
    except T5smithError as error:
        message = str(error)
    assert "\n" not in message
    return assume(False)


@examples(200)
@given(objectives, st.integers(0, 3), st.integers(0, 40))
def test_rows_give_back_their_windows(values, seed, b):
    objective = create(**values)
    assume(objective.window < 4_000)
    batches = TrainingBatches(SPLIT, objective, 3, seed)
    batch = batches[b]
    assert batch["input_ids"].shape == (3, objective.input_length)
    assert batch["targets"].shape == (3, objective.target_length)
    for name, ids in batch.items():
        assert ids.dtype == np.int32
        assert ids.min() >= (-1 if name == "items" else 0)
        assert ids.max() < VOCABULARY.size
    plan = objective.plan
    q = np.arange(plan.first_window(3 * b), plan.first_window(3 * (b + 1)))
    starts = batches.order.starts(q)
    found = segments_of(batch, VOCABULARY.pad_id)
    assert len(found) == len(q)
    opens = SPLIT.document_starts(starts, objective.window)
    for number, (inputs, targets), start, document in zip(
        plan.place(q).denoiser, found, starts, opens, strict=True
    ):
        spec = objective.denoisers[number]
        window, mask = window_of(inputs, targets, spec, objective)
        assert window == TOKENS[start : start + objective.window].tolist()
        masked = np.array(mask)
        if spec.lengths is None:
            low, high = spec.noise_range
            assert low <= masked.sum() <= high
        else:
            assert masked.sum() == spec.lengths.noise
            spans = int((masked[1:] & ~masked[:-1]).sum() + masked[0])
            assert spans - spec.lengths.spans in ((0, 1) if objective.roll else (0,))
            if not objective.roll:
                assert not masked[0]
                assert masked[-1]
            if not objective.cross_documents:
                cut = np.flatnonzero(masked[1:] & masked[:-1] & document[1:])
                # Only where the documents leave no room for spans of this many tokens, or, rolled, for these
                # and the text that stays between them and the window's edges.
                lengths = np.diff(
                    np.append(np.flatnonzero(document | (np.arange(len(masked)) == 0)), len(masked))
                )
                assert not len(cut) or lengths.min() < spec.lengths.noise + objective.roll


@examples(25)
@given(objectives, st.integers(0, 3), st.permutations(range(6)))
def test_the_same_bytes_in_any_order_of_access_batch_size_and_number_of_hosts(values, seed, order):
    objective = create(**values)
    assume(objective.window < 4_000)
    batches = TrainingBatches(SPLIT, objective, 4, seed)
    first = {b: batches[b] for b in order}
    whole = TrainingBatches(SPLIT, objective, 24, seed)[0]
    for b in range(6):
        again = TrainingBatches(SPLIT, objective, 4, seed)[b]
        hosts = [TrainingBatches(SPLIT, objective, 4, seed, host=host, hosts=4)[b] for host in range(4)]
        for name, ids in again.items():
            np.testing.assert_array_equal(ids, first[b][name])
            np.testing.assert_array_equal(ids, np.concatenate([host[name] for host in hosts]))
            np.testing.assert_array_equal(ids, whole[name][4 * b : 4 * b + 4])


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ({}, 1.0),
        ({"roll": True}, 0.99),
        ({"cross_documents": False}, 1.0),
        ({"eos": False}, 1.0),
        ({"name": "prefix_lm"}, 0.999),
        ({"name": "ul2"}, 0.95),
        ({"name": "ul2", "window_length": 128}, 0.95),
        ({"name": "ul2", "roll": True, "cross_documents": False}, 0.95),
    ],
)
def test_rows_are_full(values, share):
    tokens = np.random.default_rng(0).integers(3, 32_000, 60_000).astype(np.uint16)
    split = Split("train", tokens, np.arange(500, 60_001, 500), 0)
    batches = TrainingBatches(split, create(**values), 14, 0)
    arrays = [batches[b][name] for b in range(4) for name in ("input_ids", "targets")]
    real = sum(int((ids != 0).sum()) for ids in arrays) / sum(ids.size for ids in arrays)
    assert real >= share
    if share == 1:
        assert real == 1


def test_a_mask_is_rolled_by_a_random_number_of_its_own():
    """The spans are those of the other numbers, whatever this one is."""
    objective = create(roll=True, window_length=60)
    drawn = uniforms(0, TRAINING, 0, 50, objective.draws)

    def masks(by):
        drawn[:, 0] = (by + 0.5) / 60
        return objective.draw_spans(objective.denoisers[0], drawn, None).masks(60)

    for by in (1, 17, 59):
        np.testing.assert_array_equal(masks(by), np.roll(masks(0), by, axis=1))


def test_the_last_possible_window_is_read():
    objective = create(window_length=30)
    split = Split("train", TOKENS[:30], np.array([30]), 0)
    (inputs, targets), *_ = segments_of(TrainingBatches(split, objective, 1, 0)[0], 0)
    assert window_of(inputs, targets, objective.denoisers[0], objective)[0] == TOKENS[:30].tolist()


def test_ul2_is_its_table():
    objective = create(name="ul2")
    assert objective.plan.shares() == pytest.approx([1 / 7] * 7, abs=0.002)
    assert [str(spec.denoiser) for spec in objective.denoisers] == list(UL2)
    assert [spec.noise for spec in objective.denoisers] == [77, 77, 128, 256, 256, 77, 256]
    assert [spec.lengths.spans if spec.lengths else None for spec in objective.denoisers] == [
        26, 10, None, 85, 32, 1, 4,
    ]  # fmt: skip
    assert (objective.input_length, objective.target_length) == (1520, 800)


def test_mode_tokens_are_pieces_or_text_and_reserve_their_sentinel():
    objective = create(name="mixture", denoisers=["0.15 3 1 <extra_id_40>", "0.3 5 1 [R]"], window_length=60)
    assert objective.denoisers[0].prefix == (VOCABULARY.sentinel_ids[40],)
    assert VOCABULARY.pieces(objective.denoisers[1].prefix) == ["▁[", "R", "]"]
    assert len(objective.sentinel_ids) == 40
    with pytest.raises(T5smithError, match="cannot encode the mode token 'ø'"):
        Objective.create(
            ObjectiveSettings(name="mixture", denoisers=("0.15 3 1 ø",), window_length=60), VOCABULARY
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "mixture"}, "one or more for a mixture"),
        ({"denoisers": ["0.15 3"]}, "none for other objectives"),
        ({"name": "ul2", "noise_density": 0.3}, "each denoiser has its own"),
        ({"name": "mixture", "denoisers": ["0.15"]}, "'0.15' has 1 columns"),
        ({"name": "mixture", "denoisers": ["0.15 3 1 [R] more"]}, "5 columns"),
        ({"name": "mixture", "denoisers": ["a 3"]}, "'a 3' cannot be used"),
        ({"name": "mixture", "denoisers": ["0.15 0.5"]}, "a mean span of 1 or more"),
        ({"name": "mixture", "denoisers": ["0.15 3 0"]}, "a weight above 0"),
        ({"name": "mixture", "denoisers": ["1.5 3"]}, "0 < density < 1"),
        ({"name": "ul2", "window_length": 2_000}, "denoiser '0.5 3 1 \\[X\\]'"),
        ({"name": "ul2", "window_length": 2_000}, "shorter window_length"),
        (
            {"name": "ul2", "input_length": 512},
            "objective.input_length: 512 cannot be used; expected at least",
        ),
        ({"input_length": 4_096}, "mean_noise_span_length of"),
    ],
)
def test_an_invalid_objective_is_an_error_before_there_is_a_vocabulary(values, message):
    with pytest.raises(T5smithError, match=message):
        check_objective(ObjectiveSettings.model_validate(values))


def test_the_title_of_a_denoiser():
    assert Denoiser.parse("0.15 3 1 [R]").title == "[R] 15% in spans of 3"
    assert Denoiser.parse("0.25 prefix").title == "25% at the end"
    for row in UL2:
        assert str(Denoiser.parse(row)) == row
