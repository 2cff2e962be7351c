from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5smith.inspection.theory import part_distribution, sum_distribution, theory
from t5smith.objective.denoisers import Denoiser, DenoiserSpec
from t5smith.objective.lengths import SpanLengths
from t5smith.objective.spans import Spans


def splits(total: int, parts: int) -> list[tuple[int, ...]]:
    """Every way to split a total into this number of non-empty parts."""
    cuts = combinations(range(1, total), parts - 1)
    return [tuple(np.diff([0, *chosen, total]).tolist()) for chosen in cuts]


def masks(window: int, noise: int, k: int) -> np.ndarray:
    """Every mask that can be drawn."""
    found = [
        [value for pair in zip(text, spans, strict=True) for value in ([0] * pair[0] + [1] * pair[1])]
        for text, spans in product(splits(window - noise, k), splits(noise, k))
    ]
    return np.array(found, bool)


def span_task(window: int, noise: int, k: int, prefix: int = 0) -> DenoiserSpec:
    lengths = SpanLengths(window, noise, k, window - noise + k + 1, noise + k + 1, k)
    return DenoiserSpec(Denoiser(noise / window, noise / k), (7,) * prefix, window, lengths, noise, True)


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int, int]:
    window = draw(st.integers(2, 11))
    noise = draw(st.integers(1, window - 1))
    return window, noise, draw(st.integers(1, min(noise, window - noise)))


@given(sizes(), st.booleans(), st.integers(0, 2))
def test_lawvalues_are_the_means_over_all_masks(size: tuple[int, int, int], roll: bool, prefix: int) -> None:
    window, noise, k = size
    every = masks(window, noise, k)
    if roll:
        every = np.concatenate([np.roll(every, by, axis=1) for by in range(window)])
    law = theory(span_task(window, noise, k, prefix), roll=roll)
    assert law.masked == pytest.approx(every.mean(axis=0), abs=1e-9)
    joined = (every[:, 1:] & every[:, :-1]).mean(axis=0)
    assert law.joined == pytest.approx(np.append(0.0, joined), abs=1e-9)
    assert law.closing == pytest.approx((~every[:, -1]).mean(), abs=1e-9)
    for counted, which in ((law.span_lengths, every), (law.text_lengths, ~every)):
        runs = Spans.of_masks(which)
        expected = np.bincount(runs.stop - runs.start, minlength=window + 1) / len(every)
        assert counted == pytest.approx(expected, abs=1e-9)
    spans = Spans.of_masks(every)
    assert law.inputs == pytest.approx(prefix + window - noise + len(spans.row) / len(every) + 1)
    assert law.targets == pytest.approx(noise + len(spans.row) / len(every) + law.closing + 1)
    assert (law.noise, law.spans) == pytest.approx((noise, len(spans.row) / len(every)))


@given(st.integers(1, 12), st.data())
def test_sums_of_parts(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    j = data.draw(st.integers(0, k))
    sums = [sum(split[:j]) for split in splits(n, k)]
    assert sum_distribution(n, k, j) == pytest.approx(
        np.bincount(sums, minlength=n + 1) / len(sums), abs=1e-9
    )


def test_the_length_of_a_span_in_t5s_windows() -> None:
    """28 spans of 85 tokens: C(85-l-1, 26) / C(84, 27), by hand for one token: 27 / 84."""
    law = part_distribution(85, 28)
    assert law[1] == pytest.approx(27 / 84)
    assert law @ np.arange(86) == pytest.approx(85 / 28)
    assert law.sum() == pytest.approx(1)


@given(st.integers(2, 12), st.data(), st.booleans())
def test_lawvalues_of_prefix_lm(window: int, data: st.DataObject, eos: bool) -> None:
    task = DenoiserSpec(Denoiser(0.5, None), (), window, None, data.draw(st.integers(1, window - 1)), eos)
    low, high = task.noise_range
    predicted = np.arange(low, high + 1)
    every = np.arange(window) >= (window - predicted)[:, None]
    law = theory(task, roll=False)
    assert law.masked == pytest.approx(every.mean(axis=0), abs=1e-9)
    assert law.joined[1:] == pytest.approx((every[:, 1:] & every[:, :-1]).mean(axis=0), abs=1e-9)
    assert law.span_lengths == pytest.approx(np.bincount(predicted, minlength=window + 1) / len(predicted))
    assert law.text_lengths == pytest.approx(
        np.bincount(window - predicted, minlength=window + 1) / len(predicted)
    )
    assert (law.inputs + law.targets, law.closing) == pytest.approx((window + 2 * eos, 0))
