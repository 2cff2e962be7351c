"""The verb `t5smith bench`: what it measures, with the flags of each part."""

from __future__ import annotations

from dataclasses import dataclass

from t5smith.base.errors import T5smithError
from t5smith.cli.flags import command
from t5smith.cli.help import HELP_FLAGS, parse_or_help
from t5smith.cli.output import function, numbers, print_columns, print_json
from t5smith.recipe.base import Folder, Strings, did_you_mean


@command
class BenchCorruptCommand:
    """How fast windows become inputs and targets on one core, beside an implementation that takes one window
    at a time.
    """

    batch: int = 128
    """Windows per batch."""
    input_length: int = 512
    """Encoder positions; the window length follows from it."""
    noise_density: float = 0.15
    """Share of the tokens that are masked."""
    mean_noise_span_length: float = 3.0
    """Mean length of a masked span, in tokens."""
    seconds: float = 1.0
    """How long each of the two runs, per repeat."""
    repeats: int = 5
    """How often they take turns."""
    json: bool = False
    """Print one JSON object as the last line of stdout."""


@command
class BenchInputCommand:
    """How fast a store becomes shuffled, corrupted, batched arrays, in one process."""

    store: Folder | None = None
    """A run folder or its store. Default: 50 million random ids in a temporary folder."""
    objective: str = "span_corruption"
    """span_corruption, prefix_lm or ul2, with their default lengths."""
    batch: int = 128
    """Examples per batch."""
    corpora: int = 1
    """Split the text into this many corpora, mixed equally."""
    workers: int = 0
    """Processes that make batches; 0: this one, in the foreground."""
    seconds: float = 2.0
    """How long batches are made, per repeat."""
    repeats: int = 5
    """Number of repeats."""
    device_tflops: float = 495.0
    """Speed of the device whose step is compared; 495 is half of an H100's data sheet for bfloat16."""
    json: bool = False
    """Print one JSON object as the last line of stdout."""


@command
class BenchPrepareCommand:
    """How fast text becomes a token store, beside the tokenizers library alone."""

    input: Strings = ()
    """Files, folders or globs. Default: the bundled text, repeated to 50 MB."""
    tokenizer: Folder | None = None
    """Folder with a tokenizer.json. Default: 8,000 pieces trained on the text."""
    tasks: int = 0
    """Tasks of prepare; 0: one per core."""
    repeats: int = 3
    """Number of repeats; medians are reported."""
    json: bool = False
    """Print one JSON object as the last line of stdout."""


@command
class BenchTrainCommand:
    """How fast a T5 1.1 trains on this device: whole steps on random tokens, without padding;
    and where the time of a step goes.
    """

    size: str = "t5-v1.1-small"
    """t5-v1.1-small, t5-v1.1-base, t5-v1.1-large or t5-v1.1-xl."""
    batch: int = 8
    """Examples per batch."""
    precision: str = "bfloat16"
    """Precision of matrix products: float32 or bfloat16."""
    input_length: int = 512
    """Encoder positions."""
    target_length: int = 114
    """Decoder positions."""
    optimizer: str = "adamw"
    """adafactor, adamw, adamwscale, muon or muon_adafactor."""
    remat: str = "none"
    """What the backward pass recomputes: none, dots or full."""
    gradient_accumulation: int = 1
    """Parts of a batch that are computed one after the other."""
    steps: int = 1
    """Steps per repeat."""
    repeats: int = 7
    """Number of repeats; the median is reported."""
    parts: bool = True
    """Then measure where the step's time goes: products, attention, head and loss, optimizer, input."""
    json: bool = False
    """Print one JSON object as the last line of stdout."""


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


def bench(args: list[str]) -> None:
    """Measure what the first argument names.

    Raises:
      T5smithError: there is no such part, or its flags cannot be used.
    """
    if not args or args[0] in HELP_FLAGS:
        print("usage: t5smith bench PART [--flag VALUE ...]\n")
        print_columns({f"  {name}": part.command.__doc__ or "" for name, part in BENCH_PARTS.items()})
        return
    if args[0] not in BENCH_PARTS:
        raise T5smithError(
            f"unknown part{did_you_mean(args[0], BENCH_PARTS)}",
            where=f"bench {args[0]}",
            expected=f"one of {', '.join(BENCH_PARTS)}",
        )
    part = BENCH_PARTS[args[0]]
    parsed = parse_or_help(part.command, args[1:], f"bench {args[0]}")
    if parsed is None:
        return
    flags = {name: value for name, value in vars(parsed).items() if name != "json"}
    facts = function(part.module, part.function)(**flags)
    if parsed.json:
        print_json(facts)
        return
    parts = facts.pop("parts", None)
    for name, value in numbers(facts):
        print(f"{name:<32} {value:>16,}")
    if parts:
        function("t5smith.benchmarking.parts_table", "show")(parts, facts)
