"""Lengths against t5's own tables, and for every setting."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5smith.base.errors import T5smithError
from t5smith.objective.denoisers import resolve_lengths
from t5smith.objective.lengths import Masking, check_sentinels, lengths_for_inputs, span_lengths
from t5smith.recipe.objective import ObjectiveSettings

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "t5_span_corruption.json").read_text())

# (inputs_length, noise_density, mean_noise_span_length) of every row where we mean to differ from t5.
NO_SPAN_CLAMP = (
    "t5 rounds to zero spans: no sentinel in the inputs, so it counts one position less than a masked "
    "window needs; we always have a span"
)
HALF_DENSITY = "t5 shortens the window by one if targets would be longer than inputs at density .5; we do not"
DIFFERENT = {
    **{(8, 0.15, mean): NO_SPAN_CLAMP for mean in (3.0, 8.0, 12.0, 20.0)},
    **{(16, 0.15, mean): NO_SPAN_CLAMP for mean in (8.0, 12.0, 20.0)},
    **{(length, 0.25, 64.0): NO_SPAN_CLAMP for length in (8, 16, 64)},
    **{(length, 0.5, 3.0): HALF_DENSITY for length in (8, 16, 64, 128, 256, 384, 512, 568, 1024, 2048)},
    **{(length, 0.5, 8.0): HALF_DENSITY for length in (16, 128, 256, 1024, 2048)},
}


@pytest.mark.parametrize("row", GOLDEN["random_spans_helper"])
def test_lengths_are_those_of_t5(row):
    setting = row["inputs_length"], row["noise_density"], row["mean_noise_span_length"]
    ours = lengths_for_inputs(setting[0], Masking(*setting[1:]))
    theirs = row["tokens_length"], row["targets_length"]
    if setting not in DIFFERENT:
        assert (ours.window, ours.targets) == theirs
    elif DIFFERENT[setting] == HALF_DENSITY:
        assert (ours.window - 1, ours.targets - 1) == theirs
    else:
        # Without the clamp t5 has no span here.
        window, density, mean = theirs[0], setting[1], setting[2]
        assert round(round(window * density) / mean) == 0
        assert (ours.window, ours.targets) != theirs


@pytest.mark.parametrize(
    "row",
    [r for r in GOLDEN["random_spans_noise_mask"] if r["length"] >= 2 and 0 < r["noise_density"] < 1],
)
def test_noise_and_span_counts_are_those_of_t5s_masks(row):
    ours = span_lengths(row["length"], Masking(row["noise_density"], row["mean_noise_span_length"]))
    assert (ours.noise, ours.spans) == (row["num_noise"], row["num_spans"])


@pytest.mark.parametrize(
    ("inputs", "window", "targets"), [(512, 568, 114), (1024, 1137, 229), (2048, 2274, 456)]
)
def test_the_published_lengths(inputs, window, targets):
    lengths = lengths_for_inputs(inputs, Masking(0.15, 3.0))
    assert (lengths.window, lengths.inputs, lengths.targets) == (window, inputs, targets)


densities = st.floats(0.01, 0.99)
means = st.floats(1, 64)


maskings = st.builds(
    Masking, densities, means, roll=st.booleans(), eos=st.booleans(), prefix=st.integers(0, 3)
)


@given(st.integers(2, 4096), maskings)
def test_every_span_has_a_token_and_text_before_it(window, masking):
    lengths = span_lengths(window, masking)
    assert 1 <= lengths.spans <= lengths.noise < window
    assert lengths.spans <= window - lengths.noise
    assert lengths.sentinels == lengths.spans + masking.roll
    assert lengths.inputs == masking.prefix + window - lengths.noise + lengths.sentinels + masking.eos
    assert lengths.targets == lengths.noise + lengths.sentinels + masking.eos


@given(st.integers(2, 4096), maskings)
def test_inputs_never_shrink_as_the_window_grows(window, masking):
    assert span_lengths(window, masking).inputs <= span_lengths(window + 1, masking).inputs


@given(st.integers(7, 600), maskings)
def test_the_window_is_the_largest_that_fits(inputs, masking):
    lengths = lengths_for_inputs(inputs, masking)
    assert lengths.inputs <= inputs
    assert span_lengths(lengths.window + 1, masking).inputs > inputs


@pytest.mark.parametrize(
    ("window", "density", "mean", "named"),
    [(1, 0.15, 3.0, "2 tokens"), (8, 0.0, 3.0, "density"), (8, 1.0, 3.0, "density"), (8, 0.5, 0.5, "mean")],
)
def test_settings_out_of_range_are_an_error(window, density, mean, named):
    with pytest.raises(T5smithError, match=named):
        span_lengths(window, Masking(density, mean))


def test_inputs_too_short_for_any_window_are_an_error():
    with pytest.raises(T5smithError, match="at least 3"):
        lengths_for_inputs(2, Masking(0.15, 3.0))
    with pytest.raises(T5smithError, match="Lower the density"):
        lengths_for_inputs(3, Masking(0.9999999, 1e9))


def test_too_few_sentinels_is_an_error_with_a_setting_that_works():
    masking = Masking(0.15, 3.0)
    lengths = lengths_for_inputs(2048, masking)
    with pytest.raises(T5smithError, match="114 masked spans but the vocabulary has 100 sentinels") as caught:
        check_sentinels(lengths, 100, masking, fixed="input_length")
    mean = float(str(caught.value).split("mean_noise_span_length of ")[1].split()[0])
    longer = Masking(0.15, mean)
    check_sentinels(lengths_for_inputs(2048, longer), 100, longer, fixed="input_length")


SUGGESTION = re.compile(r"mean_noise_span_length of ([0-9.]+) or more")


@pytest.mark.parametrize("fixed", ["input_length", "window_length"])
@pytest.mark.parametrize("roll", [False, True])
@pytest.mark.parametrize("density", [0.05, 0.1, 0.15, 0.25, 0.3, 0.5, 0.65, 0.8, 0.9])
def test_every_setting_works_or_the_message_has_one_that_does(density, roll, fixed):
    """Density .05 to .9, mean span 1 to 64, length 8 to 4,096: the whole grid, and every suggestion tried."""

    def lengths_of(length, mean):
        setting = ObjectiveSettings(
            noise_density=density, mean_noise_span_length=mean, roll=roll, **{fixed: length}
        )
        (task,) = resolve_lengths(setting, 100, [()])
        return task.lengths

    errors = 0
    for length in (8, 9, 16, 31, 64, 100, 128, 255, 256, 512, 568, 1000, 1024, 2048, 3000, 4095, 4096):
        for mean in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.5, 8.0, 12.0, 20.0, 33.3, 48.0, 64.0):
            try:
                lengths = lengths_of(length, mean)
            except T5smithError as error:
                errors += 1
                suggested = float(SUGGESTION.search(str(error))[1])
                assert suggested > mean
                for longer in (suggested, suggested + 0.1, 2 * suggested):
                    assert lengths_of(length, longer).sentinels <= 100
                continue
            assert lengths.sentinels <= 100
            assert getattr(lengths, fixed.removesuffix("_length").replace("input", "inputs")) <= length
    assert errors or density < 0.1


def test_a_vocabulary_with_too_few_sentinels_for_any_span_is_an_error():
    masking = Masking(0.15, 3.0, roll=True)
    with pytest.raises(T5smithError, match="vocabulary with 2 sentinels"):
        check_sentinels(span_lengths(8, masking), 1, masking, fixed="window_length")


def test_the_published_helper_and_mask_disagree_where_the_docs_say():
    """The claims of docs/objective.md on the Flax script, whose rule is written down here in our words."""

    def counts(window, density, mean, clamped):
        noise = round(window * density)
        if clamped:
            noise = min(max(noise, 1), window - 1)
        spans = round(noise / mean)
        spans = max(spans, 1) if clamped else spans
        return window - noise + spans + 1, noise + spans + 1

    def helper(inputs, density, mean):
        window = inputs
        while counts(window + 1, density, mean, clamped=False)[0] <= inputs:
            window += 1
        targets = counts(window, density, mean, clamped=False)[1]
        shorter = density == 0.5 and targets > inputs
        return window - shorter, targets - shorter

    def raises(inputs, density, mean):
        window, targets = helper(inputs, density, mean)
        return counts(window, density, mean, clamped=True) != (inputs, targets)

    errors = [inputs for inputs in range(8, 2049) if raises(inputs, 0.5, 3)]
    assert (len(errors), errors[0]) == (255, 11)
    assert raises(8, 0.15, 3)
    assert counts(helper(8, 0.15, 3)[0], 0.15, 3, clamped=True)[0] == 9
    assert not raises(512, 0.15, 3)
    different = [
        n for n in range(2, 4097) if round(n * 0.15) != round(float(np.float32(n) * np.float32(0.15)))
    ]
    assert (len(different), different[0]) == (39, 190)
