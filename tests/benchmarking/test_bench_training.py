"""The benchmark of training times the step that training takes."""

from __future__ import annotations

import pytest

from t5smith.base.errors import T5smithError
from t5smith.benchmarking import training
from t5smith.benchmarking.training import SIZES, bench_train
from t5smith.model.config import ModelConfig
from t5smith.recipe.model import ModelSettings

TINY = ModelSettings(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2)


@pytest.mark.parametrize(
    ("flags", "where"),
    [
        ({"size": "t5-small"}, "--size"),
        ({"precision": "float16"}, "--precision"),
        ({"remat": "some"}, "--remat"),
        ({"batch": 0}, "--batch"),
        ({"input_length": 0}, "--input-length"),
        ({"target_length": 0}, "--target-length"),
        ({"gradient_accumulation": 3}, "--gradient-accumulation"),
        ({"optimizer": "lion"}, "train.optimizer.name"),
    ],
)
def test_invalid_settings_are_an_error(flags, where, monkeypatch):
    monkeypatch.setitem(training.SIZES, "t5-v1.1-small", TINY)
    with pytest.raises(T5smithError) as caught:
        bench_train(**flags)
    assert caught.value.where == where


def test_sizes_are_those_of_t5_1_1():
    """Google's counts: 77 M, 248 M, 783 M, 2.85 B parameters."""
    millions = {"t5-v1.1-small": 77, "t5-v1.1-base": 248, "t5-v1.1-large": 783, "t5-v1.1-xl": 2850}
    for name, expected in millions.items():
        config = ModelConfig.create(SIZES[name], training.VOCABULARY)
        inner, D, F = config.num_heads * config.d_kv, config.d_model, config.d_ff
        encoder = config.num_layers * (4 * D * inner + 3 * D * F)
        decoder = config.num_decoder_layers * (8 * D * inner + 3 * D * F)
        assert (encoder + decoder + 2 * config.vocab_size * D) / 1e6 == pytest.approx(expected, rel=0.01)
