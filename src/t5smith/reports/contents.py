"""What a report is made of: plain values that any stage can supply, none of them needed but a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from t5smith.inspection.trace import Trace
from t5smith.pages.facts import Facts


@dataclass(frozen=True)
class Example:
    """A held-out text with its masked spans, which begin with a word, and what the model put there.

    Attributes:
      kept: the text before, between and after the spans: one part more than there are spans. Spaces at
        the ends of parts do not matter.
      truth: what stood in each span.
      filled: what the model wrote for each; empty where it wrote nothing.
    """

    kept: Sequence[str]
    truth: Sequence[str]
    filled: Sequence[str]

    def __post_init__(self) -> None:
        assert len(self.kept) == len(self.truth) + 1 == len(self.filled) + 1


@dataclass(frozen=True)
class Report:
    """All that a report shows. Every fact of every stage is listed; those named here stand out.

    Attributes:
      name: of the run.
      created: when, as it is to be read.
      recipe: the settings as TOML.
      vocab: facts: `asked`, `pieces`, `ids`, …
      store: facts: `train` and `valid`, each with `documents`, `tokens`, `unknown_rate`, …
      corpus: what the store tells of its text: `came_in`, `lengths`, `pieces`, `windows`, as
        :mod:`t5smith.store.statistics` writes them.
      train: facts: `parameters`, `steps`, `tokens`, `tokens_per_second`, `first_loss`, `ln_vocab`, …
      evaluation: facts: `text`, `sentinels`, `eos` and `total`, each with `nll`, `accuracy` and `tokens`;
        `unigram_nll` of the same text tokens; `bits_per_byte`; …
      export: facts: …
      metrics: a row a step: `step`, `loss` (the NLL), `learning_rate`, `grad_norm`, `tokens_per_second`.
      held_out: rows of `step` and `nll`, the latter of text tokens.
      examples: filled-in texts.
      trace: one text as the model sees it.
      warnings: what the person should not miss.
      versions: name -> version of what the run was made with.
      seconds: time training took.
      model: the folder of the exported model, as it is to be typed.
      prompt: a text to fill in, for the snippet that loads the model.
    """

    name: str
    created: str = ""
    recipe: str = ""
    vocab: Facts = field(default_factory=dict[str, Any])
    store: Facts = field(default_factory=dict[str, Any])
    corpus: Facts = field(default_factory=dict[str, Any])
    train: Facts = field(default_factory=dict[str, Any])
    evaluation: Facts = field(default_factory=dict[str, Any])
    export: Facts = field(default_factory=dict[str, Any])
    metrics: Sequence[Facts] = ()
    held_out: Sequence[Facts] = ()
    examples: Sequence[Example] = ()
    trace: Trace | None = None
    warnings: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float | None = None
    model: str = ""
    prompt: str = "The <extra_id_0> ruined my sleep."
