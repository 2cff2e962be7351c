"""The parts of a step: complete, counted as the step is, and the same in the table and as JSON."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from programs import CPU, init
from t5smith.benchmarking import inputs, parts, training
from t5smith.benchmarking.parts_table import NAMES, show
from t5smith.cli.main import main
from t5smith.model.config import ModelConfig
from t5smith.model.flops import forward_flops_by_part, step_flops, step_flops_by_part
from t5smith.model.params import Attention, FeedForward
from t5smith.parallel import hardware
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
from t5smith.training import muon
from t5smith.training.optimizer import create_optimizer
from t5smith.training.schedule import create_schedule
from t5smith.training.state import fresh_state
from t5smith.training.step import StepSettings

TINY = ModelSettings(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2)
WIDE = ModelConfig(256, 250, d_model=64, d_kv=32, d_ff=128, num_layers=2, num_decoder_layers=3, num_heads=4)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Matrices:
    """The matrices of a layer, without its norms."""

    self_attention: Attention
    feed_forward: FeedForward


@pytest.fixture(scope="module", autouse=True)
def fast():
    """What is measured does not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "REPEATS", 1)
        patch.setattr(parts, "SECONDS", 0.0)
        patch.setattr(parts, "INPUT_SECONDS", 0.001)
        for module in (parts, training, hardware):
            patch.setattr(module, "measured_bandwidth", lambda: 1e10)
            patch.setattr(module, "measured_tflops", lambda dtype: 0.25)
        patch.setattr(inputs, "FEWEST_TOKENS", 20_000)
        patch.setitem(training.SIZES, "tiny", TINY)
        patch.setattr(training, "VOCABULARY", 300)
        patch.setattr(training, "_no_compilation_cache", contextlib.nullcontext)
        yield


@pytest.fixture(scope="module")
def facts():
    """Of a step in two parts with the optimizer that has products of its own."""
    options = {"optimizer": "muon_adafactor", "gradient_accumulation": 2}
    return training.bench_train("tiny", 4, "float32", 16, 8, repeats=1, **options)


@pytest.mark.slow
def test_figures_are_consistent(facts):
    assert facts["tokens_per_second"] == pytest.approx(4 * 24 / facts["seconds_per_step"], rel=0.01)
    flops = step_flops(ModelConfig.create(TINY, 300), 4, 16, 8)
    assert facts["measured_tflops"] == facts["peak_tflops"] == 0.25
    expected = flops / facts["seconds_per_step"] / 0.25e12
    assert facts["mfu"] == pytest.approx(expected, rel=0.05, abs=1e-4)
    assert facts["compile_seconds"] > 0
    assert facts["peak_memory_bytes"] > 1e6


def test_all_parts_are_there_and_add_up(facts):
    found, step = facts["parts"], facts["seconds_per_step"]
    assert list(found) == list(NAMES)
    for part in found.values():
        assert part["seconds"] >= 0
        assert part["share"] == pytest.approx(part["seconds"] / step, rel=2e-3, abs=1e-4)
    timed = sum(found[name]["seconds"] for name in ("products", "attention", "head_and_loss", "optimizer"))
    assert found["everything_else"]["seconds"] == pytest.approx(max(0, step - timed), abs=2e-6)
    waited = found["waiting"]["batch_seconds"] - step
    assert found["waiting"]["seconds"] == pytest.approx(max(0, waited), abs=2e-6)


def test_limits_follow_from_operations_and_bytes(facts):
    found, config = facts["parts"], ModelConfig.create(TINY, 300)
    names = ("products", "attention", "head_and_loss")
    assert sum(found[name]["flops"] for name in names) == step_flops(config, 4, 16, 8)
    for name in names:
        expected = found[name]["flops"] / (facts["measured_tflops"] * 1e12)
        assert found[name]["limit_seconds"] == pytest.approx(expected, abs=1e-9)
    schedule = create_schedule(ScheduleSettings(name="constant"), 1e-3, 10)
    settings = OptimizerSettings(name="muon_adafactor")
    optimizer = create_optimizer(settings, schedule, config.num_heads, CPU.backend)
    state = jax.eval_shape(lambda: fresh_state(config, optimizer, jax.random.key(0)))
    # The gradient is read, the state is read and written; all numbers have four bytes.
    numbers = facts["parameters"] + 2 * sum(leaf.size for leaf in jax.tree.leaves(state))
    update = found["optimizer"]
    assert update["bytes"] == 4 * numbers
    flops = muon.muon_flops(state.parameters, config.num_heads)
    assert update["update_flops"] == flops
    assert update["limit_seconds"] == pytest.approx(4 * numbers / 1e10 + flops / 0.25e12, abs=1e-9)


def test_parts_of_the_operations_are_counted_by_hand():
    config, B, S, T = WIDE, 3, 10, 7
    D, HK, F = 64, 128, 128
    found = forward_flops_by_part(config, B, S, T)
    dense = 2 * S * (4 * D * HK + 3 * D * F) + 3 * (T * (6 * D * HK + 3 * D * F) + S * 2 * D * HK)
    assert found.dense == 2 * B * dense
    assert found.attention == 2 * B * 2 * HK * (2 * S * S + 3 * (T * T + T * S))
    assert found.head == 2 * B * T * D * 256


def test_xla_counts_the_operations_of_each_part(monkeypatch):
    """So none is left out of what is timed, nor computed twice without need."""
    B, S, T = 1, 64, 24  # one row, for XLA counts what is done in a loop over rows once
    ids = np.random.default_rng(0)
    trial = SimpleNamespace(
        config=WIDE,
        step_settings=StepSettings(CPU),
        state=SimpleNamespace(parameters=init(WIDE, jax.random.key(0))),
        batch={"input_ids": ids.integers(3, 250, (B, S), np.int32), "targets": ids.integers(3, 250, (B, T))},
    )
    trial.batch["targets"] = trial.batch["targets"].astype(np.int32)

    def counted(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]

    monkeypatch.setattr(parts, "_seconds", counted)
    flops = step_flops_by_part(WIDE, B, S, T)
    assert flops.dense <= parts._products_seconds(trial, B) < 1.03 * flops.dense
    assert flops.attention <= parts._attention_seconds(trial, B) < 1.4 * flops.attention
    assert flops.head <= parts._head_seconds(trial, B) < 1.3 * flops.head
    # With remat layers are in a loop: one layer of each stack is counted, and most of its products twice.
    trial.step_settings = StepSettings(CPU, remat="full")
    once = step_flops_by_part(replace(WIDE, num_layers=1, num_decoder_layers=1), B, S, T).dense
    assert 1.15 * once < parts._products_seconds(trial, B) < 4 / 3 * once


def test_xla_counts_the_operations_of_muon(monkeypatch):
    monkeypatch.setattr(muon, "ELEMENTS_AT_ONCE", {})
    # Large enough that what XLA counts besides products is little.
    config = replace(WIDE, d_model=128, d_kv=128, d_ff=256, num_layers=1, num_decoder_layers=1, num_heads=2)
    layers = init(config, jax.random.key(0)).encoder.layers
    optimizer = muon.muon(config.num_heads, CPU.backend)
    matrices = Matrices(layers.self_attention, layers.feed_forward)

    def update(matrices):
        return optimizer.update(matrices, optimizer.init(matrices), applied=jnp.asarray(True))[0]

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = jax.jit(update).lower(matrices).compile().cost_analysis()["flops"]
    expected = muon.muon_flops(layers, config.num_heads)
    assert expected < found < 1.05 * expected


@pytest.mark.parametrize("length", [1, 16, 2_048, 4_096])
def test_batches_of_any_length_are_timed(length):
    assert 0 < inputs.seconds_per_batch(2, length, 0.001) < 60


@pytest.mark.parametrize("terminal", [True, False])
def test_the_table_has_the_figures_of_the_json(facts, terminal):
    out = io.StringIO()
    show(facts["parts"], facts, Console(file=out, width=80, force_terminal=terminal, color_system=None))
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines[: 9 if not terminal else None])
    rows = {name: next(line for line in lines if line.startswith(words)) for name, words in NAMES.items()}
    for name, part in facts["parts"].items():
        seconds, share, *limit = rows[name].removeprefix(NAMES[name]).split()
        assert float(seconds) == pytest.approx(part["seconds"], abs=1e-4)
        assert float(share.rstrip("%")) == pytest.approx(100 * part["share"], abs=0.06)
        assert bool(limit) == ("limit_seconds" in part)
        if limit:
            assert float(limit[0]) == pytest.approx(part["limit_seconds"], abs=1e-4)


def test_parts_that_take_longer_than_the_step_are_reported(facts):
    def shown(seconds_per_step):
        out = io.StringIO()
        show(facts["parts"], facts | {"seconds_per_step": seconds_per_step}, Console(file=out))
        return out.getvalue()

    assert "timed alone, the parts take" in shown(1e-6)
    assert "timed alone, the parts take" not in shown(1e6)


def test_the_command_prints_them_as_table_and_json(facts, monkeypatch, capsys):
    given = {}

    def bench_train(**options):
        given.update(options)
        return dict(facts)

    monkeypatch.setattr(training, "bench_train", bench_train)
    assert main(["bench", "train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["parts"] == facts["parts"]
    assert given["parts"] is True
    assert main(["bench", "train", "--no-parts"]) == 0
    assert given["parts"] is False
    assert "parts." not in (out := capsys.readouterr().out)
    assert "where a step's time goes" in out
