"""The benchmark of corruption measures two things that do the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5smith.benchmarking.corrupt import bench_corrupt
from t5smith.benchmarking.peer import corrupt_batch, corrupt_row, draw_mask
from t5smith.cli.main import main
from t5smith.objective.corruption import corrupt
from t5smith.objective.lengths import Masking, span_lengths
from t5smith.objective.spans import Spans

SENTINELS = np.arange(999, 899, -1, dtype=np.int32)
EOS, PAD = 1, 0
settings_of_lengths = st.builds(
    span_lengths, st.integers(2, 300), st.builds(Masking, st.floats(0.05, 0.5), st.floats(1.5, 20))
)


@given(settings_of_lengths.filter(lambda lengths: lengths.spans < 100), st.integers(0, 99))
def test_the_peer_makes_the_same_arrays_of_the_same_masks(lengths, seed):
    rng = np.random.default_rng(seed)
    windows = rng.integers(2, 900, (3, lengths.window), np.int32)
    masks = np.stack([draw_mask(rng, lengths) for _ in windows])
    assert (masks.sum(1) == lengths.noise).all()
    inputs, targets = corrupt(
        windows,
        Spans.of_masks(masks),
        sentinel_ids=SENTINELS,
        eos_id=EOS,
        pad_id=PAD,
        input_length=lengths.inputs,
        target_length=lengths.targets,
    )
    for row in range(3):
        theirs = corrupt_row(windows[row], masks[row], SENTINELS, EOS)
        np.testing.assert_array_equal(inputs[row], theirs[0])
        np.testing.assert_array_equal(targets[row], theirs[1])


def test_the_peer_makes_batches_of_the_same_shape():
    lengths = span_lengths(50, Masking(0.15, 3.0))
    windows = np.arange(2, 202, dtype=np.int32).reshape(4, 50)
    inputs, targets = corrupt_batch(np.random.default_rng(0), windows, lengths, SENTINELS, EOS)
    assert inputs.shape == (4, lengths.inputs)
    assert targets.shape == (4, lengths.targets)
    assert inputs.dtype == targets.dtype == np.int32
    assert len(np.unique(np.isin(inputs, SENTINELS), axis=0)) > 1


def test_figures_match_the_settings():
    facts = bench_corrupt(batch=2, input_length=64, seconds=0.01, repeats=1)
    assert (facts["batch"], facts["window"], facts["input_length"]) == (2, 70, 64)
    assert facts["ratio"] == pytest.approx(
        facts["tokens_per_second"] / facts["peer_tokens_per_second"], abs=0.01
    )


def test_the_command_prints_json_or_a_table(capsys):
    flags = ["--batch", "2", "--input-length", "64", "--seconds", "0.01", "--repeats", "1"]
    assert main(["bench", "corrupt", *flags, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"tokens_per_second", "batch", "window", "peer_tokens_per_second"} <= facts.keys()
    assert main(["bench", "corrupt", *flags]) == 0
    table = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert table["window"] == "70"


def test_help_names_the_parts(capsys):
    assert main(["bench"]) == 0
    out = capsys.readouterr().out
    assert "corrupt" in out
    assert "input" in out


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["nothing"], "one of corrupt, input"),
        (["corrupt", "--batch", "0"], "--batch"),
        (["corrupt", "--input-length", "4096"], "sentinels"),
        (["corrupt", "--noise-density", "1.5"], "noise_density"),
        (["input", "--objective", "bert"], "ul2"),
        (["input", "--corpora", "0"], "--corpora"),
        (["input", "--store", "nowhere"], "nowhere"),
    ],
)
def test_invalid_flags_are_one_line(args, named, capsys):
    assert main(["bench", *args]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
