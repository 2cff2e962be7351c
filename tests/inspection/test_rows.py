from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5smith.inspection.batch import held_out_batches, training_batch
from t5smith.inspection.results import Row, rows_of
from t5smith.model.t5 import Segments, shift_right
from t5smith.objective.batches import Batch, TrainingBatches, evaluation_batches, held_out_windows
from t5smith.objective.objective import Objective
from t5smith.recipe.evaluate import EvaluateSettings
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.store.token_store import Corpus, Split
from t5smith.vocabulary.vocabulary import Vocabulary

VOCABULARY = Vocabulary.bundled()
MIXTURE = ("0.3 2 2 <extra_id_99>", "0.5 4 1", "0.25 prefix 1 <extra_id_98>")


def a_split(tokens: int = 900) -> Split:
    """Two corpora of words, with a document's end every few tokens."""
    rng = np.random.default_rng(3)
    ids = rng.integers(3, 30_000, tokens).astype("<u2")
    ends = np.append(np.arange(13, tokens, 17), tokens)
    ids[ends - 1] = VOCABULARY.eos_id
    return Split("train", ids, ends, 1, (Corpus("a", 0, 500), Corpus("b", 500, tokens)))


SPLIT = a_split()

objectives = st.one_of(
    st.builds(
        ObjectiveSettings,
        window_length=st.integers(12, 40),
        noise_density=st.sampled_from([0.15, 0.5]),
        roll=st.booleans(),
        eos=st.booleans(),
        cross_documents=st.booleans(),
    ),
    st.builds(
        ObjectiveSettings,
        name=st.just("mixture"),
        denoisers=st.just(MIXTURE),
        window_length=st.integers(12, 40),
        roll=st.booleans(),
        eos=st.booleans(),
    ),
    st.builds(
        ObjectiveSettings, name=st.just("prefix_lm"), window_length=st.integers(12, 40), eos=st.booleans()
    ),
)


def rebuilt(rows: Sequence[Row], arrays: Batch) -> dict[str, np.ndarray]:
    """Arrays made of what is shown, every token at the position that is shown for it."""
    made = {name: np.zeros_like(array[: len(rows)]) for name, array in arrays.items()}
    fed = np.zeros_like(made["targets"])
    for number, row in enumerate(rows):
        assert (row.input_length, row.target_length) == tuple(
            arrays[name].shape[1] for name in ("input_ids", "targets")
        )
        for trace in row.windows:
            assert trace.place is not None
            for tokens, at, name in (
                (trace.inputs, trace.place.input_at, "input"),
                (trace.targets, trace.place.target_at, "target"),
            ):
                here = number, slice(at, at + len(tokens))
                made[f"{name}_ids" if name == "input" else "targets"][here] = [token.id for token in tokens]
                if f"{name}_segments" in made:
                    made[f"{name}_segments"][here] = trace.place.segment
            at = trace.place.target_at
            fed[number, at : at + len(trace.targets)] = [token.id for token in trace.decoder_inputs]
    return made | {"fed": fed}


@given(objectives, st.integers(0, 40), st.integers(0, 5))
@settings(max_examples=20)
def test_what_is_shown_is_what_training_gets(settings: ObjectiveSettings, b: int, seed: int) -> None:
    objective = Objective.create(settings, VOCABULARY)
    batches = TrainingBatches(SPLIT, objective, 3, seed)
    shown = rows_of(training_batch(batches, b), VOCABULARY, title="batch", seed=seed)
    # The items of a row say where windows are, which the segments show.
    arrays = {name: array for name, array in batches[b].items() if name != "items"}
    made = rebuilt(shown, arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(made[name], array)
    segments = (
        Segments(jnp.asarray(arrays["input_segments"]), jnp.asarray(arrays["target_segments"]))
        if "input_segments" in arrays
        else None
    )
    fed = np.asarray(shift_right(jnp.asarray(arrays["targets"]), segments))
    real = arrays["targets"] != 0
    np.testing.assert_array_equal(made["fed"][real], fed[real])
    for row in shown:
        for trace in row.windows:
            at = trace.place
            assert at is not None
            assert [token.id for token in trace.tokens] == SPLIT.tokens[at.start : at.stop].tolist()
            assert at.corpus == ("a" if at.start < 500 else "b")
            last = int(np.searchsorted(SPLIT.ends, at.stop - 1, side="right"))
            assert at.documents[1] == last
            assert trace.lengths.inputs == len(trace.inputs)


@given(objectives, st.integers(0, 3))
@settings(max_examples=10)
def test_held_out_rows_are_those_of_the_evaluation(settings: ObjectiveSettings, b: int) -> None:
    objective = Objective.create(settings, VOCABULARY)
    how = EvaluateSettings(batch_size=4, masks_per_window=3, windows=6)
    expected = evaluation_batches(SPLIT, objective, batch_size=4, masks_per_window=3, windows=6)
    found = list(held_out_batches(SPLIT, objective, how))
    assert len(found) == len(expected)
    shown = rows_of(found[b], VOCABULARY, title="batch", seed=0)
    made = rebuilt(shown, expected[b])
    for name in ("input_ids", "targets"):
        np.testing.assert_array_equal(made[name], expected[b][name])
    places = [row.windows[0].place for row in shown]
    windows = held_out_windows(SPLIT.window_count(objective.window), 6)
    at = [divmod(4 * b + row, 3) for row in range(4)]
    assert [(p.window, p.mask) for p in places if p] == [(windows[window], mask) for window, mask in at]
    if "denoiser" in expected[b]:
        assert found[b].denoiser.tolist() == expected[b]["denoiser"][:, 0].tolist()


@given(objectives, st.integers(0, 20))
@settings(max_examples=12)
def test_spans_are_read_from_the_arrays(settings: ObjectiveSettings, b: int) -> None:
    objective = Objective.create(settings, VOCABULARY)
    batch = training_batch(TrainingBatches(SPLIT, objective, 4, 1), b)
    lengths = [objective.denoisers[task].lengths for task in batch.denoiser.tolist()]
    noise = batch.masked.sum(axis=1)
    for window, one in enumerate(lengths):
        if one is not None:
            assert noise[window] == one.noise
    assert int((~batch.masked).sum()) == int(batch.inputs.is_text.sum())


def test_an_array_that_does_not_match_its_window_is_found() -> None:
    objective = Objective.create(ObjectiveSettings(window_length=30), VOCABULARY)
    batch = training_batch(TrainingBatches(SPLIT, objective, 2, 0), 0)
    for name, what in (("input_ids", "inputs"), ("targets", "targets")):
        array = batch.arrays[name].copy()
        changed = np.flatnonzero(array[0] < 30_000)[1]
        array[0, changed] += 1
        bad = replace(batch, arrays={**batch.arrays, name: array})
        with pytest.raises(AssertionError, match=f"{what} do not match their text"):
            _ = bad.masked


def test_padding_is_what_no_window_uses() -> None:
    settings = ObjectiveSettings(name="mixture", denoisers=MIXTURE, window_length=24)
    objective = Objective.create(settings, VOCABULARY)
    batches = TrainingBatches(SPLIT, objective, 8, 0)
    shown = rows_of(training_batch(batches, 0), VOCABULARY, title="batch", seed=0)
    arrays = batches[0]
    assert sum(row.input_padding for row in shown) == int((arrays["input_ids"] == 0).sum())
    assert sum(row.target_padding for row in shown) == int((arrays["targets"] == 0).sum())
    titles = {trace.denoiser for row in shown for trace in row.windows}
    assert titles == {task.denoiser.title for task in objective.denoisers}
    modes = {trace.inputs[0].piece for row in shown for trace in row.windows if trace.prefix}
    assert modes == {"<extra_id_99>", "<extra_id_98>"}


def test_the_first_rows_of_a_batch() -> None:
    objective = Objective.create(
        ObjectiveSettings(name="mixture", denoisers=MIXTURE, window_length=24), VOCABULARY
    )
    batch = training_batch(TrainingBatches(SPLIT, objective, 6, 0), 2)
    every = rows_of(batch, VOCABULARY, title="batch 2", seed=0)
    assert rows_of(batch.first_rows(3), VOCABULARY, title="batch 2", seed=0) == every[:3]
    assert len(every) == 6
    assert every[4].title == "Row 4 of batch 2"


def test_a_window_belongs_to_the_corpus_it_begins_in() -> None:
    objective = Objective.create(ObjectiveSettings(window_length=20), VOCABULARY)
    batches = TrainingBatches(SPLIT, objective, 90, 0, shift_windows=False)
    batch = training_batch(batches, 0)
    assert 500 in batch.start
    assert batch.corpus.tolist() == [int(start >= 500) for start in batch.start.tolist()]
