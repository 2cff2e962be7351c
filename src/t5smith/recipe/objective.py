"""What the model learns to do with a window of text: the table `[objective]`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import Fraction, Settings, Strings


class ObjectiveSettings(Settings):
    """What the model learns to do with a window of text, and how long inputs are."""

    section: ClassVar[str] = "objective"

    name: Literal["span_corruption", "prefix_lm", "ul2", "mixture"] = "span_corruption"
    """span_corruption is T5's; prefix_lm continues text; ul2 mixes seven denoisers; mixture: `denoisers`."""
    input_length: Annotated[int, Field(ge=3)] | None = None
    """Encoder positions of a row. Left out: 512 for span_corruption without window_length, else what the
    windows need. Windows and targets follow: 512 -> windows of 568 tokens and 114 decoder positions."""
    window_length: Annotated[int, Field(ge=2)] | None = None
    """Tokens of text in a window. Left out: as many as fit into input_length for span_corruption, else
    512. With both given, as many windows share a row as fit."""
    noise_density: Fraction | None = None
    """Share of a window's tokens that are masked: 0.15. prefix_lm: the mean share to be told: 0.5."""
    mean_noise_span_length: Annotated[float, Field(ge=1)] = 3.0
    """span_corruption: mean length of a masked span, in tokens."""
    denoisers: Strings = ()
    """mixture: a row each of density, mean span, weight and mode token, as "0.15 3 1 [R]". The last two may
    be left out; "prefix" for the mean span is prefix_lm."""
    roll: bool = False
    """Turn masks by a random number of places, as T5 can: they may then begin or end anywhere."""
    eos: bool = True
    """End inputs and targets with `</s>`."""
    cross_documents: bool = True
    """Let masked spans cross the end of a document, as T5 does."""
    shift_windows: bool = True
    """Cut the text into windows at another place in every epoch."""

    @model_validator(mode="after")
    def _denoisers_for_a_mixture(self) -> Self:
        if bool(self.denoisers) != (self.name == "mixture"):
            raise T5smithError(
                f"{len(self.denoisers)} denoisers cannot be used with objective.name = {self.name}",
                where="objective.denoisers",
                expected="one or more for a mixture, none for the rest",
            )
        if self.name in ("ul2", "mixture") and self.noise_density is not None:
            raise T5smithError(
                f"{self.noise_density} cannot be used with objective.name = {self.name}",
                where="objective.noise_density",
                expected="nothing: each denoiser has its own",
            )
        return self
