import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5smith.inspection.batch import training_batch
from t5smith.inspection.statistics import Statistics, count, synthetic_batches
from t5smith.inspection.views.json_tree import statistics_json
from t5smith.inspection.views.plot import binned, picture
from t5smith.inspection.views.tables import groups, statistics_tables
from t5smith.objective.batches import TrainingBatches
from t5smith.objective.objective import Objective
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.store.token_store import Corpus, Split
from t5smith.vocabulary.vocabulary import Vocabulary

VOCABULARY = Vocabulary.bundled()
MIXTURE = ("0.3 2 2 <extra_id_99>", "0.5 4 1", "0.25 prefix 1 <extra_id_98>")


def counted(objective: ObjectiveSettings, batches: int = 3, size: int = 8, seed: int = 0) -> Statistics:
    plan = synthetic_batches(objective, size, seed)
    found = ((training_batch(plan, b), None) for b in range(batches))
    return count(found, plan.objective, source="synthetic windows", documents=False)


@given(
    st.integers(8, 60),
    st.sampled_from([0.15, 0.5]),
    st.sampled_from([1.0, 3.0]),
    st.booleans(),
    st.integers(0, 9),
)
@settings(max_examples=15)
def test_counts_agree_with_each_other(
    window: int, density: float, mean: float, roll: bool, seed: int
) -> None:
    stats = counted(
        ObjectiveSettings(
            window_length=window, noise_density=density, mean_noise_span_length=mean, roll=roll
        ),
        seed=seed,
    )
    (counts,) = stats.denoisers
    sizes = np.arange(window + 1)
    assert counts.noise == counts.span_lengths @ sizes == round(counts.windows * counts.theory.noise)
    assert counts.text_lengths @ sizes + counts.noise == counts.windows * window
    lengths = counts.task.lengths
    assert lengths is not None
    assert counts.targets == counts.noise + counts.spans + counts.closing + counts.windows
    assert counts.inputs == counts.windows * (window + 1) - counts.noise + counts.spans
    assert counts.sentinels <= lengths.sentinels
    if not roll:
        assert (counts.spans, counts.closing) == (counts.windows * lengths.spans, 0)


@pytest.mark.parametrize(
    "objective",
    [
        ObjectiveSettings(input_length=64, noise_density=0.3),
        ObjectiveSettings(window_length=40, roll=True),
        ObjectiveSettings(name="prefix_lm", window_length=60),
        ObjectiveSettings(name="mixture", denoisers=MIXTURE, window_length=40),
    ],
    ids=["spans", "rolled", "prefix_lm", "mixture"],
)
def test_counts_agree_with_theory(objective: ObjectiveSettings) -> None:
    """Fixed seeds: each share lies within five of its standard errors."""
    stats = counted(objective, batches=25, size=16)
    for counts in stats.denoisers:
        law = counts.theory
        assert counts.windows / stats.windows == pytest.approx(counts.share, abs=0.02)
        error = np.sqrt(law.masked * (1 - law.masked) / counts.windows)
        assert (np.abs(counts.masked / counts.windows - law.masked) <= 5 * error + 1e-9).all()
        for found, expected in (
            (counts.span_lengths, law.span_lengths),
            (counts.text_lengths, law.text_lengths),
        ):
            # Spans of one window are nearly independent.
            error = np.sqrt(np.maximum(expected, 1e-12) / counts.windows)
            assert (np.abs(found / counts.windows - expected) <= 6 * error + 1e-9).all()
        assert counts.inputs / counts.windows == pytest.approx(law.inputs, rel=0.03)
        assert counts.targets / counts.windows == pytest.approx(law.targets, rel=0.03)


def test_ends_of_documents_are_counted_by_hand() -> None:
    """Documents of 10 tokens in windows of 20: each window has an end in the middle."""
    tokens = np.tile(np.append(np.arange(100, 109), VOCABULARY.eos_id), 200).astype("<u2")
    split = Split(
        "train", tokens, np.arange(10, 2001, 10), 1, (Corpus("a", 0, 1000), Corpus("b", 1000, 2000))
    )
    settings = ObjectiveSettings(window_length=20, noise_density=0.5)
    objective = Objective.create(settings, VOCABULARY)
    batches = TrainingBatches(split, objective, 8, 0, shift_windows=False, weights=[3.0, 1.0])
    stats = count(
        ((training_batch(batches, b), None) for b in range(50)),
        objective,
        source="x",
        corpora=[("a", 0.75), ("b", 0.25)],
    )
    (counts,) = stats.denoisers
    assert counts.ends == stats.windows == 400
    masks = [training_batch(batches, b) for b in range(50)]
    crossed = 0
    for batch in masks:
        for targets in batch.arrays["targets"]:
            # The end of a document, and in the targets right after it the word that follows it.
            crossed += int(((targets[:-1] == VOCABULARY.eos_id) & (targets[1:] == 100)).sum())
    assert counts.ends_in_spans == counts.crossing == crossed
    expected = counts.theory.joined[10] * 400
    assert counts.ends_expected == pytest.approx(expected)
    assert abs(crossed - expected) < 5 * np.sqrt(expected)
    by_name = {name: windows for name, windows, _ in stats.corpora}
    assert by_name["a"] + by_name["b"] == 400
    assert by_name["a"] == pytest.approx(300, abs=40)
    kept = ObjectiveSettings(window_length=20, noise_density=0.5, cross_documents=False)
    within = TrainingBatches(split, Objective.create(kept, VOCABULARY), 8, 0, shift_windows=False)
    assert count([(training_batch(within, 0), None)], within.objective, source="x").denoisers[0].crossing == 0


def test_tables_show_the_counts() -> None:
    stats = counted(ObjectiveSettings(input_length=64))
    found = {
        table.title: {line[0]: line[1:] for line in table.lines}
        for table in statistics_tables(stats, full=False)
    }
    (counts,) = stats.denoisers
    assert found["Statistics"]["spans per window"] == ("3.00", "3.00")
    assert found["Statistics"]["most sentinels in one window's targets"] == ("3 of 100", "")
    assert found["Length of spans"]["1"][0] == f"{counts.span_lengths[1]:,}"
    assert {"Length of text between spans", "Masked by position in the window"} <= found.keys()
    mixture = counted(ObjectiveSettings(name="mixture", denoisers=MIXTURE, window_length=40))
    short, full = statistics_tables(mixture, full=False), statistics_tables(mixture, full=True)
    assert [table.title for table in short] == ["Statistics", "Denoisers"]
    assert len(full) == 2 + 3 * 3
    assert {table.note for table in full[2:]} == {task.denoiser.title for task in mixture.objective.denoisers}


def test_padding_is_counted() -> None:
    stats = counted(ObjectiveSettings(name="mixture", denoisers=MIXTURE, window_length=40), batches=4)
    plan = synthetic_batches(ObjectiveSettings(name="mixture", denoisers=MIXTURE, window_length=40), 8, 0)
    used = sum(int((plan[b]["input_ids"] != 0).sum()) for b in range(4))
    assert sum(counts.inputs for counts in stats.denoisers) == used
    assert stats.rows * stats.input_length == sum(plan[b]["input_ids"].size for b in range(4))


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60), st.integers(0, 3))
def test_lengths_are_grouped_without_gaps(counts: list[int], seed: int) -> None:
    seen = np.array(counts)
    law = np.random.default_rng(seed).random(len(counts))
    found = groups(seen, law)
    assert len(found) <= 12
    assert [last + 1 for _, last in found[:-1]] == [first for first, _ in found[1:]]
    assert sum(seen[first : last + 1].sum() for first, last in found) == seen.sum()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.integers(1, 40))
def test_binning_keeps_the_mean(values: list[float], most: int) -> None:
    first, means = binned(np.array(values), most)
    assert len(first) <= most
    assert means @ np.diff(np.append(first, len(values))) == pytest.approx(sum(values))


def test_the_same_counts_draw_the_same_picture() -> None:
    stats = counted(ObjectiveSettings(name="mixture", denoisers=MIXTURE, window_length=40))
    light = picture(stats, scale=0.5)
    assert light.startswith(b"\x89PNG")
    assert light == picture(stats, scale=0.5)
    assert light != picture(stats, scale=0.5, dark=True)
    for kind, begins in (("svg", b"<?xml"), ("pdf", b"%PDF-")):
        assert picture(stats, kind).startswith(begins)
        assert picture(stats, kind) == picture(stats, kind)


def test_json_has_counts_and_theory() -> None:
    stats = counted(ObjectiveSettings(input_length=64))
    tree = statistics_json(stats)
    (one,) = tree["denoisers"]
    assert (tree["windows"], tree["loss"]) == (24, None)
    assert len(one["masked"]) == len(one["theory"]["masked"]) == tree["window_length"]
    assert sum(one["span_lengths"]) == 24 * 3
