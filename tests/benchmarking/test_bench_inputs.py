"""The benchmark of the input pipeline reads what training reads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from programs import CPU
from t5smith.benchmarking import inputs
from t5smith.benchmarking.inputs import BASE, bench_input
from t5smith.model.config import ModelConfig
from t5smith.model.flops import forward_flops, step_flops
from t5smith.model.params import init
from t5smith.model.t5 import forward


@pytest.mark.parametrize("objective", ["span_corruption", "prefix_lm", "ul2"])
def test_figures_match_the_settings(objective, monkeypatch):
    monkeypatch.setattr(inputs, "TOKENS", 200_000)
    facts = bench_input(objective=objective, batch=2, corpora=2, seconds=0.01, repeats=1)
    window = 568 if objective == "span_corruption" else 512
    assert (facts["batch"], facts["window"], facts["corpora"]) == (2, window, 2)
    assert facts["real_token_share"] > 0.95
    assert facts["tokens_per_second"] == pytest.approx(
        facts["batches_per_second"] * 2 * facts["windows_per_row"] * window, rel=0.02
    )


def test_a_store_of_a_run_is_read(prepared):
    facts = bench_input(store=prepared, batch=2, seconds=0.01, repeats=1)
    assert facts["window"] == 568
    assert bench_input(store=prepared / "store", batch=2, seconds=0.01, repeats=1)["window"] == 568


@pytest.mark.slow
def test_flops_are_those_xla_counts():
    config = ModelConfig(
        512, 500, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_decoder_layers=3, num_heads=4
    )
    p = init(config, jax.random.key(0))
    # One row, for XLA counts what is done in a loop over rows once.
    ids = jnp.ones((1, 48), jnp.int32)
    compiled = jax.jit(lambda p, a, b: forward(p, config, a, b, CPU)).lower(p, ids, ids[:, :16]).compile()
    counted = forward_flops(config, 1, 48, 16)
    # XLA also counts norms, softmax and gelu, one operation an element.
    assert counted < compiled.cost_analysis()["flops"] < 1.1 * counted


def test_a_step_of_t5_v1_1_base_is_counted_by_hand():
    config = ModelConfig.create(BASE, 32_100)
    dense_encoder = 512 * 12 * (4 * 768 * 768 + 3 * 768 * 2048)
    dense_decoder = 12 * (114 * (6 * 768 * 768 + 3 * 768 * 2048) + 512 * 2 * 768 * 768)
    attention = 12 * 2 * 768 * (512 * 512 + 114 * 114 + 114 * 512)
    head = 114 * 768 * config.vocab_size
    by_hand = 3 * 2 * 128 * (dense_encoder + dense_decoder + attention + head)
    assert step_flops(config, 128, 512, 114) == by_hand
