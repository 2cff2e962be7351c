"""Rows that hold several windows: the network treats each as if it were alone."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from programs import batch_loss, encode, forward, init
from t5smith.interop.huggingface_names import from_huggingface
from t5smith.model.config import ModelConfig
from t5smith.model.t5 import Segments, shift_right
from t5smith.objective.batches import Objective, TrainingBatches
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.store.token_store import Split
from t5smith.vocabulary.vocabulary import Vocabulary

DATA = Path(__file__).parents[1] / "data" / "t5x_tiny"
T5X = ModelConfig(32128, 32128, d_model=8, d_kv=3, d_ff=16, num_layers=2, num_decoder_layers=2, num_heads=4)
SMALL = ModelConfig(128, 120, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_decoder_layers=2, num_heads=4)
FIELDS = ("nll", "z", "correct", "tokens")


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "golden.npz") as arrays:
        return {name: jnp.asarray(arrays[name]) for name in arrays if name.startswith("packed")}


def test_packed_logits_are_those_of_t5x(golden):
    p = from_huggingface(load_file(DATA / "model.safetensors"), T5X)
    segments = Segments(golden["packed_encoder_segment_ids"], golden["packed_decoder_segment_ids"])
    decoder_input_ids = shift_right(golden["packed_decoder_target_tokens"], segments)
    real = np.asarray(golden["packed_decoder_target_tokens"]) != 0
    their_input_ids, ours = np.asarray(golden["packed_decoder_input_tokens"]), np.asarray(decoder_input_ids)
    np.testing.assert_array_equal(ours[real], their_input_ids[real])
    logits = forward(p, T5X, golden["packed_encoder_input_tokens"], decoder_input_ids, segments=segments)
    theirs = np.asarray(golden["packed_logits"])
    np.testing.assert_allclose(np.asarray(logits)[real], theirs[real], atol=1e-4, rtol=0)
    apart = forward(p, T5X, golden["packed_encoder_input_tokens"], decoder_input_ids)
    assert np.abs(np.asarray(apart)[real] - theirs[real]).max() > 1e-3, "the segments make a difference"


def pack(windows, size, side):
    """Pieces one after the other in a row, and the number of each position's window."""
    ids = np.zeros((1, size), np.int32)
    numbers = np.zeros((1, size), np.int32)
    at = 0
    for number, window in enumerate(windows, 1):
        ids[0, at : at + len(window[side])] = window[side]
        numbers[0, at : at + len(window[side])] = number
        at += len(window[side])
    return jnp.asarray(ids), jnp.asarray(numbers)


sizes = st.tuples(st.integers(1, 7), st.integers(1, 5))


@settings(max_examples=8)
@given(st.lists(sizes, min_size=1, max_size=4), st.integers(0, 99))
def test_the_loss_of_a_packed_row_is_the_sum_over_its_windows(shapes, seed):
    rng = np.random.default_rng(seed)
    p = init(SMALL, jax.random.key(seed % 3))
    windows = [tuple(rng.integers(2, 120, size) for size in shape) for shape in shapes]
    inputs, input_segments = pack(windows, 30, 0)
    targets, target_segments = pack(windows, 22, 1)
    packed = batch_loss(p, SMALL, inputs, targets, segments=Segments(input_segments, target_segments))
    alone = [batch_loss(p, SMALL, pack([one], 8, 0)[0], pack([one], 6, 1)[0]) for one in windows]
    for name in FIELDS:
        whole = sum(float(getattr(sums, name)) for sums in alone)
        assert float(getattr(packed, name)) == pytest.approx(whole, rel=1e-5, abs=1e-5), name


def test_no_position_depends_on_another_window_of_its_row():
    p = init(SMALL, jax.random.key(0))
    windows = [(np.arange(2, 8), np.arange(30, 34)), (np.arange(10, 15), np.arange(40, 45))]
    inputs, input_segments = pack(windows, 12, 0)
    targets, target_segments = pack(windows, 10, 1)
    segments = Segments(input_segments, target_segments)
    decoder_input_ids = shift_right(targets, segments)
    assert decoder_input_ids[0].tolist() == [0, 30, 31, 32, 0, 40, 41, 42, 43, 0]

    def output(embedding, position):
        q = jax.tree.map(lambda leaf: embedding if leaf is p.embedding else leaf, p)
        return forward(q, SMALL, inputs, decoder_input_ids, segments=segments)[0, position].sum()

    gradient_of = jax.jit(jax.grad(output))
    for position, own, foreign in ((3, windows[0], windows[1]), (8, windows[1], windows[0])):
        gradient = np.abs(np.asarray(gradient_of(p.embedding, position))).sum(-1)
        assert (gradient[own[0]] > 0).all()
        assert (gradient[own[1][:-1]] > 0).all()
        assert (gradient[np.concatenate(foreign)] == 0).all()


def test_encoder_positions_count_from_where_their_window_begins():
    p = init(SMALL, jax.random.key(0))
    window = (np.arange(2, 9), np.arange(30, 33))
    inputs, segments = pack([window, window], 14, 0)
    encoded = encode(p, SMALL, inputs, segments=Segments(segments, segments))
    np.testing.assert_allclose(encoded[0, :7], encoded[0, 7:], atol=1e-5)


@pytest.mark.parametrize("name", ["ul2", "prefix_lm"])
def test_the_loss_of_a_batch_of_an_objective_is_that_of_its_windows(name):
    vocabulary = Vocabulary.bundled()
    objective = Objective.create(ObjectiveSettings(name=name, window_length=24), vocabulary)
    tokens = np.random.default_rng(0).integers(3, 32_000, 2_000).astype(np.uint16)
    batches = TrainingBatches(Split("train", tokens, np.array([2_000]), 0), objective, 4, seed=0)
    config = ModelConfig(
        32_128, 32_100, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_decoder_layers=1, num_heads=2
    )
    p = init(config, jax.random.key(0))
    batch = {key: jnp.asarray(value) for key, value in batches[3].items()}
    segments = Segments(batch["input_segments"], batch["target_segments"])
    assert int(segments.inputs.max()) > 1
    packed = batch_loss(p, config, batch["input_ids"], batch["targets"], segments=segments)
    inputs, targets = [], []
    for row in range(4):
        for number in range(1, int(segments.inputs[row].max()) + 1):
            for ids, numbers, size, into in (
                (batch["input_ids"], segments.inputs, objective.input_length, inputs),
                (batch["targets"], segments.targets, objective.target_length, targets),
            ):
                own = np.asarray(ids[row])[np.asarray(numbers[row]) == number]
                into.append(np.pad(own, (0, size - len(own))))
    alone = batch_loss(p, config, jnp.asarray(np.stack(inputs)), jnp.asarray(np.stack(targets)))
    for field in FIELDS:
        assert float(getattr(packed, field)) == pytest.approx(float(getattr(alone, field)), rel=1e-4), field
