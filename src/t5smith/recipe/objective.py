"""The pre-training objective: the table `[objective]`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import Fraction, OrNone, Settings, Strings


class ObjectiveSettings(Settings):
    """The pre-training objective, and the lengths of windows and inputs."""

    section: ClassVar[str] = "objective"

    name: Literal["span_corruption", "prefix_lm", "ul2", "mixture"] = "span_corruption"
    """span_corruption is T5's objective. prefix_lm predicts the rest of a window from its beginning. ul2
    is a mixture of seven denoisers. mixture is a mixture of your own `denoisers`."""
    input_length: Annotated[Annotated[int, Field(ge=3)] | None, OrNone] = None
    """Encoder positions per example. Default: 512 for span_corruption if window_length is not set, otherwise
    what the windows need. For span_corruption it decides the length of windows and targets: 512 -> windows of
    568 tokens and 114 decoder positions."""
    window_length: Annotated[Annotated[int, Field(ge=2)] | None, OrNone] = None
    """Tokens of text per window. Default: as many as fit into input_length for span_corruption, otherwise
    512. If both lengths are set, each example is packed with as many windows as fit."""
    noise_density: Annotated[Fraction | None, OrNone] = None
    """Share of a window's tokens that is masked; for prefix_lm the mean share that is predicted. Default:
    0.15 for span_corruption, 0.5 for prefix_lm."""
    mean_noise_span_length: Annotated[float, Field(ge=1)] = 3.0
    """Mean length of a masked span, in tokens; for span_corruption."""
    denoisers: Strings = ()
    """The denoisers of a mixture, each as one string of noise density, mean span length, weight and mode
    token: "0.15 3 1 [R]". Weight and mode token are optional; "prefix" as the mean span length means
    prefix_lm."""
    roll: bool = False
    """Rotate the mask by a random offset, as T5 can: a window may then begin with a masked span and end with
    text."""
    eos: bool = True
    """End inputs and targets with `</s>`."""
    cross_documents: bool = True
    """Allow masked spans to cross document boundaries, as T5 does."""
    shift_windows: bool = True
    """Shift the boundaries of the windows in every epoch."""

    @model_validator(mode="after")
    def _denoisers_for_a_mixture(self) -> Self:
        if bool(self.denoisers) != (self.name == "mixture"):
            raise T5smithError(
                f"{len(self.denoisers)} denoisers cannot be used with objective.name = {self.name}",
                where="objective.denoisers",
                expected="one or more for a mixture, none for other objectives",
            )
        if self.name in ("ul2", "mixture") and self.noise_density is not None:
            raise T5smithError(
                f"{self.noise_density} cannot be used with objective.name = {self.name}",
                where="objective.noise_density",
                expected="no value, because each denoiser has its own",
            )
        return self
