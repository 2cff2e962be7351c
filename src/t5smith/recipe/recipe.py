"""A recipe: every setting of a run, typed, frozen and checked when it is made.

Settings come from a TOML file or a preset name and may be overridden by dotted flags
(``--train.steps 50``). A value that cannot be used is refused with its place and what is allowed;
nothing is coerced or ignored. ``presets.py`` reads the files, this module says what may stand in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import Folder, Fraction, NonNegative, Positive, Settings, Strings
from t5smith.recipe.cleaning import CleaningSettings
from t5smith.recipe.symbols import check_symbols
from t5smith.recipe.training import TrainSettings

SENTINELS = 100
"""T5 has one hundred sentinels, `<extra_id_0>` to `<extra_id_99>`."""


class CorpusSettings(Settings):
    """Where the text is and what a document is."""

    section: ClassVar[str] = "corpus"

    train: Strings = ()
    """Files, folders or globs of text to train on, relative to the folder the command is run in;
    `bundled:NAME` is text that comes with t5smith. With `NAME=` before them they are corpora of their own,
    mixed as `weights` or `temperature` say: nb=texts/nb nn=texts/nn."""
    weights: Strings = ()
    """Shares of the training windows for each named corpus: nb=2 nn=1. Left out: by `temperature`."""
    temperature: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Named corpora have shares in proportion to size^(1/temperature); 1: by size. mT5: 3.33."""
    valid: Strings = ()
    """Held-out text. Without it, held_out_fraction of the documents in `train` are held out."""
    held_out_fraction: Fraction = 0.01
    """Share of documents held out, chosen by a hash of their text; unused when `valid` is given."""
    format: Literal["auto", "text", "jsonl", "csv", "parquet", "arrow", "warc"] = "auto"
    """auto goes by the file name: .jsonl .json .ndjson, .csv .tsv, .parquet, .arrow, .warc .wet; all else is
    plain text. Compressed files (.gz, .xz, .zst, .bz2) go by what stands before that."""
    document: Literal["block", "file", "line"] = "block"
    """What one document of a plain text file is: a block between blank lines, the file, or a line."""
    text_field: str = ""
    """The field or column with the text. Left out: `text` or another usual name, or the only one of text."""
    longest_document: Annotated[int, Field(ge=1, le=2**31 - 1)] = 100_000_000
    """Documents of more bytes are left out, and counted."""
    strict: bool = False
    """Stop at the first record that cannot be read, instead of leaving it out and counting it."""


class VocabSettings(Settings):
    """A SentencePiece-style Unigram vocabulary with T5's sentinels."""

    section: ClassVar[str] = "vocab"

    tokenizer: str = ""
    """Train none, take this: a folder, tokenizer.json or .model file, a name on the Hub as google/mt5-small,
    with hf:NAME@REVISION at one revision, or `bytes` (ByT5)."""
    size: Annotated[int, Field(ge=8, le=1_000_000)] = 32_000
    """Pieces asked for, `<pad>`, `</s>` and `<unk>` included, the 100 sentinels not (T5: 32,000)."""
    control_symbols: Strings = ()
    """Pieces that no text turns into, put before the sentinels, as the mode tokens of a mixture."""
    user_symbols: Strings = ()
    """Pieces that stand for themselves wherever they are in a text, as <br>; they are among `size`."""
    max_piece_length: Annotated[int, Field(ge=1, le=64)] = 16
    """Longest piece in characters."""
    normalization: Literal["nfkc", "nmt_nfkc", "nfc", "none"] = "nfkc"
    """What is done to characters before pieces are looked up; nmt_nfkc is T5's own table. In any case white
    space becomes single spaces."""
    lowercase: bool = False
    """Make all letters small, for good: the model never sees or writes capitals."""
    split_digits: bool = False
    """Make each digit a piece of its own."""
    byte_fallback: bool = False
    """Write characters that no piece covers as UTF-8 bytes, not as <unk>; 256 of `size` are for them."""
    character_coverage: Annotated[float, Field(ge=0.9, le=1)] = 1.0
    """Share of the characters in the text that must be pieces; the rarest may be left out. 1: all of them."""
    sample_bytes: Positive = 200_000_000
    """Train on at most this many bytes of text, drawn evenly over the documents."""
    temperature: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Named corpora have shares of the sample in proportion to size^(1/temperature); 1: by size."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides which text is drawn where there is more than sample_bytes."""

    @model_validator(mode="after")
    def _room_for_pieces(self) -> Self:
        taken = 3 + 256 * self.byte_fallback + len(set(self.user_symbols))
        if self.size < taken + 5:
            raise T5smithError(
                f"{self.size} cannot be used",
                where="vocab.size",
                expected=f"{taken + 5} or more: control pieces, bytes and user_symbols take {taken}",
            )
        return self

    @model_validator(mode="after")
    def _symbols_that_can_be(self) -> Self:
        check_symbols(self.control_symbols, self.user_symbols)
        return self


class PrepareSettings(Settings):
    """From text to the token store."""

    section: ClassVar[str] = "prepare"

    document_separator: Literal["eos", "none"] = "eos"
    """`</s>` after each document, or nothing as in T5's and mT5's own data."""
    executor: Literal["local", "slurm", "ray"] = "local"
    """Where the work is done: in processes on this machine, by a Slurm cluster, by Ray."""
    tasks: NonNegative = 0
    """Parts that the work is dealt out in; the store does not depend on it. 0: one for each core here."""
    workers: NonNegative = 0
    """Tasks at work at a time. 0: as many as there are cores here, or as the cluster gives."""
    memory_gb: Positive = 2
    """slurm, ray: memory that is asked for each task."""
    slurm: Strings = ()
    """slurm: options of sbatch, as partition=normal time=24:00:00 account=mine."""


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


class ModelSettings(Settings):
    """The sizes of a T5 1.1 encoder-decoder; the defaults are T5-v1.1-small's."""

    section: ClassVar[str] = "model"

    d_model: Positive = 512
    """Width of the embeddings and of what layers hand on."""
    d_kv: Positive = 64
    """Width of one attention head."""
    d_ff: Positive = 1024
    """Width of the gated feed-forward layers."""
    num_layers: Positive = 8
    """Encoder layers."""
    num_decoder_layers: Positive = 8
    """Decoder layers."""
    num_heads: Positive = 6
    """Attention heads a layer."""
    relative_attention_num_buckets: Annotated[int, Field(ge=4)] = 32
    """Position biases a head: half for near distances one by one, half for far ones by their logarithm."""
    relative_attention_max_distance: Positive = 128
    """Distances from here on share one bucket."""
    tie_word_embeddings: bool = False
    """Share the embedding with the output head, as T5 1.0 did; its logits are scaled by d_model^-0.5."""
    vocab_multiple: Positive = 128
    """Round the rows of the embedding up to a multiple of this; the rows added are never predicted."""

    @model_validator(mode="after")
    def _far_is_beyond_near(self) -> Self:
        near = self.relative_attention_num_buckets // 2
        if self.relative_attention_max_distance <= near:
            raise T5smithError(
                f"{self.relative_attention_max_distance} cannot be used",
                where="model.relative_attention_max_distance",
                expected=f"over {near}, which is half of relative_attention_num_buckets",
            )
        return self


class EvaluateSettings(Settings):
    """What the held-out numbers are measured on."""

    section: ClassVar[str] = "evaluate"

    masks_per_window: Positive = 4
    """Fixed masks drawn for every held-out window."""
    batch_size: Positive = 64
    """Windows scored at a time; the figures do not depend on it."""
    windows: NonNegative = 0
    """Measure on the first so many held-out windows; 0: on all."""
    examples: NonNegative = 3
    """Filled-in examples shown at the end."""


class Recipe(Settings):
    """Everything a run depends on. Two runs of the same recipe and text give the same model."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "untitled"
    """Names the run folder. Left out of a recipe file: the name of the file."""
    run_dir: Folder | None = None
    """Where the artefacts go. Left out: runs/NAME."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides the order of the data, the training masks and the first weights."""
    language: str = ""
    """Language code for the model card, such as `nb`."""
    license: str = ""
    """Licence identifier for the model card, such as `apache-2.0`."""
    corpus: CorpusSettings = CorpusSettings()
    cleaning: CleaningSettings = CleaningSettings()
    vocab: VocabSettings = VocabSettings()
    prepare: PrepareSettings = PrepareSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run_dir if self.run_dir is not None else Path("runs") / self.name

    def replace(self, **changes: Any) -> Recipe:
        """A copy with dotted settings changed: ``recipe.replace(**{"train.steps": 50})``. Checked anew."""
        tree = self.model_dump()
        for dotted, value in changes.items():
            *parents, leaf = dotted.split(".")
            table = tree
            for parent in parents:
                table = table.setdefault(parent, {})
                if not isinstance(table, dict):
                    raise T5smithError(f"{parent} is a value, not a table", where=dotted)
            table[leaf] = value
        return Recipe.model_validate(tree)


def plain(settings: Settings | Mapping[str, Any]) -> dict[str, Any]:
    """Settings as what JSON and TOML can hold, in a stable order, without what is None."""
    return (
        settings.model_dump(mode="json", exclude_none=True)
        if isinstance(settings, Settings)
        else dict(settings)
    )
