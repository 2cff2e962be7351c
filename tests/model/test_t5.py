"""The network against T5X's own outputs, and its invariants."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from programs import CPU, CPU_BFLOAT16, XLA, XLA_BFLOAT16, batch_loss, encode, forward, init
from t5smith.interop.huggingface_names import from_huggingface
from t5smith.model.attention.position_bias import relative_position_bucket
from t5smith.model.config import ModelConfig
from t5smith.model.dropout import Dropout
from t5smith.model.loss import token_losses
from t5smith.model.params import is_stacked, parameter_count
from t5smith.model.t5 import decode, mask_padded_rows, run_layers, shift_right

DATA = Path(__file__).parents[1] / "data" / "t5x_tiny"
T5X = ModelConfig(32128, 32128, d_model=8, d_kv=3, d_ff=16, num_layers=2, num_decoder_layers=2, num_heads=4)
SMALL = ModelConfig(256, 210, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_decoder_layers=3, num_heads=4)


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "golden.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def t5x():
    return from_huggingface(load_file(DATA / "model.safetensors"), T5X)


def ids(seed, shape, high=210):
    return jax.random.randint(jax.random.key(seed), shape, 3, high, dtype=jnp.int32)


def test_logits_are_those_of_t5x(golden, t5x):
    ours = forward(
        t5x, T5X, jnp.asarray(golden["encoder_input_tokens"]), jnp.asarray(golden["decoder_input_tokens"])
    )
    # T5X masks padded positions from themselves; their values are meaningless and have no loss.
    real = golden["decoder_target_tokens"] != 0
    np.testing.assert_allclose(np.asarray(ours)[real], golden["logits"][real], atol=1e-4, rtol=0)
    encoded = encode(t5x, T5X, jnp.asarray(golden["encoder_input_tokens"]))
    real = golden["encoder_input_tokens"] != 0
    np.testing.assert_allclose(np.asarray(encoded)[real], golden["encoded"][real], atol=1e-5, rtol=0)


def test_the_loss_is_that_of_t5x(golden, t5x):
    targets = jnp.asarray(golden["decoder_target_tokens"])
    assert (np.asarray(shift_right(targets))[:, :5] == golden["decoder_input_tokens"][:, :5]).all()
    sums = batch_loss(t5x, T5X, jnp.asarray(golden["encoder_input_tokens"]), targets)
    assert float(sums.tokens) == (golden["decoder_target_tokens"] != 0).sum()
    mean = float(sums.nll / sums.tokens)
    assert mean == pytest.approx(float(golden["loss_mean_over_nonpad"]), abs=1e-5)
    assert mean == pytest.approx(10.9365141, abs=1e-5)
    assert float(1e-4 * sums.z) == pytest.approx(float(golden["z_loss_1e4_sum"]), abs=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (32, 64), (16, 128)])
def test_position_buckets_are_those_of_t5x(golden, bidirectional, buckets, distance):
    ours = relative_position_bucket(
        golden["relpos_relative_position"],
        bidirectional=bidirectional,
        num_buckets=buckets,
        max_distance=distance,
    )
    name = f"relpos_bucket_bidirectional{int(bidirectional)}_buckets{buckets}_maxdist{distance}"
    np.testing.assert_array_equal(ours, golden[name])


@pytest.mark.parametrize("compute", [CPU, CPU_BFLOAT16], ids=str)
def test_a_fresh_models_loss_is_ln_v_and_a_half(compute):
    config = ModelConfig(
        4224, 4100, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_decoder_layers=2, num_heads=4
    )
    p = init(config, jax.random.key(0))
    sums = batch_loss(p, config, ids(1, (32, 32), 4100), ids(2, (32, 64), 4100), compute)
    assert float(sums.nll / sums.tokens) == pytest.approx(math.log(4100) + 0.5, abs=0.1)


@pytest.mark.parametrize("gated", [True, False])
def test_every_leaf_of_a_fresh_model_has_its_standard_deviation(gated):
    # Distinct sizes, so that no two of the formulas agree.
    config = ModelConfig(
        3_000,
        2_900,
        d_model=48,
        d_kv=20,
        d_ff=160,
        num_layers=6,
        num_decoder_layers=8,
        num_heads=7,
        gated=gated,
    )
    D, K, F, HK = 48, 20, 160, 140
    expected = {"q": (D * K) ** -0.5, "k": D**-0.5, "v": D**-0.5, "o": HK**-0.5}
    expected |= {"wi_0": D**-0.5, "wi_1": D**-0.5, "wo": F**-0.5}
    expected |= {"embedding": 1.0, "head": D**-0.5, "relative_attention_bias": (2 / (32 + 7)) ** 0.5}
    leaves = jax.tree_util.tree_leaves_with_path(init(config, jax.random.key(0)))
    assert len(leaves) == (29 if gated else 27)
    leaves += jax.tree_util.tree_leaves_with_path(
        init(replace(config, bias_per_layer=True), jax.random.key(0))
    )
    assert leaves[-1][1].shape == (48, 3_000)
    for path, leaf in leaves:
        name = path[-1].name
        if name.endswith("norm"):
            assert (leaf == 1).all(), path
            continue
        # The error of a standard deviation estimated from n normal numbers is about 1 / sqrt(2 n).
        tolerance = 5 / math.sqrt(2 * leaf.size)
        assert float(leaf.std()) == pytest.approx(expected[name], rel=tolerance), path
        assert float(leaf.mean()) == pytest.approx(0, abs=5 * expected[name] / math.sqrt(leaf.size)), path
    bias = init(config, jax.random.key(0)).encoder.relative_attention_bias
    assert float(jnp.abs(bias).max()) <= math.sqrt(3) * expected["relative_attention_bias"]


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_the_position_bias_stops_at_the_maximal_distance(stack):
    """Beyond the configured distance all keys share a bucket: only its bias matters for them."""
    far = replace(SMALL, relative_attention_num_buckets=8, relative_attention_max_distance=12)
    p = init(far, jax.random.key(0))
    last = 3 if stack == "encoder" else 7
    length = 20

    def output(table, config):
        q = replace(p, **{stack: replace(getattr(p, stack), relative_attention_bias=table)})
        if stack == "encoder":
            # The first of 20 tokens, seen from the last.
            return encode(q, config, ids(1, (1, length)))[0, -1]
        encoded = encode(p, far, ids(1, (1, 4)))
        return decode(q, config, encoded, ids(1, (1, 4)), ids(2, (1, length)))[0, -1]

    table = getattr(p, stack).relative_attention_bias
    buckets = relative_position_bucket(
        np.arange(length) - (length - 1), bidirectional=stack == "encoder", num_buckets=8, max_distance=12
    )
    distance = length - 1 - np.arange(length)
    assert (buckets[distance >= 12] == last).all()
    assert (buckets[distance < 5] != last).all()
    near = output(table, replace(far, relative_attention_max_distance=6))
    wide = output(table, replace(far, relative_attention_max_distance=128))
    exact = output(table, far)
    assert float(jnp.abs(exact - near).max()) > 1e-4
    assert float(jnp.abs(exact - wide).max()) > 1e-4


def test_no_target_position_sees_itself_or_later_ones():
    p = init(SMALL, jax.random.key(0))
    inputs, targets = ids(1, (1, 9)), ids(2, (1, 7))
    encoded = encode(p, SMALL, inputs)

    def output(embedding, position):
        return decode(p_with(p, embedding), SMALL, encoded, inputs, targets)[0, position].sum()

    gradient_of = jax.jit(jax.grad(output))
    assert len({*np.asarray(targets)[0].tolist()}) == 7
    for position in range(7):
        gradient = np.asarray(gradient_of(p.embedding, position))
        seen = np.abs(gradient[np.asarray(targets)[0]]).sum(-1) > 0
        np.testing.assert_array_equal(seen, np.arange(7) <= position)


def p_with(p, embedding):
    leaves, structure = jax.tree.flatten(p)
    where = next(i for i, leaf in enumerate(leaves) if leaf is p.embedding)
    return jax.tree.unflatten(structure, [*leaves[:where], embedding, *leaves[where + 1 :]])


def test_padding_of_the_inputs_changes_nothing():
    p = init(SMALL, jax.random.key(0))
    inputs, targets = ids(1, (2, 9)), ids(2, (2, 7))
    padded = jnp.pad(inputs, ((0, 0), (0, 5)))
    np.testing.assert_allclose(
        forward(p, SMALL, inputs, targets), forward(p, SMALL, padded, targets), atol=1e-5
    )


def test_padding_of_the_targets_changes_no_loss():
    p = init(SMALL, jax.random.key(0))
    inputs, targets = ids(1, (2, 9)), ids(2, (2, 7))
    plain = batch_loss(p, SMALL, inputs, targets)
    padded = batch_loss(p, SMALL, inputs, jnp.pad(targets, ((0, 0), (0, 4))))
    np.testing.assert_allclose(plain.nll, padded.nll, rtol=1e-6)
    assert float(plain.tokens) == float(padded.tokens) == 14


def test_the_loss_of_a_batch_is_the_sum_over_its_parts():
    p = init(SMALL, jax.random.key(0))
    inputs, targets = ids(1, (4, 9)), ids(2, (4, 7))
    whole = batch_loss(p, SMALL, inputs, targets)
    parts = [batch_loss(p, SMALL, inputs[i : i + 2], targets[i : i + 2]) for i in (0, 2)]
    for name in ("objective", "nll", "z", "correct", "tokens"):
        np.testing.assert_allclose(
            getattr(whole, name), getattr(parts[0], name) + getattr(parts[1], name), rtol=1e-6
        )


def test_rows_above_the_real_vocabulary_have_no_probability():
    scores = jax.random.normal(jax.random.key(0), (3, SMALL.vocab_size))
    masked = mask_padded_rows(scores, SMALL)
    assert float(jax.nn.softmax(masked)[:, SMALL.real_vocab_size :].sum()) == 0
    np.testing.assert_array_equal(masked[:, : SMALL.real_vocab_size], scores[:, : SMALL.real_vocab_size])


def test_token_losses_are_cross_entropy():
    scores = jnp.array([[1.0, 2.0, 0.5], [3.0, 0.0, 0.0]])
    nll, log_z, correct = token_losses(scores, jnp.array([1, 2]))
    by_hand = [[math.exp(x) for x in row] for row in scores.tolist()]
    expected = [-math.log(by_hand[0][1] / sum(by_hand[0])), -math.log(by_hand[1][2] / sum(by_hand[1]))]
    np.testing.assert_allclose(nll, expected, rtol=1e-6)
    np.testing.assert_allclose(log_z, [math.log(sum(row)) for row in by_hand], rtol=1e-6)
    np.testing.assert_array_equal(correct, [1.0, 0.0])


@pytest.mark.parametrize("computes", [(CPU, CPU_BFLOAT16), (XLA, XLA_BFLOAT16)], ids=str)
def test_bfloat16_gradients_point_where_float32s_do(computes):
    p = init(SMALL, jax.random.key(0))
    inputs, targets = ids(1, (4, 16)), ids(2, (4, 8))

    def gradient(compute):
        tree = jax.jit(jax.grad(lambda q: batch_loss(q, SMALL, inputs, targets, compute).objective))(p)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(tree))
        return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])

    exact, rough = map(gradient, computes)
    assert exact @ rough / np.linalg.norm(exact) / np.linalg.norm(rough) > 0.999


def test_parameter_count_and_stacking():
    p = init(SMALL, jax.random.key(0))
    D, HK, F, V = 32, 32, 64, 256
    encoder = 2 * (4 * D * HK + 3 * D * F + 2 * D)
    decoder = 3 * (8 * D * HK + 3 * D * F + 3 * D)
    assert parameter_count(p) == 2 * V * D + encoder + decoder + 2 * 32 * 4 + 2 * D
    stacked = is_stacked(p)
    assert stacked.encoder.layers.self_attention.q
    assert not stacked.embedding
    assert not stacked.decoder.final_norm


def test_each_layer_drops_other_values():
    """Of three layers that each add 1 to every value, where it is not dropped."""

    def run_layer(x, scanned):
        ones, dropout = scanned
        return x + dropout(jnp.broadcast_to(ones, x.shape)), None

    x = jnp.zeros((8, 8))
    y = run_layers(run_layer, x, jnp.ones(3), 3, Dropout(jax.random.key(0), 0.5), "none", CPU)
    # A value that is kept is doubled.
    assert set(np.unique(y).tolist()) == {0.0, 2.0, 4.0, 6.0}
