"""The text and its documents: the table `[corpus]`."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from t5smith.recipe.base import Fraction, Settings, Strings

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)=(.+)")
_NOT_RELATIVE = re.compile(r"/|~|bundled:|hf:|[a-z][a-z0-9+.-]*://")


Format = Literal[
    "auto", "text", "jsonl", "csv", "parquet", "arrow", "warc", "mediawiki", "wikiextractor", "html"
]


class CorpusSettings(Settings):
    """The text and its documents."""

    section: ClassVar[str] = "corpus"

    train: Strings = ()
    """Files, folders or globs of training text, relative to the current folder; `bundled:NAME` is text that
    is bundled with t5smith. `NAME=` before a path names a corpus, and named corpora are mixed by `weights` or
    `temperature`: nb=texts/nb nn=texts/nn."""
    weights: Strings = ()
    """Relative share of the training windows of each named corpus: nb=2 nn=1. Default: by `temperature`."""
    temperature: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Named corpora get shares in proportion to size^(1/temperature); 1: by size. mT5: 3.33."""
    valid: Strings = ()
    """Held-out text. Default: the share `held_out_fraction` of the documents in `train`."""
    held_out_fraction: Fraction = 0.01
    """Share of documents that are held out, chosen by a hash of their text; not used if `valid` is set."""
    exclude: Strings = ()
    """Texts that must not be trained on, such as a takedown list or test sets: files of texts in any format,
    or of their hashes, one per line (the SHA-256 of the words of a text with single spaces between them).
    What matches in `train` is dropped and counted; `valid` stays as it is."""
    exclude_near_matches: bool = True
    """Also drop near matches of the texts of `exclude`, found as `cleaning.near_duplicates` says."""
    format: Format = "auto"
    """File format. auto: by the file name (.jsonl .json .ndjson .jsonlines, .csv .tsv, .parquet, .arrow,
    .warc .wet, .html .htm) or its first lines; other files are plain text. Archives (.zip, .tar)
    and compression (.gz, .xz, .zst, .bz2) are recognized by the first bytes; an archive's files are of this
    format."""
    valid_format: Format | None = None
    """File format of `valid`. Default: as `format`."""
    document: Literal["block", "file", "line"] = "block"
    """What one document of a plain text file is: a block between blank lines, the file, or a line."""
    text_field: str = ""
    """The field or column that has the text. Default: `text` or another common name, or the only text
    field."""
    longest_document: Annotated[int, Field(ge=1, le=2**31 - 1)] = 100_000_000
    """Maximum size of a document, in bytes. Larger ones are skipped and counted."""
    strict: bool = False
    """Stop at the first record that cannot be read, instead of skipping and counting it."""

    def of_split(self, split: str) -> CorpusSettings:
        """The settings that the files of a split are read with.

        Args:
          split: `train` or `valid`; "": files of which a part is held out.
        """
        if split != "valid" or self.valid_format is None:
            return self
        return self.model_copy(update={"format": self.valid_format})


def split_name(pattern: str) -> tuple[str, str]:
    """`nb=texts/nb` in its two parts; the name of a pattern without one is ""."""
    named = _NAMED.fullmatch(pattern)
    return (named[1], named[2]) if named else ("", pattern)


def starting_from(folder: Path, pattern: str) -> str:
    """A pattern whose relative path starts from `folder`, as one that means the same everywhere."""
    name, path = split_name(pattern)
    if not path or _NOT_RELATIVE.match(path):
        return pattern
    start = glob.escape(str(folder)) if glob.has_magic(path) else str(folder)
    return f"{name}={os.path.join(start, path)}" if name else os.path.join(start, path)
