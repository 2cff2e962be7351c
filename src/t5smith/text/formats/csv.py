"""Documents of CSV files, one per row."""

from __future__ import annotations

import codecs
import csv
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.compression import OpenAgain, compression_suffix, opened
from t5smith.text.document import WHOLE_FILE
from t5smith.text.formats.columns import SHOWN, USUAL, named_column, shown, text_column
from t5smith.text.formats.plain import TOO_LONG, Lines, Positioned
from t5smith.text.skipped_records import FileRecords, SkippedRecords

MAX_SAMPLED = 20
"""Number of rows that show which columns hold text, if no name does."""


def csv_rows(lines: Lines, corpus: CorpusSettings, again: OpenAgain | None = None) -> Iterator[Positioned]:
    """Documents of the rows below a line of column names.

    A quoted field may contain line breaks, so finding a row takes reading everything before it.

    Args:
      lines: of the file.
      corpus: settings.
      again: opens the file, if it is a member of an archive.

    Raises:
      T5smithError: the first line has no column names, or they leave open which holds the text.
    """
    # Without a limit, an unclosed quote would swallow the rest of the file.
    csv.field_size_limit(lines.longest)
    rows = _Rows(lines, corpus.text_field)
    if (columns := rows.header()) is None:
        return
    column = columns.index(_text_column(lines, columns, corpus, again))
    blocks, records = lines.blocks, lines.records
    while True:
        rows.begin()
        here = f"{lines.name}:{rows.line}"
        ours = blocks.includes(blocks.block_of(rows.position))
        yield rows.position, None
        try:
            row = rows.read()
        except csv.Error as error:
            if ours and not rows.torn:
                fix = "close the quotes, or raise corpus.longest_document"
                records.skip("not CSV", T5smithError(f"not CSV ({error})", where=here, fix=fix))
            continue
        if row is None or lines.damaged:
            break
        if not ours:
            continue
        if rows.torn or (not row and not rows.unclosed):
            continue
        if rows.unclosed:
            records.skip("not CSV", rows.never_closed(row))
        elif row == columns:
            error = T5smithError("the line of column names again", where=here, expected="a row")
            records.skip("repeated headers", error)
        elif len(row) != len(columns):
            what = f"{len(row)} fields"
            fix = "put fields with the delimiter or line breaks in them in double quotes"
            error = T5smithError(what, where=here, expected=f"{len(columns)}, as in the first line", fix=fix)
            records.skip("wrong number of fields", error)
        elif not _is_utf8(row[column]):
            error = T5smithError("invalid UTF-8", where=here, expected="text in UTF-8")
            records.skip("not UTF-8", error)
        else:
            yield rows.position, lines.document(row[column], rows.line)
    yield lines.last, None


def headers(first: str, name: str) -> dict[str, list[str]]:
    """The names of columns in the first line of a file, for each possible delimiter.

    The first is the one of the file's suffix: a tab for .tsv, a comma for all others.
    """
    tabs = Path(name.lower().removesuffix(compression_suffix(name))).suffix == ".tsv"
    found: dict[str, list[str]] = {}
    for delimiter in ("\t", ",", ";") if tabs else (",", ";", "\t"):
        try:
            found[delimiter] = next(csv.reader([first], delimiter=delimiter), [])
        except csv.Error:
            found[delimiter] = []
    return found


def delimiter_of(found: dict[str, list[str]], field: str) -> str:
    """The delimiter of the file's suffix, or the only one that gives a column the name of a text column."""
    own = next(iter(found))
    named = [delimiter for delimiter, columns in found.items() if named_column(columns, field)]
    return named[0] if len(named) == 1 else own


class _Rows:
    """The rows of a file, and where each begins, which Python's reader does not report.

    Attributes:
      position, line: of the row, its first byte and line.
      torn: a line of it was too long, and is missing.
      unclosed: the file ended within quotes.
    """

    def __init__(self, lines: Lines, field: str) -> None:
        self.lines, self._within = lines, False
        self.begin()
        texts = self._texts()
        self.first = next(texts, "")
        delimiter = delimiter_of(headers(self.first, lines.name), field)
        all_texts = itertools.chain([self.first] if self.first else [], texts)
        self._rows = csv.reader(all_texts, delimiter=delimiter, strict=False)

    def begin(self) -> None:
        """Start the next row here."""
        within = self._within  # a line of which a part is left
        self.position = self.lines.position if within else self.lines.next
        self.line = self.lines.number + (not within)
        self.torn = self.unclosed = self._begun = False

    def header(self) -> list[str] | None:
        """The names of the columns; None: the file is empty, or damaged in the first line.

        Raises:
          T5smithError: they are not UTF-8, not CSV or too long.
        """
        where = f"{self.lines.name}:1"
        if not _is_utf8(self.first):
            fix = "save it as UTF-8 (`iconv -f latin1 -t utf-8`)"
            raise T5smithError("the header is not UTF-8", where=where, expected="text in UTF-8", fix=fix)
        if self.first.endswith("\r"):
            what, fix = "lines end as on old Macs (CR)", r"end them with LF (`tr '\r' '\n'`)"
            raise T5smithError(what, where=where, fix=fix)
        try:
            columns = self.read()
        except csv.Error as error:
            raise T5smithError(f"the header is not CSV ({error})", where=where) from None
        if self.torn:
            fix = "end lines with LF, or raise corpus.longest_document"
            raise T5smithError("the header is longer than allowed", where=where, fix=fix)
        if columns and self.unclosed:
            raise self.never_closed(columns)
        return None if self.lines.damaged else columns

    def read(self) -> list[str] | None:
        """The row's fields; None: there are no more rows.

        Raises:
          csv.Error: it is not CSV.
        """
        return next(self._rows, None)

    def never_closed(self, row: list[str]) -> T5smithError:
        """The error for a file that ends within quotes: its last field has all text after the open quote."""
        ends = row[-1].count("\n") - row[-1].endswith("\n")
        where = f"{self.lines.name}:{self.lines.number - ends}"
        fix = "close the quote: all text below it is read as one field"
        return T5smithError("not CSV (a quote is never closed)", where=where, fix=fix)

    def _texts(self) -> Iterator[str]:
        # Invalid UTF-8 is found later, in the row: skipping a line here would break quotes apart.
        lines = self.lines
        for raw in lines.raw():
            if not self._begun and raw[:1] == b"\xef":  # files that were joined
                raw = raw.removeprefix(codecs.BOM_UTF8)
            self._begun = True
            if raw == TOO_LONG:
                # A row is counted once, however many of its lines are too long.
                if not self.torn and lines.blocks.includes(lines.blocks.block_of(self.position)):
                    lines.decoded(raw)
                self.torn = True
                # It opens or closes quotes as it would whole.
                raw = b'"\n' if lines.quotes % 2 else b"\n"
            text = raw.decode("utf-8", "surrogateescape")
            if "\r" in text and text.count("\r") > text.endswith("\r\n"):
                # A CR alone ends a row too, as in files of mixed ends.
                *rows, last = _ENDED_BY_CR.split(text)
                for self._within, part in ((True, part) for part in rows):
                    self._begun = True
                    yield part
                self._within, self._begun = False, True
                yield last
            else:
                yield text
        # A row continues past the end of a line only within quotes.
        self.unclosed = self._begun and not lines.damaged


_ENDED_BY_CR = re.compile(r"(?<=\r)(?!\n)(?=.)", re.DOTALL)


def _text_column(lines: Lines, columns: list[str], corpus: CorpusSettings, again: OpenAgain | None) -> str:
    where = f"{lines.name}:1"
    if not named_column(columns, corpus.text_field) and (values := list(filter(_is_value, columns))):
        raise _no_header(values[0], where)
    if corpus.text_field or named_column(columns, ""):
        return text_column(columns, columns, corpus.text_field, where)
    if len(columns) == 1:
        raise _only_column(columns[0], where)
    found = text_column(columns, _texts_among(lines.name, columns, corpus, again), "", where)
    if values := [name for name in columns if name and not _has_words(name)]:
        raise _no_header(values[0], where)
    return found


def _is_value(name: str) -> bool:
    """Whether what stands where the name of a column should is an address or a longer text."""
    return "://" in name or (len(name) > SHOWN and name.count(" ") > 4)


def _no_header(value: str, where: str) -> T5smithError:
    what = f"{shown([value])} stands where the name of a column should"
    return T5smithError(what, where=where, expected=_EXPECTED, fix=_NO_HEADER)


_EXPECTED = f"the names of the columns in the first line, one of them {USUAL[0]!r}"
_NO_HEADER = "write such a line above the rows, or set corpus.text_field to the name of the one with the text"


def _only_column(name: str, where: str) -> T5smithError:
    """The error for a single column without a usual name."""
    what, fix = f"one column, called {shown([name])}", _NO_HEADER
    for delimiter, called in ((";", "semicolons"), ("\t", "tabs")):
        if delimiter in name:
            fields = shown(next(csv.reader([name], delimiter=delimiter)))
            fix = f"if {called} separate the fields, set corpus.text_field to one of them; there are {fields}"
            break
    return T5smithError(what, where=where, expected=_EXPECTED, fix=fix)


def _texts_among(name: str, columns: list[str], corpus: CorpusSettings, again: OpenAgain | None) -> list[str]:
    """The columns with words in the first rows; all columns, if there are no rows.

    The file is opened a second time for this, so that the main reader sees every row.
    """
    seen = 0
    found: set[int] = set()
    with again() if again else opened(name) as stream:
        lines = Lines(name, stream, WHOLE_FILE, FileRecords(SkippedRecords()), corpus.longest_document)
        rows = _Rows(lines, corpus.text_field)
        rows.header()
        while seen < MAX_SAMPLED:
            try:
                if (row := rows.read()) is None:
                    break
            except csv.Error:
                continue
            if len(row) == len(columns):
                seen += 1
                found |= {number for number, value in enumerate(row) if _has_words(value)}
    return [column for number, column in enumerate(columns) if number in found or not seen]


def _has_words(value: str) -> bool:
    """Whether a value has letters and is not a number (1e-5, nan)."""
    if not any(map(str.isalpha, value)):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def _is_utf8(text: str) -> bool:
    """Whether text decoded with `surrogateescape` was valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
