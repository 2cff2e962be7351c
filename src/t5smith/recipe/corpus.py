"""Where the text is and what a document is: the table `[corpus]`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from t5smith.recipe.base import Fraction, Settings, Strings


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
