"""The number of rows of a file of a data set."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable
from pathlib import Path

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.compression import open_stream
from t5smith.text.decompression import is_archive_damage
from t5smith.text.formats.csv import delimiter_of, headers
from t5smith.text.formats.parquet_arrow import arrow_row_count, parquet_row_count
from t5smith.text.locations import RemoteFile
from t5smith.text.recognition import ARCHIVES, recognized


def count_rows(file: Path | RemoteFile) -> int:
    """Rows of a Parquet or Arrow file, lines of a JSON lines file that are not blank, rows of a CSV file.

    Raises:
      T5smithError: it cannot be read, or has no rows.
    """
    name = str(file)
    kind = recognized(name)
    try:
        if kind == "parquet":
            with open_stream(name, seekable=True) as (_, stream):
                return parquet_row_count(stream, name)
        if kind == "arrow":
            with open_stream(name, seekable=True) as (_, stream):
                return arrow_row_count(stream, name)
        if kind == "jsonl":
            with open_stream(name) as (_, lines):
                return sum(1 for line in lines if not line.isspace())
        if kind == "csv":
            with (
                open_stream(name) as (_, stream),
                io.TextIOWrapper(stream, "utf-8-sig", "replace", newline="") as lines,
            ):
                return _csv_row_count(lines, name)
    except Exception as error:
        if not (is_archive_damage(error) or isinstance(error, csv.Error)):
            raise
        what = f"its rows cannot be counted ({error})"
        raise T5smithError(what, where=name, fix="fetch the file again, or name all of it") from None
    what = "plain text" if kind == "text" else ARCHIVES.get(kind, f"the format {kind}")
    raise T5smithError(
        f"{what} has no rows to count",
        where=name,
        expected="Parquet, Arrow, JSON lines or CSV, if a range of rows is named",
        fix="name all of it",
    )


def _csv_row_count(lines: Iterable[str], name: str) -> int:
    lines = iter(lines)
    first = next(lines, "")
    found = headers(first, name)
    # The text field is unknown here: a delimiter that splits the header is better than one that does not.
    delimiter = delimiter_of(found, "")
    if len(found[delimiter]) < 2:
        delimiter = next((other for other, columns in found.items() if len(columns) > 1), delimiter)
    # The default limit of csv is far below the longest document.
    before = csv.field_size_limit(CorpusSettings().longest_document)
    try:
        rows = csv.reader(itertools.chain([first], lines), delimiter=delimiter)
        return max(sum(1 for row in rows if row) - 1, 0)
    finally:
        csv.field_size_limit(before)
