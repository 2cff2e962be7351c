"""How a model is used: scored on held-out text (the table `[evaluate]`), and made to generate."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import NonNegative, Positive, Settings, Strings


class EvaluateSettings(Settings):
    """How the model is scored on held-out text."""

    section: ClassVar[str] = "evaluate"

    masks_per_window: Positive = 4
    """Fixed masks per held-out window."""
    batch_size: Positive = 64
    """Windows per batch. The scores do not depend on it."""
    windows: NonNegative = 2_048
    """Score N held-out windows, chosen by a hash of their numbers; 0: all."""
    examples: NonNegative = 3
    """Number of filled-in examples that are shown at the end."""


def _as_word(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


class GenerateSettings(Settings):
    """How text is generated. Names and meanings are those of transformers' `GenerationConfig`."""

    max_new_tokens: Positive = 64
    """The largest number of tokens that is generated for a text."""
    min_new_tokens: NonNegative = 1
    """</s> is not among the first N tokens. With 1, no output is empty."""
    sample: bool = False
    """Draw each token at random, by its probability. Default: take the most probable token."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Random seed of --sample. A draw depends on the seed, the number of the text and the position only."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """With --sample: the logits are divided by this."""
    top_k: NonNegative = 0
    """With --sample: draw from the N most probable tokens; 0: from all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """With --sample: draw from the most probable tokens that together have this probability (nucleus
    sampling, Holtzman et al. 2020)."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """With --sample: draw from the tokens that have at least this share of the probability of the most
    probable token (Nguyen et al. 2024)."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Divide the positive logits of tokens that were generated before by this, and multiply the negative ones
    (Keskar et al. 2019)."""
    no_repeat_ngram_size: NonNegative = 0
    """No N tokens in a row occur twice in an output; 0: they may."""
    num_beams: Positive = 1
    """Beams of beam search; 1: none."""
    length_penalty: float = 1.0
    """With --num-beams: a sequence's log probability is divided by its length to this power."""
    early_stopping: Annotated[Literal["false", "true", "never"], BeforeValidator(_as_word)] = "false"
    """With --num-beams, when the search ends: true: as soon as there are as many finished sequences as beams;
    false: when the best unfinished one is unlikely to become better; never: when it cannot become better."""
    num_return_sequences: Positive = 1
    """Outputs per text: samples, or the best beams."""
    stop: Strings = ()
    """An output ends before the first of these texts."""
    constrain: bool = True
    """Where a text has sentinels, the output has the same ones in the same order, each once and with at least
    one token, so that it can be put back into the text."""
    log_probs: bool = False
    """Also return the log probability (in nats) of each generated token, before penalties and filters."""
    batch_size: Positive = 32
    """Texts that are decoded at a time."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of weights and of the operands of products. bfloat16 is faster and takes half the memory."""

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        """Refuse settings that contradict each other or have no effect."""
        if self.sample and self.num_beams > 1:
            _reject("sample", "cannot be used together with num_beams", "choose one of them")
        if not self.sample:
            for name in ("temperature", "top_k", "top_p", "min_p"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    _reject(name, "has no effect without sample", "add sample")
        if self.num_beams == 1:
            for name in ("length_penalty", "early_stopping"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    _reject(name, "has no effect without beams", "set num_beams to 2 or more")
        if not self.sample and self.num_return_sequences > self.num_beams:
            what = f"{self.num_return_sequences} sequences of {self.num_beams} beams"
            _reject("num_return_sequences", what, "set num_beams to as many, or add sample")
        if self.min_new_tokens > self.max_new_tokens:
            what = f"{self.min_new_tokens} is more than max_new_tokens, which is {self.max_new_tokens}"
            _reject("min_new_tokens", what, "raise max_new_tokens")
        if "" in self.stop:
            _reject("stop", "an empty text ends every output", "give a text, or none")
        return self


def _reject(name: str, what: str, fix: str) -> None:
    raise T5smithError(what, where=name, fix=fix)
