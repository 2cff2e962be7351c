"""The summary of a run on the terminal: its lines, its verdict, and its width."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from t5smith.reports.terminal import show

CLASSES: dict[str, Any] = {
    "text": {"nll": 6.412, "accuracy": 0.1133, "tokens": 20_412},
    "sentinels": {"nll": 0.31, "accuracy": 0.97, "tokens": 6_000},
    "eos": {"nll": 0.2, "accuracy": 0.98, "tokens": 800},
    "all": {"nll": 5.125, "accuracy": 0.33, "tokens": 27_212},
}
SUMMARY: dict[str, Any] = {
    "name": "tiny",
    "model": "runs/tiny/model",
    "report": "runs/tiny/report.html",
    "vocab": {"requested": 2_000, "pieces": 1_990, "ids": 2_090},
    "store": {"train": {"tokens": 512_344, "bytes_per_token": 4.2}, "valid": {"tokens": 12_000}},
    "train": {
        "parameters": 2_534_912,
        "step": 600,
        "tokens": 3_072_000,
        "seconds": 291.4,
        "tokens_per_second": 11_873.4,
        "device": "cpu",
        "first_loss": 8.81,
        "last_loss": 4.7,
        "ln_vocab": 8.31,
    },
    "evaluation": {
        **CLASSES,
        "unigram_nll": 6.662,
        "margin": 0.25,
        "bits_per_byte": 2.233,
        "examples": [
            {"kept": ["Et", "er et", "."], "truth": ["system", "sett"], "fills": ["system", " "]},
        ],
    },
}


def printed(summary: dict[str, Any], width: int | None = None) -> str:
    file = io.StringIO()
    show(summary, Console(file=file, width=width, force_terminal=width is not None, color_system=None))
    return file.getvalue()


def test_every_line_of_the_summary() -> None:
    lines = printed(SUMMARY).splitlines()
    assert "  vocabulary     1,990 pieces (2,000 requested), and 100 sentinels" in lines
    assert "  text           512k tokens to train on, 12k held out, 4.20 bytes per token" in lines
    assert "  training       600 steps, 3.07M tokens in 4:51 at 11,873 tokens/s (cpu)" in lines
    assert (
        "  loss           4.700 in training (last 20 steps), 5.125 held out: nats per target of any kind"
        in lines
    )
    assert "  held-out NLL   6.412 nats per text token, 0.250 below the unigram baseline 6.662" in lines
    assert lines[-3:-1] == [
        "Filled-in spans: [model] (original); […]: the model filled in nothing",
        "  · Et [system] (system) er et […] (sett).",
    ]


def test_an_imported_tokenizer_is_named() -> None:
    vocab = {"tokenizer": "mt5", "pieces": 1_990, "ids": 2_090}
    assert "1,990 pieces of mt5, and 100 sentinels" in printed(SUMMARY | {"vocab": vocab})


@pytest.mark.parametrize(("margin", "is_bad"), [(0.25, False), (0.0, True), (-0.3, True), (None, False)])
def test_a_model_no_better_than_the_baseline_is_reported(margin: float | None, is_bad: bool) -> None:
    text = printed(SUMMARY | {"evaluation": SUMMARY["evaluation"] | {"margin": margin, "unigram_nll": None}})
    assert ("no better than the unigram baseline" in text) == is_bad
    assert "train it longer" not in text


CURVE = {"overfitting": False, "best_step": 200, "best_loss": 4.5, "last_loss": 4.9}


@pytest.mark.parametrize(
    ("trend", "advice"),
    [("falling", "still falling: train it longer"), ("level", "longer training alone will not help")],
)
def test_longer_training_is_advised_only_where_the_curve_falls(trend: str, advice: str) -> None:
    worse = {"evaluation": SUMMARY["evaluation"] | {"margin": -0.1}}
    train = {"train": SUMMARY["train"] | {"held_out_curve": CURVE | {"trend": trend}}}
    assert advice in printed(SUMMARY | worse | train)
    assert advice not in printed(SUMMARY | train)


def test_overfitting_is_called_so() -> None:
    curve = CURVE | {"trend": "rising", "overfitting": True}
    text = printed(SUMMARY | {"train": SUMMARY["train"] | {"held_out_curve": curve}})
    assert "overfitting: held-out loss was lowest at step 200, 4.500, and rose to 4.900" in text


def test_what_was_scored_is_said() -> None:
    score = {"scored_windows": 2_048, "held_out_windows": 9_000, "masks_per_window": 4}
    text = printed(SUMMARY | {"evaluation": SUMMARY["evaluation"] | score})
    assert "scored on      2,048 of 9,000 held-out windows, 4 masks each" in text
    score["held_out_windows"] = 2_048
    text = printed(SUMMARY | {"evaluation": SUMMARY["evaluation"] | score})
    assert "scored on      all 2,048 held-out windows, 4 masks each" in text


def test_no_line_is_wider_than_the_terminal() -> None:
    assert max(map(len, printed(SUMMARY, width=60).splitlines())) <= 60
