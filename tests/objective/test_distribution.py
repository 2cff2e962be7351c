"""Spans and positions are distributed as t5's own masks are, and as the theory says.

Rows are independent of each other, spans and positions of one row are not: their lengths sum to the noise.
So that every test has the level it claims, a law is tested on one span a row, and positions one at a time
with Bonferroni's correction. Counts of a length over all spans of a row vary less than independent ones
would (a row that has many short spans has fewer left to be short), so that the two-sample test on all of
t5's spans errs on the side of not complaining.
"""

from __future__ import annotations

import json
from math import comb
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare, norm

from t5smith.objective.lengths import Masking, span_lengths
from t5smith.objective.rng import TRAINING, uniforms
from t5smith.objective.spans import draw_spans, draws_needed

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "t5_span_corruption.json").read_text())
STATISTICS = GOLDEN["mask_statistics"]
ROWS = 100_000
P = 0.001


def setting(name):
    """The numbers in a name such as `length=568,density=0.15,mean_span=3.0`."""
    return [float(part.split("=")[1]) for part in name.split(",")]


@pytest.fixture(scope="module", params=STATISTICS)
def drawn(request):
    window, density, mean = setting(request.param)
    lengths = span_lengths(int(window), Masking(density, mean))
    spans = draw_spans(uniforms(0, TRAINING, 0, ROWS, draws_needed(lengths)), lengths)
    noise = (spans.stop - spans.start).reshape(ROWS, lengths.spans)
    before = np.concatenate([np.zeros((ROWS, 1), int), spans.stop.reshape(ROWS, -1)[:, :-1]], axis=1)
    text = spans.start.reshape(ROWS, lengths.spans) - before
    return lengths, spans, {"noise": noise, "nonnoise": text}, STATISTICS[request.param]


def law(total, parts):
    """Probability of each length from 1 of one part, all splits of a total equally likely."""
    ways = comb(total - 1, parts - 1)
    return np.array([comb(total - n - 1, parts - 2) / ways for n in range(1, total)])


def pooled(observed, expected):
    """Both counts with the rare lengths at the end taken together."""
    last = int((expected >= 10).sum()) - 1
    return (np.append(part[:last], part[last:].sum()) for part in (observed, expected))


@pytest.mark.parametrize("kind", ["noise", "nonnoise"])
def test_the_length_of_a_span_has_the_law_of_equally_likely_splits(drawn, kind):
    lengths, _, parts, _ = drawn
    total = lengths.noise if kind == "noise" else lengths.window - lengths.noise
    which = np.random.default_rng(0).integers(0, lengths.spans, ROWS)
    one = parts[kind][np.arange(ROWS), which]
    observed = np.bincount(one, minlength=total)[1:total]
    expected = law(total, lengths.spans) * ROWS
    assert chisquare(*pooled(observed, expected)).pvalue > P


@pytest.mark.parametrize("kind", ["noise", "nonnoise"])
def test_span_lengths_are_those_of_t5(drawn, kind):
    lengths, _, parts, golden = drawn
    theirs_in_all = golden["n_masks"] * lengths.spans
    histogram = golden[f"{kind}_span_length_hist"]
    theirs = np.array([histogram[key] for key in histogram]) * theirs_in_all
    shown = np.array([int(key) for key in histogram])
    ours = np.bincount(parts[kind].reshape(-1), minlength=shown.max() + 1)[shown]
    keep = theirs >= 10
    table = [
        np.append(theirs[keep], theirs_in_all - theirs[keep].sum()),
        np.append(ours[keep], parts[kind].size - ours[keep].sum()),
    ]
    assert chi2_contingency(np.array(table)[:, np.array(table).sum(0) > 0]).pvalue > P


def test_every_position_is_masked_as_often_as_by_t5(drawn):
    lengths, spans, _, golden = drawn
    steps = np.zeros(lengths.window + 1)
    np.add.at(steps, spans.start, 1)
    np.add.at(steps, spans.stop, -1)
    ours, theirs = np.cumsum(steps)[:-1] / ROWS, np.array(golden["position_mask_rate"])
    assert ours[0] == theirs[0] == 0
    assert ours[-1] == theirs[-1] == 1
    ours, theirs = ours[1:-1], theirs[1:-1]
    both = (ours * ROWS + theirs * golden["n_masks"]) / (ROWS + golden["n_masks"])
    spread = np.sqrt(both * (1 - both) * (1 / ROWS + 1 / golden["n_masks"]))
    p = 2 * norm.sf(np.abs(ours - theirs) / spread)
    assert p.min() * len(p) > P


def test_the_tests_would_notice_another_law():
    """Lengths drawn independently, as geometric ones, and a law of splits of one token more."""
    rng = np.random.default_rng(0)
    expected = law(85, 28) * ROWS
    geometric = np.bincount(np.minimum(rng.geometric(28 / 85, ROWS), 84), minlength=85)[1:85]
    assert chisquare(*pooled(geometric, expected)).pvalue < P
    other = np.bincount(rng.choice(np.arange(1, 90), ROWS, p=law(90, 28)), minlength=90)[1:85]
    other[-1] += ROWS - other.sum()
    assert chisquare(*pooled(other, expected)).pvalue < P
