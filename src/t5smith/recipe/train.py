"""Training: length, batches, optimizer, learning rate, safety, checkpoints and logs: the table `[train]`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import NonNegative, OrNone, Positive, Settings, Strings


class OptimizerSettings(Settings):
    """The optimizer."""

    section: ClassVar[str] = "train.optimizer"

    name: Literal["adafactor", "adamw", "adamwscale", "muon", "muon_adafactor"] = "muon_adafactor"
    """adafactor is T5's own. adamwscale is AdamW scaled by each matrix's RMS, which nanoT5 found best. muon
    orthogonalizes the updates of the layers' matrices and uses AdamW for all other parameters. muon_adafactor
    is muon with Adafactor in place of AdamW, and scales every update by the RMS of its parameter."""
    learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, OrNone] = None
    """Peak learning rate. Default, with tokens as steps x batch size x input length: 60/sqrt(tokens), at
    least 0.01 and at most 0.04, for adafactor and muon_adafactor; 60/sqrt(tokens), 0.02 to 0.05, for
    adamwscale; 6/sqrt(tokens), 0.001 to 0.004, for muon; 3/sqrt(tokens), 0.001 to 0.002, for adamw. A run
    that is made longer keeps the rate that it was trained with."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay, multiplied by the learning rate. Norm scales and position biases are not
    decayed."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment; for adamw, adamwscale, and the parameters that muon leaves to AdamW."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay of the second moment; for the same as beta1."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment; for the same as beta1."""
    clip_norm: Annotated[Annotated[float, Field(gt=0)] | None, OrNone] = 1.0
    """Clip gradients to this global norm; none: no clipping."""


class ScheduleSettings(Settings):
    """The learning rate over the steps, as a share of its peak."""

    section: ClassVar[str] = "train.schedule"

    name: Literal["inverse_sqrt", "linear", "cosine", "wsd", "constant"] = "wsd"
    """How the learning rate falls after warm-up. inverse_sqrt is T5's own. wsd (warm-up, stable, decay) stays
    at the peak and falls only at the end."""
    warmup_steps: Annotated[NonNegative | None, OrNone] = None
    """Steps of linear warm-up from zero to the peak. Default: none for inverse_sqrt, as in T5; for others a
    twentieth of all steps, but at most 2,000."""
    plateau_steps: Positive = 10_000
    """Hold the peak until this step, then decay as 1/sqrt(step); for inverse_sqrt only. T5: 10,000."""
    decay_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of all steps, at the end, in which the learning rate falls; for wsd only."""
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Learning rate at the last step, as a share of the peak; for linear, cosine and wsd."""


AXES = ("data", "fsdp", "tensor")
"""Of a mesh. They divide rows, with a copy of the state on each device; rows and state; matrices."""
AUTO = "auto"


def mesh_sizes(text: str) -> dict[str, int]:
    """The size of each axis of a mesh such as `data=2 fsdp=4`; an axis that is not named has size 1.

    Raises:
      T5smithError: it is not written so.
    """
    sizes = dict.fromkeys(AXES, 1)
    for number, part in enumerate(words := text.split()):
        name, _, size = part.partition("=")
        named_before = any(word.startswith(f"{name}=") for word in words[:number])
        if name not in AXES or named_before or not size.isdecimal() or int(size) < 1:
            words = []
            break
        sizes[name] = int(size)
    if not words:
        raise T5smithError(
            f"{text!r} cannot be used",
            where="train.mesh",
            expected='auto, or some of data, fsdp and tensor with a number of devices, as "data=2 fsdp=4"',
        )
    return {**sizes}


LENGTHS = ("tokens", "epochs", "hours")


class LoopSettings(Settings):
    """How a model is trained, whatever its examples are."""

    section: ClassVar[str] = "train"

    steps: Positive = 65_536
    """Number of updates; the learning-rate schedule ends with the last. Not used if `tokens`, `epochs` or
    `hours` is set."""
    tokens: Annotated[Positive | None, OrNone] = None
    """Train on N tokens instead of `steps`: input and target tokens without padding."""
    epochs: Annotated[Annotated[float, Field(gt=0)] | None, OrNone] = None
    """Train for N passes over all windows instead of `steps`."""
    hours: Annotated[Annotated[float, Field(gt=0)] | None, OrNone] = None
    """Train for N hours by the clock instead of `steps`: compiling, evaluations, checkpoints and earlier
    starts count. The last step is corrected while training runs, and the learning rate with it."""
    batch_size: Positive | Literal["auto"] = 128
    """Examples per step, over all devices; auto: as many as fit into the device's memory. An example is one
    window, or several that are packed together."""
    gradient_accumulation: Positive = 1
    """Split each batch into N parts that are computed one after the other, to save memory. The update is the
    same."""
    mesh: str = "auto"
    """How devices are arranged. auto: all of them, with the state divided if it is too large for one; of CPU
    devices one per process. By hand: "data=2 fsdp=4"; data divides examples, fsdp examples and the state,
    tensor the matrices."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass recomputes to save memory. none: nothing. dots: all but the products with
    weights. full: everything inside a layer."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the operands of matrix products. Parameters, updates and sums are always float32."""
    z_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the z-loss, the square of logsumexp of the logits. T5X: 1e-4."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target's probability that is spread over the whole vocabulary."""
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout rate, applied where T5 applies it. T5 1.1 was pre-trained without dropout."""
    average_decay: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, OrNone] = None
    """Keep an exponential moving average of the parameters with this decay per step, and evaluate and export
    the average. Use 0.999 or more; none: no average."""
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    explosion_factor: Annotated[Annotated[float, Field(gt=1)] | None, OrNone] = 100.0
    """Skip an update if its gradient norm is more than N times its moving average; none: skip only updates
    that are not finite."""
    rollback_after: Positive = 5
    """After N skipped updates in a row, go back to the last checkpoint and go on without the batches since
    then."""
    checkpoint_every: Positive = 1_000
    """Save a checkpoint every N steps: a stopped run repeats at most N steps."""
    keep_checkpoints: Positive = 2
    """Keep the newest N checkpoints; older ones are deleted."""
    keep_every: NonNegative = 0
    """Never delete checkpoints at multiples of N steps; 0: no exceptions."""
    keep_best: bool = False
    """Also keep the checkpoint with the lowest held-out NLL of text tokens, among the steps that are
    evaluated."""
    log_every: Positive = 10
    """Write metrics to disk and to the loggers every N steps. metrics.jsonl has one line per step."""
    loggers: Strings = ("tensorboard",)
    """Loggers beside metrics.jsonl: tensorboard, wandb, trackio."""
    prefetch_batches: Positive = 2
    """Batches that are prepared ahead of the device."""
    prefetch_workers: NonNegative = 0
    """Processes that make batches; 0: threads of the main process, which are enough for most devices."""
    evaluate_every: NonNegative | Literal["auto"] = "auto"
    """Evaluate on held-out text every N steps; 0: only after training. auto: up to 20 times, on as many
    windows as take at most 3 % of the time; not at all in runs too short for that."""

    @property
    def rows(self) -> int:
        """The batch size, which is resolved by now."""
        assert isinstance(self.batch_size, int), "resolved before"
        return self.batch_size

    @property
    def in_steps(self) -> bool:
        """Whether the length of training is set in steps."""
        return all(getattr(self, name) is None for name in LENGTHS)

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.mesh != AUTO:
            mesh_sizes(self.mesh)
        given = [f"{self.section}.{name}" for name in LENGTHS if getattr(self, name) is not None]
        if len(given) > 1:
            raise T5smithError(
                "the length of training is set twice", where=" and ".join(given), fix="remove one"
            )
        if self.in_steps and (self.schedule.warmup_steps or 0) >= self.steps:
            raise T5smithError(
                f"{self.schedule.warmup_steps} cannot be used",
                where=f"{self.section}.schedule.warmup_steps",
                expected=f"fewer than {self.section}.steps, which is {self.steps}",
            )
        if isinstance(self.batch_size, int) and self.batch_size % self.gradient_accumulation:
            raise T5smithError(
                f"{self.gradient_accumulation} cannot be used",
                where=f"{self.section}.gradient_accumulation",
                expected=f"a divisor of {self.section}.batch_size, which is {self.batch_size}",
            )
        unknown = [name for name in self.loggers if name not in LOGGERS]
        if unknown:
            raise T5smithError(
                f"{unknown[0]!r} cannot be used",
                where=f"{self.section}.loggers",
                expected=f"some of {', '.join(LOGGERS)}",
            )
        if self.keep_best and not self.evaluate_every:
            raise T5smithError(
                f"needs `{self.section}.evaluate_every`",
                where=f"{self.section}.keep_best",
                fix=f"set {self.section}.evaluate_every to auto, or to 1 or more",
            )
        return self


LOGGERS = ("tensorboard", "wandb", "trackio")


class TrainSettings(LoopSettings):
    """How the model is trained."""

    init_from: str = ""
    """Continue from this model instead of random weights: a Hugging Face folder or a name on the Hub, a run
    folder, or a checkpoint of T5X. [model] must have its sizes. If [vocab] sets nothing, its tokenizer is
    imported; with another vocabulary, the rows of its pieces are carried over or composed."""
