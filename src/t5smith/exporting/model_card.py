"""The model card, from the manifests of what was done: model, text, training, scores, limits, licence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from t5smith import __version__
from t5smith.base.artifact import Manifest
from t5smith.base.units import duration
from t5smith.base.wrapping import pluralize
from t5smith.exporting.card_front_matter import front_matter, hub_datasets
from t5smith.exporting.card_text import (
    spiece_note,
    text_section,
    tokenizer_section,
    tokenizer_source,
    without_folders,
)
from t5smith.exporting.card_usage import ENCODER_USAGE, is_prefix, usage
from t5smith.exporting.source_card import SourceCard
from t5smith.model.config import ModelConfig
from t5smith.objective.denoisers import Denoiser, denoisers_of, describe
from t5smith.recipe.recipe import Recipe
from t5smith.training.curves.repetition import MANY_EPOCHS, CorpusUse

NO_LICENSE = (
    "No licence is stated, so nobody may use the model: set `license` in the recipe and export it again."
)
T5_PAPER = """@article{raffel2020exploring,
  title = {Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer},
  author = {Raffel, Colin and Shazeer, Noam and Roberts, Adam and Lee, Katherine and Narang, Sharan and
            Matena, Michael and Zhou, Yanqi and Li, Wei and Liu, Peter J.},
  journal = {Journal of Machine Learning Research},
  volume = {21},
  year = {2020}
}"""
UL2_PAPER = """@inproceedings{tay2023ul2,
  title = {{UL2}: Unifying Language Learning Paradigms},
  author = {Tay, Yi and others},
  booktitle = {International Conference on Learning Representations},
  year = {2023}
}"""


@dataclass(frozen=True)
class Made:
    """What the card is written from.

    Attributes:
      recipe: name, language, licence, objective and training, with numbers for all settings.
      config: the sizes.
      vocab, store, checkpoint, evaluation: the manifests of the stages.
      longest_input: input tokens of a window.
      uses: the share of the training windows of each corpus, and how many times it was read.
      no_spiece: why there is no `spiece.model`; "" if there is one.
      steps: those of the checkpoints whose mean the model is; mostly one.
      source: the licence of the model that training continued from; None: random weights.
      checked: what was compared with transformers, as a sentence; "": nothing.
    """

    recipe: Recipe
    config: ModelConfig
    vocab: Manifest
    store: Manifest
    checkpoint: Manifest
    evaluation: Manifest
    longest_input: int
    uses: Sequence[CorpusUse]
    no_spiece: str
    steps: Sequence[int]
    source: SourceCard | None = None
    checked: str = ""


def model_card(made: Made, *, encoder_only: bool = False) -> str:
    """README.md of an exported model, or of its encoder alone, with the Hub's front matter."""
    recipe, config = made.recipe, made.config
    denoisers = denoisers_of(recipe.objective)
    files = made.store.inputs["corpus"]["train"]
    language = f" for the language `{recipe.language}`" if recipe.language else ""
    article = "The encoder of a" if encoder_only else "A"
    return f"""---
{front_matter(recipe, files, encoder_only=encoder_only)}
---

# {recipe.name}

{article} {kind_of(config)} encoder-decoder{language}, {_begun(recipe)} with t5smith {__version__}
to {_task(denoisers)}. It was trained on no other task: fine-tune it before use.

{ENCODER_USAGE if encoder_only else usage(config, denoisers)}
{made.checked + chr(10) * 2 if made.checked else ""}## Training text

{text_section(made.store, made.uses)}

## Tokenizer

{tokenizer_section(made.vocab, made.store)}
{spiece_note(made.no_spiece)}

## Model and training

{_training(made)}

## Evaluation

{_evaluation(made)}

## Limits

{_limits(made)}

## Licence and lineage

{f"Licence: {recipe.license}." if recipe.license else NO_LICENSE}
{_lineage(made)}

## How to cite

Name this model as `{recipe.name}`, pre-trained with t5smith {__version__}, and cite:

```bibtex
{T5_PAPER}{chr(10) + UL2_PAPER if recipe.objective.name == "ul2" else ""}
```

All settings are in `t5smith.json`.
"""


def kind_of(config: ModelConfig) -> str:
    """The family that a model's sizes show."""
    kinds = {(True, False): "T5 1.1", (False, True): "T5 1.0"}
    gate, head = "gated GELU" if config.gated else "ReLU", "tied" if config.tie_word_embeddings else "untied"
    if config.bias_per_layer:
        return (
            "UMT5"
            if (config.gated, config.tie_word_embeddings) == (True, False)
            else (f"UMT5 ({gate} feed-forward, {head} head)")
        )
    return kinds.get((config.gated, config.tie_word_embeddings), f"T5 ({gate} feed-forward, {head} head)")


def _task(denoisers: tuple[Denoiser, ...]) -> str:
    kinds = {is_prefix(denoiser) for denoiser in denoisers}
    tasks = {False: "fill in masked spans of text", True: "continue a text"}
    return " and to ".join(tasks[kind] for kind in sorted(kinds))


def _training(made: Made) -> str:
    recipe, config, facts = made.recipe, made.config, made.checkpoint.facts
    train, optimizer, schedule = recipe.train, recipe.train.optimizer, recipe.train.schedule
    heads = f"{config.num_heads} heads of {config.d_kv}"
    rate = made.checkpoint.inputs["train"]["optimizer"]["learning_rate"]
    warm_up = made.checkpoint.inputs["train"]["schedule"]["warmup_steps"]
    rows = {
        "Parameters": f"{facts['parameters']:,}",
        "Layers": f"{config.num_layers} encoder, {config.num_decoder_layers} decoder",
        "Sizes": f"d_model {config.d_model:,}, d_ff {config.d_ff:,}, {heads}",
        "Position biases": f"{config.relative_attention_num_buckets} buckets, distances up to "
        f"{config.relative_attention_max_distance}",
        "Vocabulary": f"{config.real_vocab_size:,} ids ({config.vocab_size:,} rows)",
        "Objective": describe(recipe.objective),
        "Length": f"{_length(made)} of {train.batch_size:,} examples, {facts['tokens']:,} "
        f"tokens without padding",
        "Optimizer": f"{optimizer.name}, learning rate {rate:g}, weight decay {optimizer.weight_decay:g}, "
        f"gradient norm at most {'unlimited' if optimizer.clip_norm is None else f'{optimizer.clip_norm:g}'}",
        "Schedule": f"{schedule.name}, {pluralize(warm_up, 'warm-up step')}",
        "Precision": f"{train.precision}; the exported weights are {recipe.export.dtype}",
        "Regularisation": f"dropout {train.dropout_rate:g}, label smoothing {train.label_smoothing:g}, "
        f"z-loss {train.z_loss:g}",
        "Seed": f"{recipe.seed}",
        "Hardware": f"one {facts['device']} device, {duration(facts['seconds'])}, "
        f"{facts['tokens_per_second']:,.0f} tokens/s",
    }
    weights = (
        []
        if train.average_decay is None
        else [f"moving average of the parameters, decay {train.average_decay:g}"]
    )
    if len(made.steps) > 1:
        weights.append(f"mean of those after steps {_steps(made)}")
    if weights:
        rows["Weights"] = "; ".join(weights)
    if skipped := sum(last - first + 1 for first, last in facts.get("skipped_batches", ())):
        rows["Skipped"] = (
            f"{skipped:,} {'batch' if skipped == 1 else 'batches'}: gradient not finite or too large"
        )
    return _table(rows)


def _length(made: Made) -> str:
    """How many steps were trained, of how many."""
    step, end = made.steps[-1], made.recipe.train.steps
    return pluralize(end, "step") if step == end else f"{step:,} of {pluralize(end, 'step')}"


def _steps(made: Made) -> str:
    *first, last = (f"{step:,}" for step in made.steps)
    return f"{', '.join(first)} and {last}"


def _evaluation(made: Made) -> str:
    facts = made.evaluation.facts
    text = facts["text"]
    rows = {
        "NLL of text tokens": f"{_figure(text['nll'])} nats per token",
        "Unigram baseline of the same tokens": f"{_figure(facts['unigram_nll'])} nats per token",
        "Accuracy on text tokens": _percent(text["accuracy"]),
        "NLL of all targets": f"{_figure(facts['all']['nll'])} nats per token",
        "Bits per byte of masked text": _figure(facts["bits_per_byte"]),
    }
    for name, own in facts.get("denoisers", {}).items():
        rows[f"NLL of text tokens, {name}"] = f"{_figure(own['text']['nll'])} nats per token"
    margin = facts["margin"]
    worse = (
        "\nThe model is no better than the unigram baseline: it has learned nothing of use yet.\n"
        if margin is not None and margin <= 0
        else ""
    )
    mean = f" (the mean of the parameters after steps {_steps(made)})" if len(made.steps) > 1 else ""
    return f"""{_table(rows)}
{worse}
The scores are of held-out documents, on {facts["windows"]:,} masked windows with {facts["masks_per_window"]}
fixed masks for each window of text, after step {facts["step"]:,}{mean}.
NLL is the negative log-likelihood of the right token (lower is better); text tokens are the targets without
sentinels and `</s>`, which are easy.
The unigram baseline knows only how often each piece occurs in the training text. Such scores compare models
with the same tokenizer and objective on the same text; how good a model is for a task is seen after
fine-tuning."""


def _limits(made: Made) -> str:
    """What the model is not fit for, as far as its manifests show it."""
    lines = [
        "The model was not trained to follow instructions or to answer questions.",
        f"Windows of training had up to {made.longest_input:,} input tokens; longer inputs are untested.",
    ]
    if "cleaning" not in made.store.inputs:
        lines.append("The text was not filtered: what is false, private or offensive in it was learned too.")
    else:
        lines.append(
            "Cleaning does not remove all that is false, private or offensive; the rest was learned."
        )
    for use in made.uses:
        if use.epochs > MANY_EPOCHS:
            text = "its text" if len(made.uses) == 1 else f"the corpus `{use.name}`"
            lines.append(f"It read {text} {use.epochs:.0f} times and may repeat passages of it.")
    if made.vocab.inputs.get("vocab", {}).get("lowercase"):
        lines.append("It never writes capitals.")
    return "\n".join(f"- {line}" for line in lines)


def _begun(recipe: Recipe) -> str:
    if name := recipe.train.init_from:
        return f"pre-trained further from `{without_folders(name)}`"
    return "pre-trained from scratch"


def _lineage(made: Made) -> str:
    files = made.store.inputs["corpus"]["train"]
    lines = ["The parameters were drawn at random: the model descends from no other."]
    if name := made.recipe.train.init_from:
        hashes = made.checkpoint.inputs["initial"]
        weights = next(hashes[file] for file in hashes if file != "config.json")
        lines = [
            f"The parameters are those of `{without_folders(name)}` (SHA-256 of its weights "
            f"{weights[:12]}…), trained further: its licence applies to this model too.",
            _source_license(made.source or SourceCard(missing="it was not looked up")),
        ]
    if source := tokenizer_source(made.vocab):
        lines.append(f"The tokenizer was imported from {source}, whose licence applies to it.")
    if datasets := hub_datasets(files):
        lines.append(f"The licences of the data sets apply too: {', '.join(datasets)}.")
    return "\n".join(lines)


def _source_license(source: SourceCard) -> str:
    if source.license:
        return f"Its model card names the licence `{source.license}`."
    return (
        f"Its licence is not stated here, because {source.missing}: look it up before you publish this model."
    )


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _figure(value: Any) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _percent(value: Any) -> str:
    return "not measured" if value is None else f"{value:.1%}"
