"""Documents of JSON lines, and which of their fields is the text."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any, cast

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.compression import OpenAgain, open_stream
from t5smith.text.document import WHOLE_FILE
from t5smith.text.formats.columns import USUAL, named_column, nested_value, shown, text_column
from t5smith.text.formats.plain import BOM, Lines, Positioned
from t5smith.text.locations import is_url
from t5smith.text.skipped_records import MAX_BAD_START, FileRecords, SkippedRecords

MAX_SAMPLED = MAX_BAD_START
"""Number of first records that show which field is the text; if all are unusable, the file is rejected."""


def json_lines(lines: Lines, field: str) -> Iterator[Positioned]:
    """One document per line, in the given field of its object."""
    records = lines.records
    for raw in lines.wanted():
        if raw is None:
            yield lines.position, None
            continue
        line = lines.decoded(raw)
        if line is None or not line or (line.isspace() and raw.isspace()):
            continue
        try:
            text = _text_of(_object(line, lines), field, lines)
        except _RecordError as fault:
            if fault.of_file and records.from_start and not records.usable:
                raise fault.error from None
            records.skip(fault.kind, fault.error)
            continue
        try:
            text.encode()
        except UnicodeEncodeError:
            records.repair(
                _HALF,
                T5smithError(
                    f"{_HALF}, read as U+FFFD",
                    where=lines.here,
                    expected="whole characters",
                    fix=r"correct the \ud800-style escape",
                ),
            )
            text = _SURROGATE.sub("\ufffd", text)
        yield lines.position, lines.document(text, lines.number)
    yield lines.last, None


def json_field(name: str, corpus: CorpusSettings, again: OpenAgain | None = None) -> str:
    """The field with the text: `corpus.text_field`, or the one that a file's first records show.

    Every reader of a part of the file calls this first, so that all use the same field. It is `text` if none
    of the first records is readable.

    Args:
      name: of the file.
      corpus: settings.
      again: opens the file, if it is a member of an archive.

    Raises:
      T5smithError: the first records have no text, or leave the field open; the file is one JSON array.
    """
    if corpus.text_field:
        return corpus.text_field
    if again is not None:
        with again() as stream:
            return _field_of(name, stream, corpus.longest_document)
    status = None if is_url(name) or not os.path.exists(name) else os.stat(name)
    return _field_found(name, corpus.longest_document, status and (status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=1 << 10)
def _field_found(name: str, longest: int, _stamp: object) -> str:
    with open_stream(name) as (_, stream):
        return _field_of(name, stream, longest)


def _field_of(name: str, stream: IO[bytes], longest: int) -> str:
    fields: dict[str, bool] = {}
    within: dict[str, None] = {}
    first, rows, row = "", 0, dict[str, Any]()
    lines = Lines(name, stream, WHOLE_FILE, FileRecords(SkippedRecords(), from_start=False), longest)
    for raw in lines.raw():
        if raw.isspace():
            continue
        try:
            row = _object(raw.decode("utf-8"), lines)
        except UnicodeDecodeError:
            row = {}
        except _RecordError as fault:
            if fault.of_file and not rows:
                raise fault.error from None
            row = {}
        rows += 1
        first = first or (lines.here if row else "")
        for key, value in row.items():
            fields[key] = fields.get(key, False) or isinstance(value, str)
            within |= dict.fromkeys(_fields_within(key, value))
        if rows == MAX_SAMPLED:
            break
    if not fields:
        return USUAL[0]
    if rows == 1 and not named_column(list(fields), "") and (key := _list_of_records(row)):
        raise T5smithError(
            f"one JSON object, with its records in a list, {key!r}",
            where=first,
            expected="one JSON object per line",
            fix=f"write each record on a line, as with `jq -c '.{key}[]'`",
        )
    return text_column(list(fields), [key for key, text in fields.items() if text], "", first, list(within))


_NAMED = rb'\{\s*"(?:[^"\\\n]|\\.)*"\s*:'
_BEGINS = re.compile(rb"\[\s*" + _NAMED + rb"|" + _NAMED)
_CUT = re.compile(rb"\[|\{\s*\n|.*[\[{,]\s*\n")
"""The first line of an array, or of an object that goes on below."""


def is_json(head: bytes, whole: bool) -> bool:
    """Whether a file holds JSON: records on lines, some of which may be faulty, or what this reader rejects.

    Args:
      head: the first bytes of the file.
      whole: whether these are all.
    """
    begin = head.removeprefix(BOM).lstrip(b" \t\r\n\x1e")
    lines = begin.split(b"\n")
    starts = bool(_BEGINS.match(begin))
    if not whole and not (lines := lines[:-1]):
        return starts
    records = [_is_record(line) for line in lines if line.strip()][:MAX_SAMPLED]
    if any(records):
        return starts or sum(records) * 2 > len(records)
    try:
        value, end = json.JSONDecoder().raw_decode(text := begin.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return starts and not whole and bool(_CUT.match(begin))
    rest = text[end:].lstrip()
    return _has_text(value) and rest[:1] in ("", "{", "[")


def _is_record(line: bytes) -> bool:
    try:
        return line.lstrip(b" \t\x1e")[:1] == b"{" and bool(json.loads(line.lstrip(b" \t\x1e")))
    except (ValueError, RecursionError):
        return False


def _has_text(value: Any) -> bool:
    """Whether an array or object has a text somewhere."""
    if isinstance(value, dict):
        value = list(cast("dict[str, Any]", value).values())
    inner = cast("list[Any]", value) if isinstance(value, list) else []
    return any(isinstance(one, str) or _has_text(one) for one in inner)


class _RecordError(Exception):
    """An unusable line; `of_file` if its first one shows that a file is not JSON lines."""

    def __init__(self, kind: str, error: T5smithError, of_file: bool = False) -> None:
        self.kind, self.error, self.of_file = kind, error, of_file


def _object(line: str, lines: Lines) -> dict[str, Any]:
    try:
        # Files that were joined have byte order marks in the middle; RFC 7464 begins records with U+001E.
        row = json.loads(line.lstrip("\ufeff\x1e") if line[:1] in ("\ufeff", "\x1e") else line)
    except (ValueError, RecursionError) as error:
        raise _not_json(line, error, lines.here) from None
    if isinstance(row, list):
        raise _not_json(line, None, lines.here)
    if not isinstance(row, dict):
        error = T5smithError("not a JSON object", where=lines.here, expected='{"text": "…"}')
        raise _RecordError("not JSON", error)
    return cast(dict[str, Any], row)


def _not_json(line: str, error: Exception | None, here: str) -> _RecordError:
    begin = line.lstrip("\ufeff\x1e \t")
    if begin.startswith("["):
        what = "not JSON lines: it begins as one JSON array" if error else "not a JSON object but an array"
        fix = "write one object per line, as with `jq -c '.[]'`, or set corpus.format = \"text\""
        array = T5smithError(what, where=here, expected="one JSON object per line", fix=fix)
        return _RecordError("not JSON", array, of_file=True)
    fix, listed = 'write one JSON object per line, or set corpus.format = "text"', None
    if begin.startswith("{") and getattr(error, "pos", 0) >= len(line.rstrip()):
        # An object that goes on below.
        listed = re.search(r'"(\w+)"\s*:\s*\[\s*$', line)
        program = f"'.{listed[1]}[]'" if listed else "."
        fix = f"if objects go on over several lines, write each on one, as with `jq -c {program}`"
    what = f"not JSON ({error})"
    fault = T5smithError(what, where=here, expected="a JSON object", fix=fix)
    return _RecordError("not JSON", fault, of_file=listed is not None)


def _list_of_records(row: Mapping[str, Any]) -> str:
    """The first field that holds a list of objects; "": none."""
    for key, value in row.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return key
    return ""


def _fields_within(key: str, value: Any, levels: int = 3) -> Iterator[str]:
    """The addresses of the texts within an object."""
    for name, inner in cast("dict[str, Any]", value).items() if isinstance(value, dict) and levels else ():
        address = f"{key}.{name}"
        if isinstance(inner, str):
            yield address
        yield from _fields_within(address, inner, levels - 1)


_KINDS = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
_HALF = "half of a surrogate pair"
_SURROGATE = re.compile("[\ud800-\udfff]")


def _text_of(row: dict[str, Any], field: str, lines: Lines) -> str:
    text = row.get(field)
    if not isinstance(text, str):
        text = nested_value(row, field)
    if not isinstance(text, str):
        what = f"the field {field!r} is {_KINDS.get(type(text), 'null')}, not text"
        if text is None and field not in row:
            what = f"no field {field!r}"
        names = [*row, *(name for key, value in row.items() for name in _fields_within(key, value))]
        found = shown(names) or "none"
        fix = f"set corpus.text_field to the field with the text; the fields of this line: {found}"
        if listed := _list_of_records(row):
            fix += f"; of a list of records write each record on a line, as with `jq -c '.{listed}[]'`"
        raise _RecordError("no text", T5smithError(what, where=lines.here, fix=fix))
    return text
