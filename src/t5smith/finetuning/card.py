"""The model card of a fine-tuned model: its base, tasks, scores, and how to use it."""

from __future__ import annotations

import json

from t5smith.base.artifact import Manifest
from t5smith.exporting.card_front_matter import front_matter
from t5smith.exporting.card_usage import TRANSFORMERS_5, loaded
from t5smith.finetuning.run import FinetuneRun


def card(run: FinetuneRun, checkpoint: Manifest, scores: Manifest) -> str:
    """The card as Markdown with the Hub's front matter.

    Args:
      run: the fine-tuning.
      checkpoint: the one that is exported.
      scores: of it on `test`.
    """
    recipe, train = run.recipe, run.setup.recipe.train
    files = [
        file
        for task in run.examples.manifest.inputs["tasks"].values()
        for split in ("train", "dev", "test")
        for file in task.get(split, ())
    ]
    tied = run.config.tie_word_embeddings
    example = run.examples.held("test")[0].input
    rate = train.optimizer.learning_rate
    return f"""---
{front_matter(recipe, files)}
---

# {recipe.name}

A T5 fine-tuned from `{train.init_from}` with t5smith: {checkpoint.facts["step"]:,} steps of
{train.rows:,} rows, {train.optimizer.name} at a learning rate of {rate:g}, dropout {train.dropout_rate:g}.

## Tasks

{_tasks(run)}

Inputs are cut after {run.settings.input_length} tokens, targets after {run.settings.target_length}.

## Scores

{_scores(scores)}

In per cent, on `test`, with {_beams(run.settings.num_beams)}; in brackets 95 % bootstrap intervals.

## Use

```python
{loaded(run.config)}\
inputs = tokenizer({json.dumps(example, ensure_ascii=False)}, return_tensors="pt")
outputs = model.generate(**inputs, max_new_tokens={run.settings.target_length})
print(tokenizer.decode(outputs[0], skip_special_tokens=True))
```
{"" if tied else chr(10) + TRANSFORMERS_5}"""


def _beams(number: int) -> str:
    return f"{number} beams" if number > 1 else "greedy decoding"


def _tasks(run: FinetuneRun) -> str:
    rows = [
        "| task | input | target | training examples | dev | test |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for name, facts in run.examples.manifest.facts["tasks"].items():
        task = run.settings.tasks[name]
        number = facts["stop"] - facts["start"]
        rows.append(
            f"| {name} | `{_cell(task.input)}` | `{_cell(task.target)}` | {number:,} | {facts['dev']:,} "
            f"| {facts['test']:,} |"
        )
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _scores(scores: Manifest) -> str:
    rows = ["| task | score | | |", "| --- | --- | ---: | --- |"]
    for task, own in scores.facts["scores"].items():
        for name, value in own.items():
            around = scores.facts["intervals"][task][name]
            shown = f"[{around[0]:.2f}, {around[1]:.2f}]" if around else ""
            rows.append(f"| {task} | {name} | {value:.2f} | {shown} |")
    return "\n".join(rows)
