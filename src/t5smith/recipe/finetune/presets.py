"""Forms of tasks that others use: how a row becomes input and target, and by which scores it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Score = Literal[
    "bleu",
    "chrf",
    "rouge1",
    "rouge2",
    "rougeL",
    "accuracy",
    "f1",
    "mcc",
    "exact_match",
    "squad_f1",
    "entity_f1",
]
PresetName = Literal[
    "translation", "summarization", "classification", "question_answering", "entities", "instructions"
]


@dataclass(frozen=True)
class Preset:
    """A form of task.

    Attributes:
      input, target: names of columns, or templates.
      scores: the first one chooses the best checkpoint.
      about: what a row has.
    """

    input: str
    target: str
    scores: tuple[Score, ...]
    about: str


PRESETS: Mapping[PresetName, Preset] = MappingProxyType(
    {
        "translation": Preset(
            "source", "target", ("bleu", "chrf"), "a text in the column `source`, its translation in `target`"
        ),
        "summarization": Preset(
            "summarize: {document}",
            "summary",
            ("rougeL", "rouge1", "rouge2"),
            "a text in the column `document`, its summary in `summary`",
        ),
        "classification": Preset(
            "text", "label", ("accuracy", "f1", "mcc"), "a text in the column `text`, its label in `label`"
        ),
        "question_answering": Preset(
            "question: {question} context: {context}",
            "answers.text",
            ("squad_f1", "exact_match"),
            "SQuAD's form: `question`, `context`, and a list of answers in `answers.text`; the first one is "
            "trained on, all of them are right",
        ),
        "entities": Preset(
            "entities: {text}",
            "entities",
            ("entity_f1",),
            "a list of `tokens` and one of their `tags` (B-PER, I-PER, O); from them the text, and "
            '`entities` as "PER: Ola Nordmann; LOC: Oslo", or "none"',
        ),
        "instructions": Preset(
            "Definition: {definition} Now complete the following example - Input: {inputs} Output:",
            "targets",
            ("rougeL", "exact_match"),
            "Tk-Instruct's form (Wang et al. 2022): `definition`, `inputs`, `targets`",
        ),
    }
)
"""`summarize:` and SQuAD's form are those of T5 (Raffel et al. 2020, appendix D)."""
