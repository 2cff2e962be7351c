"""What the verbs of the command line are, and what each takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from t5smith import __version__
from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe

MAX_BYTES = 10_000_000
"""Of held-out text that vocabularies are compared on if nothing else is said."""

Json = Annotated[bool, tyro.conf.FlagCreatePairsOff]

OVERVIEW = f"""\
t5smith {__version__}: raw text of your language in, a Hugging Face T5 out

usage: t5smith VERB [RECIPE] [--dotted.setting VALUE ...] [--json] [--help]

the whole job
  run        every stage below, in order; what is done and unchanged is kept

its stages
  vocab      text -> tokenizer; or bring one, or --compare several
  prepare    text and tokenizer -> token store
  train      token store -> checkpoints and metrics
  evaluate   checkpoint -> held-out figures
  export     checkpoint -> Hugging Face folder

a look inside
  generate   fill in the masked spans of a text
  inspect    what the model is given, and what it makes of it
  recipes    the recipes that come with t5smith
  bench      how fast this machine makes batches and trains

RECIPE is one of them or a .toml file. Begin with: t5smith run norwegian-tiny
t5smith VERB --help lists every setting, t5smith --version says which this is."""


@dataclass(frozen=True)
class RecipeCommand:
    """What every recipe verb takes."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    json: Json = False
    """Make the last line on stdout one JSON object."""

    @property
    def asked(self) -> tuple[Recipe, dict[str, Any]]:
        """The recipe, and what else the function takes."""
        return self.recipe, {}


@dataclass(frozen=True)
class VocabCommand(RecipeCommand):
    """What `vocab` takes."""

    compare: tuple[str, ...] = ()
    """Make nothing: measure these tokenizers on held-out text. Each as --vocab.tokenizer, or a run folder."""
    max_bytes: int = MAX_BYTES
    """With --compare: take so much held-out text, in whole documents."""
    plot: Path | None = None
    """With --compare: draw the figures into this .png or .svg file."""

    @property
    def measures(self) -> bool:
        """Whether tokenizers are compared."""
        for flag, given in (("--plot", self.plot is not None), ("--max-bytes", self.max_bytes != MAX_BYTES)):
            if given and not self.compare:
                raise T5smithError(
                    "there is no use for this", where=flag, expected="with --compare TOKENIZER"
                )
        return bool(self.compare)


@dataclass(frozen=True)
class PrepareCommand(RecipeCommand):
    """What `prepare` takes."""

    strict: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Stop at the first record that cannot be read: --corpus.strict."""
    verify: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Make nothing: read the whole store that is there and say whether it is as it was written."""

    @property
    def asked(self) -> tuple[Recipe, dict[str, Any]]:
        """The recipe, and what else the function takes."""
        recipe = self.recipe.replace(**{"corpus.strict": True}) if self.strict else self.recipe
        return recipe, {"verify": True} if self.verify else {}


@dataclass(frozen=True)
class GenerateCommand:
    """Fill in the masked spans of texts."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A run folder or an exported model folder."""
    text: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[TEXT ...]")] = ()
    """Texts with <extra_id_0>, <extra_id_1>, ... where words are missing; none: a text a line on stdin."""
    max_new_tokens: int = 64
    """Longest answer, in tokens."""
    mode: str = ""
    """Mode token put before each text, for a model trained with them: [R]."""
    json: Json = False
    """Make the last line on stdout one JSON object."""


@dataclass(frozen=True)
class InspectCommand:
    """Show what the model is given: of a text, of a run's batches, or counted over many of them."""

    text: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[TEXT]")] = None
    """The text to mask."""
    noise: tuple[str, ...] = ()
    """Parts of the text to mask; none: they are drawn at random. A part is widened to whole tokens."""
    file: Path | None = None
    """Take the text from this file; all of it is one window."""
    store: Path | None = None
    """A run folder: rows of its batches as training gets them; for a text, its objective and tokenizer."""
    batch: int = 0
    """Which batch of the run; with --stats the first."""
    rows: int = 1
    """How many rows of the batch, from the first on."""
    held_out: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The run's held-out windows on the evaluation's fixed masks, instead of training batches."""
    stats: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Count spans, places, padding and more beside the theory, of --store or of windows of no text."""
    batches: int | None = None
    """How many batches are counted; none: 20 of training, all that are held out."""
    loss: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Ask a model: the probability of every target token, its nats, and how they sum to the loss."""
    model: Path | None = None
    """The model to ask, a run folder or an exported model; none: that of --store."""
    recipe: str | None = None
    """Take this recipe's objective, a preset or a .toml file; none: that of --store, --model, or T5's."""
    objective: Literal["span_corruption", "prefix_lm", "ul2"] | None = None
    """Another objective instead; the flags below change what it has."""
    noise_density: float | None = None
    """Share of the tokens that are masked."""
    mean_noise_span_length: float | None = None
    """Mean length of a masked span, in tokens."""
    roll: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Turn masks by a random number of places."""
    no_eos: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave </s> out of inputs and targets."""
    seed: int | None = None
    """Decides the masks, and the order of a run's windows; none: the recipe's, or 0."""
    tokenizer: Path | None = None
    """A folder with a tokenizer, for a text; none: that of --model or --store, or T5's own."""
    full: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Shorten nothing: every position of long rows, every length of each denoiser."""
    json: Json = False
    """Make the last line on stdout one JSON object."""
    html: Path | None = None
    """Write the same as a page into this file."""
    plot: Path | None = None
    """With --stats: draw the counts into this PNG file."""


@dataclass(frozen=True)
class RecipesCommand:
    """List the recipes that come with t5smith."""

    json: Json = False
    """Make the last line on stdout one JSON object."""


@dataclass(frozen=True)
class BenchCorruptCommand:
    """How fast windows become inputs and targets on one core, beside a row-at-a-time peer."""

    batch: int = 128
    """Windows at a time."""
    input_length: int = 512
    """Encoder positions; the window follows from it."""
    noise_density: float = 0.15
    """Share of the tokens masked."""
    mean_noise_span_length: float = 3.0
    """Mean length of a span, in tokens."""
    seconds: float = 1.0
    """How long each of the two is run, each time."""
    repeats: int = 5
    """How many times they take turns."""
    json: Json = False
    """Make the last line on stdout one JSON object."""


@dataclass(frozen=True)
class BenchInputCommand:
    """How fast a store becomes shuffled, corrupted, batched arrays, in one process."""

    store: Path | None = None
    """A run folder or its store; none: 50 million random ids in a temporary folder."""
    objective: str = "span_corruption"
    """span_corruption, prefix_lm or ul2, with their default lengths."""
    batch: int = 128
    """Rows of a batch."""
    corpora: int = 1
    """Part the text into so many corpora, equally mixed."""
    workers: int = 0
    """Processes that make batches; 0: this one, in the foreground."""
    seconds: float = 2.0
    """How long batches are made, each time."""
    repeats: int = 5
    """How many times."""
    device_tflops: float = 495.0
    """Speed of the device whose step is compared; 495 is half of an H100's data sheet for bfloat16."""
    json: Json = False
    """Make the last line on stdout one JSON object."""


@dataclass(frozen=True)
class BenchPrepareCommand:
    """How fast text becomes a token store, beside the tokenizers library alone."""

    input: tuple[str, ...] = ()
    """Files, folders or globs; left out: the bundled text, repeated to 50 MB."""
    tokenizer: Path | None = None
    """Folder with a tokenizer.json; left out: 8,000 pieces are trained on the text."""
    tasks: int = 0
    """Tasks of prepare; 0: one for each core."""
    repeats: int = 3
    """How many times each; the medians count."""
    json: Json = False
    """Make the last line on stdout one JSON object."""


@dataclass(frozen=True)
class BenchTrainCommand:
    """How fast a T5 1.1 is trained on this device: whole steps on random tokens, without padding."""

    size: str = "t5-v1.1-small"
    """t5-v1.1-small, t5-v1.1-base, t5-v1.1-large or t5-v1.1-xl."""
    batch: int = 8
    """Rows of a batch."""
    precision: str = "bfloat16"
    """What products are computed in: float32 or bfloat16."""
    input_length: int = 512
    """Encoder positions."""
    target_length: int = 114
    """Decoder positions."""
    optimizer: str = "adamw"
    """adafactor, adamw, adamwscale or muon."""
    remat: str = "none"
    """What the backward pass computes anew: none, dots or full."""
    gradient_accumulation: int = 1
    """Parts a batch is worked on in."""
    steps: int = 1
    """How many steps are timed at once."""
    repeats: int = 7
    """How many times; the median counts."""
    json: Json = False
    """Make the last line on stdout one JSON object."""


@dataclass(frozen=True)
class BenchPart:
    """A part of `t5smith bench`: its flags, and the function behind it."""

    command: type[BenchCorruptCommand | BenchInputCommand | BenchPrepareCommand | BenchTrainCommand]
    module: str
    function: str


BENCH_PARTS = {
    "corrupt": BenchPart(BenchCorruptCommand, "t5smith.benchmarking.corrupt", "bench_corrupt"),
    "input": BenchPart(BenchInputCommand, "t5smith.benchmarking.inputs", "bench_input"),
    "prepare": BenchPart(BenchPrepareCommand, "t5smith.benchmarking.preparing", "bench_prepare"),
    "train": BenchPart(BenchTrainCommand, "t5smith.benchmarking.training", "bench_train"),
}


@dataclass(frozen=True)
class RecipeVerb:
    """A verb of a recipe: the function behind it, and the kind of folder that it makes."""

    help: str
    module: str
    kind: str | None = None
    command: type[RecipeCommand] = RecipeCommand


RECIPE_VERBS = {
    "run": RecipeVerb(
        "Do the whole job; what is finished and unchanged is not done again.", "t5smith.pipeline"
    ),
    "vocab": RecipeVerb(
        "Train a tokenizer on the recipe's text, bring one in, or compare several.",
        "t5smith.vocabulary.train",
        "vocab",
        VocabCommand,
    ),
    "prepare": RecipeVerb(
        "Turn the recipe's text into a token store.", "t5smith.pipeline", "store", PrepareCommand
    ),
    "train": RecipeVerb("Train the model on the token store.", "t5smith.training.loop", "checkpoint"),
    "evaluate": RecipeVerb(
        "Measure the trained model on held-out text.", "t5smith.evaluation.scores", "evaluation"
    ),
    "export": RecipeVerb(
        "Write the trained model as a Hugging Face folder.", "t5smith.exporting.export", "model"
    ),
}
