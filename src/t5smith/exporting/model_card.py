"""The model card: what the model is, how it was trained, its held-out scores, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t5smith import __version__
from t5smith.exporting.card_usage import usage
from t5smith.model.config import ModelConfig
from t5smith.objective.denoisers import denoisers_of, describe
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.vocab import VocabSettings


def model_card(
    recipe: Recipe, config: ModelConfig, trained: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> str:
    """README.md of an exported model, with the Hub's front matter; `recipe` has numbers for all settings."""
    front = ["library_name: transformers", "tags:", "- t5", "- text2text-generation", "- t5smith"]
    if recipe.license:
        front.insert(0, f"license: {recipe.license}")
    if recipe.language:
        front.insert(0, f"language: {recipe.language}")
    train = recipe.train
    text = evaluation["text"]
    rows = {
        "Parameters": f"{trained['parameters']:,}",
        "Layers": f"{config.num_layers} encoder, {config.num_decoder_layers} decoder",
        "d_model, d_ff, heads x d_kv": f"{config.d_model}, {config.d_ff}, {config.num_heads} x {config.d_kv}",
        "Vocabulary": f"{config.real_vocab_size:,} ids ({config.vocab_size:,} rows)",
        "Objective": describe(recipe.objective),
        "Training": f"{train.steps:,} steps of {train.batch_size} examples, {trained['tokens']:,} tokens, "
        f"{train.optimizer.name}, {train.schedule.name}, {train.precision}",
        "Held-out NLL of text tokens": f"{_figure(text['nll'])} nats per token "
        f"(unigram baseline {_figure(evaluation['unigram_nll'])})",
        "Held-out accuracy on text tokens": _percent(text["accuracy"]),
        "Bits per byte of masked text": _figure(evaluation["bits_per_byte"]),
    }
    denoisers = denoisers_of(recipe.objective)
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
{chr(10).join(front)}
---

# {recipe.name}

A T5 1.1 encoder-decoder, pre-trained from scratch with t5smith {__version__} to fill in masked spans of
text. It was trained on no task: fine-tune it, or let it fill in spans.

{usage(config, denoisers)}
## Figures

| | |
| --- | --- |
{table}

Held-out scores are on text that the model was not trained on, with {evaluation["masks_per_window"]} fixed
masks per window ({evaluation["windows"]:,} examples). {_about_tokenizer(recipe.vocab)}
All settings are in `t5smith.json`.
"""


def _about_tokenizer(settings: VocabSettings) -> str:
    """A sentence on what the tokenizer does to a text first."""
    if settings.tokenizer:
        return "The tokenizer was imported."
    normalization = {
        "nfkc": "applies NFKC",
        "nmt_nfkc": "applies T5's normalization (nmt_nfkc)",
        "nfc": "applies NFC",
        "none": "applies no Unicode normalization",
    }[settings.normalization]
    case = "text is lowercased" if settings.lowercase else "case is kept"
    return f"The tokenizer {normalization} and turns all white space\ninto single spaces; {case}."


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"
