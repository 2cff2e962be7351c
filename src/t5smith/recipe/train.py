"""The settings of training: update rule, learning rate, length, safety, and what is written down."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import NonNegative, Positive, Settings, Strings


def _none_by_name(value: object) -> object:
    """TOML has no null, and leaving a key out means its default."""
    return None if value == "none" else value


OrNone = BeforeValidator(_none_by_name)


class OptimizerSettings(Settings):
    """The update rule."""

    section: ClassVar[str] = "train.optimizer"

    name: Literal["adafactor", "adamw", "adamwscale", "muon", "muon_adafactor"] = "muon_adafactor"
    """adafactor is T5's own; adamwscale is AdamW times each matrix's RMS, as nanoT5 found best; muon makes
    the updates of the layers' matrices orthogonal and leaves the rest to AdamW; muon_adafactor leaves it to
    Adafactor, and all its updates are in proportion to the RMS of what they change."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak of the schedule. Left out: 0.01 for adafactor and muon_adafactor, 0.02 for adamwscale, 0.001 for
    adamw and muon."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled; times the learning rate. Norm scales and position biases are never decayed."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """All but adafactor; with muon of what is left to AdamW."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """All but adafactor; with muon of what is left to AdamW."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """All but adafactor; with muon of what is left to AdamW."""
    clip_norm: Annotated[Annotated[float, Field(gt=0)] | None, OrNone] = 1.0
    """Gradients are scaled down to this global norm; "none" leaves them as they are."""


class ScheduleSettings(Settings):
    """The learning rate over the steps, as a share of its peak."""

    section: ClassVar[str] = "train.schedule"

    name: Literal["inverse_sqrt", "linear", "cosine", "wsd", "constant"] = "wsd"
    """How the rate falls after its rise. inverse_sqrt is T5's own; wsd (warm-up, stable, decay) stays at the
    peak and falls only at the end."""
    warmup_steps: Annotated[NonNegative | None, OrNone] = None
    """Steps of linear rise from zero to the peak. Left out: none for inverse_sqrt, as in T5; else a twentieth
    of all steps, but at most 2,000."""
    plateau_steps: Positive = 10_000
    """inverse_sqrt only: the peak is held to this step, then falls as 1/sqrt(step). T5: 10,000."""
    decay_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2
    """wsd only: the share of all steps, at the end, in which the rate falls."""
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """linear, cosine and wsd: the share of the peak that is left at the last step."""


LENGTHS = ("tokens", "epochs", "hours")


class TrainSettings(Settings):
    """How the model is trained."""

    section: ClassVar[str] = "train"

    steps: Positive = 65_536
    """Updates of the parameters. The schedules end here. Not used if tokens, epochs or hours are given."""
    tokens: Annotated[Positive | None, OrNone] = None
    """Train on so many tokens, inputs and targets without padding, in place of `steps`."""
    epochs: Annotated[Annotated[float, Field(gt=0)] | None, OrNone] = None
    """Train until every window was seen so many times, in place of `steps`."""
    hours: Annotated[Annotated[float, Field(gt=0)] | None, OrNone] = None
    """Train so long, in place of `steps`: how many fit is found by timing a few, once, before the first."""
    batch_size: Positive | Literal["auto"] = 128
    """Rows a step, over all devices; "auto": as many as fit into the device's memory. A row is a window, or
    as many as an objective packs into one."""
    gradient_accumulation: Positive = 1
    """Work on a batch in so many parts, one after the other, to save memory. The update is the same."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass computes anew to save memory: nothing, all but the products of weights, or
    everything inside a layer."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """What products are computed in. Parameters, their updates and all sums stay float32."""
    z_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared log-partition function in the loss (T5X: 1e-4)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target's probability that is spread over the vocabulary."""
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the values dropped, where T5 does. T5 1.1 was pre-trained without."""
    average_decay: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, OrNone] = None
    """Keep an exponential moving average of the parameters, of which this share stays each step; it is then
    what is measured and exported. 0.999 and more; none: no average."""
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    explosion_factor: Annotated[Annotated[float, Field(gt=1)] | None, OrNone] = 100.0
    """Leave out an update whose gradient's norm is more than so many times the usual; one that is not finite
    is always left out."""
    rollback_after: Positive = 5
    """After so many updates left out in a row go back to the last checkpoint, past the batches since."""
    checkpoint_every: Positive = 1_000
    """Steps between checkpoints: the most that a stopped run has to do again."""
    keep_checkpoints: Positive = 2
    """The newest so many checkpoints are kept; older ones are deleted."""
    keep_every: NonNegative = 0
    """Checkpoints at multiples of so many steps are kept for good; 0: none."""
    keep_best: bool = False
    """Keep the checkpoint of the lowest held-out NLL, of those at multiples of `evaluate_every`."""
    log_every: Positive = 10
    """The metrics file has a line a step; it is written to disk, and loggers are told, every so many."""
    loggers: Strings = ("tensorboard",)
    """Where metrics go besides metrics.jsonl: tensorboard, wandb, trackio."""
    prefetch_batches: Positive = 2
    """Batches made ahead while the device works."""
    prefetch_workers: NonNegative = 0
    """Processes that make batches; 0: threads of this one, which is enough for most devices."""
    evaluate_every: NonNegative = 0
    """Measure the held-out NLL every so many steps; 0: only after training."""

    @property
    def rows(self) -> int:
        """The batch size, once it is known."""
        assert isinstance(self.batch_size, int), "resolved before"
        return self.batch_size

    @property
    def in_steps(self) -> bool:
        """Whether the number of steps is given as such."""
        return all(getattr(self, name) is None for name in LENGTHS)

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        given = [f"train.{name}" for name in LENGTHS if getattr(self, name) is not None]
        if len(given) > 1:
            raise T5smithError(
                "the length of training is given twice", where=" and ".join(given), fix="drop one"
            )
        if self.in_steps and (self.schedule.warmup_steps or 0) >= self.steps:
            raise T5smithError(
                f"{self.schedule.warmup_steps} cannot be used",
                where="train.schedule.warmup_steps",
                expected=f"fewer than train.steps, which is {self.steps}",
            )
        if isinstance(self.batch_size, int) and self.batch_size % self.gradient_accumulation:
            raise T5smithError(
                f"{self.gradient_accumulation} cannot be used",
                where="train.gradient_accumulation",
                expected=f"a divisor of train.batch_size, which is {self.batch_size}",
            )
        unknown = [name for name in self.loggers if name not in LOGGERS]
        if unknown:
            raise T5smithError(
                f"{unknown[0]!r} cannot be used",
                where="train.loggers",
                expected=f"some of {', '.join(LOGGERS)}",
            )
        if self.keep_best and not self.evaluate_every:
            raise T5smithError(
                "nothing says which is best", where="train.keep_best", fix="set train.evaluate_every"
            )
        return self


LOGGERS = ("tensorboard", "wandb", "trackio")
