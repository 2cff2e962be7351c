"""The flags of each verb, and which tables of a recipe it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

from t5smith.cli.flags import POSITIONAL, command
from t5smith.recipe.base import Folder, Positive, Strings

MAX_BYTES = 10_000_000
"""Default size of the held-out text that tokenizers are compared on."""


@command
class RecipeCommand:
    """The flags that every verb with a recipe has."""

    json: bool = False
    """Print one JSON object as the last line of stdout."""


@command
class ArtifactCommand(RecipeCommand):
    """The flags of every verb that makes what trained steps need."""

    restart: bool = False
    """Move the trained steps of the run folder to previous/ if they have other settings than the recipe."""


@command
class TrainCommand(RecipeCommand):
    """The flags of `train` and `run`."""

    restart: bool = False
    """Move the trained steps of the run folder to previous/, and train from the first step."""
    extend: bool = False
    """Continue from the newest checkpoint on another schedule, although the steps so far had the learning
    rates of the earlier one."""
    resume_from: Folder | None = None
    """Continue this archived training, such as previous/train-1; the one in place moves to previous/."""


@command
class RunCommand(TrainCommand):
    """The flags of `run`."""

    retrain_vocab: bool = False
    """Train the vocabulary again if files of the text were added, removed or changed since."""


@command
class FinetuneCommand(RecipeCommand):
    """The flags of `finetune`."""

    restart: bool = False
    """Move the steps that are fine-tuned to finetune/previous/, and begin again."""
    extend: bool = False
    """Continue from the newest checkpoint on another schedule, although the steps so far had the learning
    rates of the earlier one."""


@command
class VocabCommand(ArtifactCommand):
    """The flags of `vocab`."""

    retrain_vocab: bool = False
    """Train the vocabulary again if files of the text were added, removed or changed since."""
    compare: Strings = ()
    """Compare these tokenizers on held-out text, and train none. Each is a run folder, or what
    --vocab.tokenizer accepts."""
    max_bytes: Positive = MAX_BYTES
    """With --compare: the size of the held-out text, which is cut at the end of a document."""
    plot: Folder | None = None
    """With --compare: draw the figures into this .png, .svg or .pdf file."""
    trim: str = ""
    """Write this model, and its tokenizer, with only the pieces that the text uses, as trimmed/."""
    extend: str = ""
    """Add the pieces of a vocabulary of --vocab.size to this model, and write it as extended/."""
    min_count: Positive = 1
    """With --trim: keep the pieces that occur at least so often."""
    max_pieces: int | None = None
    """With --trim: keep no more than so many of these, the most frequent. Default: all of them."""


@command
class PrepareCommand(ArtifactCommand):
    """The flags of `prepare`."""

    strict: bool = False
    """Stop at the first record that cannot be read; the same as --corpus.strict."""
    verify: bool = False
    """Check the hashes of the existing store, and write none."""
    status: bool = False
    """Print how far it is and which tasks failed, and start nothing; also while another process prepares."""


@command
class ExportCommand(RecipeCommand):
    """The flags of `export`."""

    step: Positive | None = None
    """Export the checkpoint after this step, if it is kept, into the folder model-step-N."""
    average: Positive | None = None
    """Export the mean of the parameters of the last K checkpoints that are kept, into the folder
    model-average-K; with --step: of the last K up to that step."""
    encoder_only: bool = False
    """Export the encoder alone, for embeddings, into the folder model-encoder."""
    check: bool = False
    """Compare ids and logits with those in transformers, if it is installed, and say so on the card."""
    for_: Literal["ctranslate2", "onnx"] | None = None
    """Also write the model for this runtime, as model-onnx for instance, and compare what it computes."""
    python: Folder | None = None
    """With --for onnx: the Python of an environment with optimum-onnx."""
    push: str = ""
    """Push the folder to this repository on the Hugging Face Hub, USER/NAME, which is made private if it is
    new. The same command continues an interrupted push."""
    public: bool = False
    """With --push: make the repository public, or push to one that is."""
    revisions: bool = False
    """With --push: export the earlier checkpoints that are kept too, and push each as a branch step-N."""


@command
class GenerateCommand:
    """Fill in the masked spans of texts, or write the text that a model was trained to write for each."""

    model: Annotated[Folder, POSITIONAL]
    """A run folder, or an exported model folder."""
    text: Annotated[Strings, POSITIONAL] = ()
    """Texts, with <extra_id_0>, <extra_id_1>, ... where words are missing. Default: the lines of stdin."""
    input: Folder | None = None
    """Read the texts from this file: JSON lines (.jsonl), or one text per line."""
    field: str = "text"
    """With --input: the field with the text, in JSON lines."""
    output: Folder | None = None
    """With --input: write a line of JSON for each line of the input to this file. The same command continues
    it after an interruption."""
    mode: str | None = None
    """Mode token before each text, for models that were trained with mode tokens, such as [R]; "" for none.
    Default: that of the model's first denoiser that masks spans."""
    json: bool = False
    """Print one JSON object as the last line of stdout."""


@command
class RecipesCommand:
    """List the recipes that are bundled with t5smith."""

    json: bool = False
    """Print one JSON object as the last line of stdout."""


@dataclass(frozen=True)
class RecipeVerb:
    """A verb that takes a recipe.

    Attributes:
      help: what it does.
      module: the module of the function behind it, which has the verb's name.
      kind: the kind of artifact that it makes; None if it makes several.
      command: its flags beside the settings.
      common: the settings that are changed most.
      shown: tables that it reads, and that its help shows in full.
      named: tables that it reads, of which its help only names the settings.
    """

    help: str
    module: str
    kind: str | None
    common: tuple[str, ...]
    shown: tuple[str, ...]
    named: tuple[str, ...]
    command: type[RecipeCommand] = RecipeCommand


_CLEANING = (
    *("cleaning", "cleaning.length", "cleaning.language", "cleaning.gopher_quality"),
    *("cleaning.gopher_repetition", "cleaning.c4", "cleaning.fineweb", "cleaning.near_duplicates"),
)
_CHANGED_MOST = (
    *("model", "input_length", "target_length", "denoising", "early_stopping"),
    *("train.steps", "train.batch_size", "train.optimizer.name", "train.optimizer.learning_rate"),
)
_TRAIN = ("train", "train.optimizer", "train.schedule")
_STAGES = ("vocab", "prepare", "objective", "model")

RECIPE_VERBS: Mapping[str, RecipeVerb] = MappingProxyType(
    {
        "run": RecipeVerb(
            "Run every stage in order. Finished stages are skipped if their inputs are unchanged.",
            "t5smith.pipeline",
            None,
            common=(
                "run_dir",
                "language",
                "corpus.train",
                "corpus.valid",
                "vocab.size",
                "objective.name",
                "objective.input_length",
                "model.size",
                "train.steps",
                "train.batch_size",
            ),
            shown=(),
            named=("", "corpus", *_CLEANING, *_STAGES, *_TRAIN, "evaluate", "export"),
            command=RunCommand,
        ),
        "vocab": RecipeVerb(
            "Train a tokenizer on the recipe's text, import one, or compare several.",
            "t5smith.vocabulary.train",
            "vocab",
            common=(
                "run_dir",
                "corpus.train",
                "corpus.format",
                "corpus.text_field",
                "vocab.tokenizer",
                "vocab.size",
                "vocab.user_symbols",
                "vocab.normalization",
                "vocab.byte_fallback",
                "vocab.sample_bytes",
            ),
            shown=("vocab", "corpus"),
            named=("", *_CLEANING),
            command=VocabCommand,
        ),
        "prepare": RecipeVerb(
            "Turn the recipe's text into a token store.",
            "t5smith.pipeline",
            "store",
            common=(
                "run_dir",
                "corpus.train",
                "corpus.valid",
                "corpus.held_out_fraction",
                "corpus.format",
                "corpus.document",
                "corpus.text_field",
                "cleaning.steps",
                "prepare.executor",
                "prepare.tasks",
            ),
            shown=("corpus", "prepare"),
            named=("", *_CLEANING, "vocab"),
            command=PrepareCommand,
        ),
        "train": RecipeVerb(
            "Train the model on the token store.",
            "t5smith.training.train",
            "checkpoint",
            common=(
                "run_dir",
                "objective.name",
                "model.size",
                "train.steps",
                "train.batch_size",
                "train.precision",
                "train.evaluate_every",
                "train.optimizer.name",
                "train.optimizer.learning_rate",
                "train.schedule.name",
            ),
            shown=_TRAIN,
            named=("", "corpus", "objective", "model", "evaluate"),
            command=TrainCommand,
        ),
        "evaluate": RecipeVerb(
            "Score the trained model on held-out text.",
            "t5smith.evaluation.scores",
            "evaluation",
            common=("run_dir", "evaluate.windows"),
            shown=("evaluate",),
            named=("", "corpus", "objective", "model", *_TRAIN),
        ),
        "export": RecipeVerb(
            "Write the trained model as a Hugging Face folder.",
            "t5smith.exporting.export",
            "model",
            common=("name", "run_dir", "language", "license"),
            shown=("export",),
            named=("", "corpus", "objective", "model", *_TRAIN, "evaluate"),
            command=ExportCommand,
        ),
        "finetune": RecipeVerb(
            "Fine-tune a model on tasks from text to text, score it, and export the best checkpoint.",
            "t5smith.pipeline",
            None,
            common=("run_dir", *(f"finetune.{name}" for name in _CHANGED_MOST)),
            shown=("finetune",),
            named=("", *(f"finetune.{name}" for name in _TRAIN)),
            command=FinetuneCommand,
        ),
    }
)
"""Tables that a verb reads: those of its own stage, and those that say which artifacts it builds on."""
