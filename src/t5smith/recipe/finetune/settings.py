"""Fine-tuning on tasks from text to text: the table `[finetune]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import BeforeValidator, Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import NonNegative, OrNone, Positive, Settings, Strings
from t5smith.recipe.finetune.presets import PRESETS, PresetName, Score
from t5smith.recipe.train import LoopSettings, OptimizerSettings, ScheduleSettings

DENOISING = "denoising"
"""Windows of text have this name among the tasks of a mixture."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class TaskSettings(Settings):
    """A task: rows of files, and how each becomes an input and a target."""

    section: ClassVar[str] = "finetune.tasks"

    train: Strings = ()
    """Files, folders or globs with rows to train on: .jsonl, .tsv, .csv, .parquet or .arrow; or
    hf:NAME:CONFIG:SPLIT of the Hub."""
    dev: Strings = ()
    """Rows that choose the best checkpoint. Default: the share `held_out_fraction` of `train`."""
    test: Strings = ()
    """Rows that the best checkpoint is scored on at the end. Default: those of `dev`."""
    held_out_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the rows of `train` that are held out if there is no `dev`, chosen by a hash of the input."""
    preset: Annotated[PresetName | None, OrNone] = None
    """A form of task, which gives input, target and scores unless they are set."""
    input: str = ""
    """A column, or a template with columns in braces: "translate: {nb}"."""
    target: str = ""
    """A column, or a template. A column may hold a list of right targets; the first one is trained on."""
    labels: Strings = ()
    """The only targets that there are. Other ones are refused. Default: any; for accuracy, f1 and mcc those
    of `train`."""
    scores: Annotated[tuple[Score, ...], Field(strict=False)] = ()
    """Scores of the generated texts; the first one chooses the best checkpoint: bleu chrf rouge1 rouge2
    rougeL accuracy f1 mcc exact_match squad_f1 entity_f1."""
    weight: Annotated[Annotated[float, Field(gt=0)] | None, OrNone] = None
    """Relative share of the training examples. Default: by `finetune.temperature`."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, data: Any) -> Any:
        """What `preset` stands for, where it is not set."""
        if not isinstance(data, Mapping):
            return data
        values = cast("Mapping[str, Any]", data)
        form = PRESETS.get(cast("Any", values.get("preset")))
        if form is None:
            return values
        filled = {"input": form.input, "target": form.target, "scores": form.scores}
        return {**values, **{name: values.get(name) or given for name, given in filled.items()}}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name in ("train", "input", "target"):
            if not getattr(self, name):
                what = "files" if name == "train" else "a column or a template, or a preset"
                raise T5smithError("missing", where=f"{self.section}.{name}", expected=what)
        return self

    @property
    def all_scores(self) -> tuple[Score, ...]:
        """The scores; exact match, if none is set."""
        return self.scores or ("exact_match",)


def _named_tasks(tasks: Any) -> Any:
    """Validate each task, so that errors name it."""
    if not isinstance(tasks, Mapping):
        return tasks
    found: dict[str, TaskSettings] = {}
    for name, one in cast("Mapping[str, Any]", tasks).items():
        if not _NAME.fullmatch(name) or name == DENOISING:
            where, expected = f"finetune.tasks.{name}", "another name, of letters, digits, '_' and '-'"
            raise T5smithError(f"{name!r} cannot be used", where=where, expected=expected)
        try:
            found[name] = one if isinstance(one, TaskSettings) else TaskSettings.model_validate(one)
        except T5smithError as error:
            place = (error.where or "").replace(TaskSettings.section, f"{TaskSettings.section}.{name}", 1)
            raise T5smithError(error.what, where=place, expected=error.expected, fix=error.fix) from None
    return found


Tasks = Annotated[dict[str, TaskSettings], BeforeValidator(_named_tasks)]


class FinetuneOptimizerSettings(OptimizerSettings):
    """The optimizer of fine-tuning."""

    section: ClassVar[str] = "finetune.train.optimizer"

    name: Literal["adafactor", "adamw", "adamwscale", "muon", "muon_adafactor"] = "adafactor"
    """As in [train.optimizer]. adafactor at a constant 0.001 is what T5 was fine-tuned with."""
    learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, OrNone] = 1e-3
    """Peak learning rate; none: the optimizer's default for pre-training."""


class FinetuneScheduleSettings(ScheduleSettings):
    """The learning rate of fine-tuning over the steps, as a share of its peak."""

    section: ClassVar[str] = "finetune.train.schedule"

    name: Literal["inverse_sqrt", "linear", "cosine", "wsd", "constant"] = "constant"
    """As in [train.schedule]."""


class FinetuneTrainSettings(LoopSettings):
    """How the model is fine-tuned: the settings of [train], with defaults for fine-tuning."""

    section: ClassVar[str] = "finetune.train"

    steps: Positive = 2_000
    """Number of updates. Not used if `tokens`, `epochs` or `hours` is set."""
    batch_size: Positive | Literal["auto"] = 32
    """Rows per step, over all devices: one example each, or with `packing` as many as fit."""
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout rate. T5 was fine-tuned with 0.1."""
    optimizer: OptimizerSettings = FinetuneOptimizerSettings()
    schedule: ScheduleSettings = FinetuneScheduleSettings()
    checkpoint_every: Positive = 200
    """Save a checkpoint every N steps."""
    keep_best: bool = True
    """Also keep the checkpoint with the best score on `dev`, which is the one that is exported."""
    evaluate_every: NonNegative | Literal["auto"] = "auto"
    """Evaluate on `dev` every N steps; 0: only after training. auto: ten times."""

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, data: Any) -> Any:
        """Tables within get the defaults of fine-tuning."""
        if not isinstance(data, Mapping):
            return data
        values = dict(cast("Mapping[str, Any]", data))
        kinds = {"optimizer": FinetuneOptimizerSettings, "schedule": FinetuneScheduleSettings}
        for name, kind in kinds.items():
            if isinstance(values.get(name), Mapping):
                values[name] = kind.model_validate(values[name])
        return values


class FinetuneSettings(Settings):
    """Fine-tuning on tasks from text to text. Each task is a table [finetune.tasks.NAME]."""

    section: ClassVar[str] = "finetune"

    model: str = ""
    """The model to fine-tune: all that train.init_from reads, such as a run folder, a Hugging Face folder or
    a name on the Hub. Default: the exported model of this run."""
    input_length: Positive = 512
    """Tokens per input, `</s>` included. Longer inputs are cut at the end and counted."""
    target_length: Positive = 128
    """Tokens per target, `</s>` included. Longer targets are cut and counted; no more are generated."""
    packing: bool = True
    """Put several examples into each row, which saves padding. Attention stays within an example."""
    temperature: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Tasks without a weight get shares in proportion to size^(1/temperature); 1: by size."""
    denoising: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the examples that are windows of the run's own text under [objective], as T5 and Flan were
    trained."""
    early_stopping: NonNegative = 0
    """End after N evaluations without a better score; 0: take all steps."""
    dev_examples: NonNegative = 500
    """Generate for N examples of each task's `dev`, chosen by a hash, when the model is evaluated while
    training; 0: for all."""
    num_beams: Positive = 4
    """Beams for the test at the end; while training, decoding is greedy."""
    eval_batch_size: Positive = 32
    """Examples per batch of an evaluation."""
    bootstrap: NonNegative = 1_000
    """Samples for the 95 % intervals of the test's scores; 0: no intervals."""
    tasks: Tasks = Field(default={})
    """Tasks by their names."""
    train: FinetuneTrainSettings = FinetuneTrainSettings()

    @model_validator(mode="after")
    def _weights_of_all_or_none(self) -> Self:
        weights = [task.weight is not None for task in self.tasks.values()]
        if any(weights) and not all(weights):
            without = next(name for name, task in self.tasks.items() if task.weight is None)
            where = f"finetune.tasks.{without}.weight"
            raise T5smithError("missing", where=where, expected="a weight, because other tasks have one")
        return self
