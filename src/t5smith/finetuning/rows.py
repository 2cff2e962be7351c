"""The rows of a task's files, each with its place: JSON lines, tables in text, Parquet and Arrow."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn
from t5smith.text.compression import compression_suffix, open_stream
from t5smith.text.corpus import find_files
from t5smith.text.formats.columns import nested_value
from t5smith.text.formats.parquet_arrow import arrow_batches
from t5smith.text.locations import Location, RowRange

LONGEST_FIELD = 1 << 30
FORMATS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".tsv": "csv",
    ".csv": "csv",
    ".parquet": "table",
    ".arrow": "table",
}
SHOWN = 3
"""Skipped rows of each kind whose places are printed; all are counted."""


@dataclass(frozen=True)
class Row:
    """A row of a file: its fields, and its place as `FILE:LINE`, or `FILE:ROW` for Parquet."""

    fields: Mapping[str, Any]
    place: str

    def value(self, field: str) -> Any:
        """A field, or one within others as `answers.text`; None if it is missing."""
        return nested_value(self.fields, field)


@dataclass
class Skipped:
    """The rows that cannot be used: their number by reason, and the places of the first ones."""

    counts: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, reason: str, place: str) -> None:
        """Count a row; the first ones of each reason are printed."""
        number = self.counts[reason] = self.counts.get(reason, 0) + 1
        if number <= SHOWN:
            warn(f"{place}: {reason}; the row is skipped")
        elif number == SHOWN + 1:
            warn(f"more rows are skipped ({reason}); the examples' manifest has their number")


def task_files(patterns: tuple[str, ...], setting: str) -> list[Location]:
    """The files that patterns stand for.

    Raises:
      T5smithError: there are none, or one has a format that has no rows.
    """
    files = find_files(patterns, setting)
    for file in files:
        _format(file, setting)
    return files


def _format(file: Location, setting: str) -> str:
    name = str(file.file if isinstance(file, RowRange) else file)
    plain = name.lower().removesuffix(compression_suffix(name)).partition("?")[0]
    found = FORMATS.get(Path(plain).suffix)
    if found is None:
        expected = f"one of {', '.join(FORMATS)}, compressed or not"
        raise T5smithError(
            f"{name}: rows are not read from this kind of file", where=setting, expected=expected
        )
    return found


def read_rows(file: Location, setting: str, skipped: Skipped) -> Iterator[Row]:
    """The rows of a file, in order; what is no row is counted.

    Raises:
      T5smithError: the file cannot be read, is damaged, or a table has no line of column names.
    """
    kind = _format(file, setting)
    start, stop, name = 0, None, str(file)
    if isinstance(file, RowRange):
        start, stop, name = file.start, file.stop, str(file.file)
    reader = {"jsonl": _json_rows, "csv": _csv_rows, "table": _table_rows}[kind]
    with open_stream(name, seekable=kind == "table") as (_, stream):
        for number, row in enumerate(reader(name, stream, skipped)):
            if stop is not None and number >= stop:
                return
            if number >= start and row is not None:
                yield row


def _json_rows(name: str, stream: IO[bytes], skipped: Skipped) -> Iterator[Row | None]:
    for number, raw in enumerate(stream, 1):
        if number == 1 and raw.lstrip()[:1] == b"[":
            fix = "write one object per line: `jq -c '.[]'` does so"
            raise T5smithError("this is one JSON array", where=name, expected="JSON lines", fix=fix)
        if raw.isspace():
            continue
        place = f"{name}:{number}"
        try:
            value: object = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError:
            skipped.add("not UTF-8", place)
            yield None
            continue
        except ValueError:
            skipped.add("not JSON", place)
            yield None
            continue
        if not isinstance(value, dict):
            skipped.add("not a JSON object", place)
            yield None
            continue
        yield Row(cast("dict[str, Any]", value), place)


def _csv_rows(name: str, stream: IO[bytes], skipped: Skipped) -> Iterator[Row | None]:
    """Rows of a table in text. A .tsv has no quotes (IANA), but one around a whole field is taken off."""
    csv.field_size_limit(LONGEST_FIELD)
    tabs = ".tsv" in Path(name.lower()).suffixes
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        first = text.readline()
        delimiter = "\t" if tabs else max(",;\t", key=first.count)
        columns = next(csv.reader([first], delimiter=delimiter), [])
        if len(columns) < 2 or not all(column.strip() for column in columns):
            what = f"{len(columns)} columns" if len(columns) != 1 else "one column"
            expected = "two or more names of columns in the first line"
            raise T5smithError(
                what, where=f"{name}:1", expected=expected, fix="write such a line above the rows"
            )
        quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        rows = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=True)
        line = 1
        while True:
            place = f"{name}:{line + 1}"
            try:
                values = next(rows, None)
            except csv.Error as error:
                if "end of data" in str(error):
                    what, fix = "a quote is never closed", "close it: all text below it is read as one field"
                    raise T5smithError(what, where=place, fix=fix) from None
                skipped.add("not CSV", place)
                line = rows.line_num + 1
                yield None
                continue
            line = rows.line_num + 1
            if values is None:
                return
            if not values:
                continue
            if len(values) != len(columns):
                skipped.add(f"{len(values)} fields instead of {len(columns)}", place)
                yield None
                continue
            if any("\udc80" <= character <= "\udcff" for value in values for character in value):
                skipped.add("not UTF-8", place)
                yield None
                continue
            values = list(map(_unquoted, values)) if tabs else values
            yield Row(dict(zip(columns, values, strict=True)), place)
    finally:
        text.detach()


def _unquoted(value: str) -> str:
    """A field of a .tsv without the quotes that spreadsheets put around it."""
    inner = value[1:-1].replace('""', "")
    quoted = len(value) > 1 and value[0] == value[-1] == '"' and '"' not in inner
    return value[1:-1].replace('""', '"') if quoted else value


def _table_rows(name: str, stream: IO[bytes], skipped: Skipped) -> Iterator[Row | None]:
    """Rows of Parquet, or of Arrow's stream or file, as data sets are saved."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        if ".parquet" in Path(name.lower()).suffixes:
            batches = pq.ParquetFile(stream).iter_batches(batch_size=1024)
        else:
            batches = arrow_batches(stream)[1]
        for batch in batches:
            for fields in batch.to_pylist():
                number += 1
                yield Row(fields, f"{name}:{number}")
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise T5smithError(
            f"damaged, or not what its name says ({error})", where=name, fix="fetch the file again"
        ) from None
