"""Documents of JSON lines, and which of their fields is the text."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from typing import Any, cast

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.compression import open_stream
from t5smith.text.document import WHOLE_FILE
from t5smith.text.formats.columns import USUAL, text_column
from t5smith.text.formats.plain import Lines, Positioned
from t5smith.text.locations import is_url
from t5smith.text.skipped_records import MAX_BAD_START, FileRecords, SkippedRecords

MAX_SAMPLED = MAX_BAD_START
"""Number of first records that show which field is the text; if all are unusable, the file is rejected."""


def json_lines(lines: Lines, field: str) -> Iterator[Positioned]:
    """One document per line, in the given field of its object."""
    for raw in lines.wanted():
        if raw is None:
            yield lines.position, None
            continue
        text = lines.decoded(raw)
        if not text or text.isspace():
            continue
        try:
            document = lines.document(_text_of(_object(text, lines.here), field, lines.here), lines.number)
        except _RecordError as fault:
            lines.records.skip(fault.kind, fault.error)
        else:
            yield lines.position, document
    yield lines.last, None


def json_field(name: str, corpus: CorpusSettings) -> str:
    """The field with the text: `corpus.text_field`, or the one that a file's first records show.

    Every reader of a part of the file calls this first, so that all use the same field. It is `text` if none
    of the first records is readable.

    Raises:
      T5smithError: the first records have no text, or leave the field open; the file is one JSON array.
    """
    if corpus.text_field:
        return corpus.text_field
    status = None if is_url(name) or not os.path.exists(name) else os.stat(name)
    return _field_found(name, corpus.longest_document, status and (status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=1 << 10)
def _field_found(name: str, longest: int, _stamp: object) -> str:
    fields: dict[str, bool] = {}
    first = ""
    with open_stream(name) as (_, stream):
        lines = Lines(name, stream, WHOLE_FILE, FileRecords(SkippedRecords(), from_start=False), longest)
        seen = 0
        for raw in lines.raw():
            if raw.isspace():
                continue
            if not seen and raw.lstrip()[:1] == b"[":
                fix = "write one object per line, as with `jq -c '.[]'`"
                what = "not JSON lines: it begins as one JSON array"
                raise T5smithError(what, where=lines.here, expected="one JSON object per line", fix=fix)
            seen += 1
            try:
                row = _object(raw.decode("utf-8"), lines.here)
            except (UnicodeDecodeError, _RecordError):
                row = {}
            first = first or (lines.here if row else "")
            for key, value in row.items():
                fields[key] = fields.get(key, False) or isinstance(value, str)
            if seen == MAX_SAMPLED:
                break
    if not fields:
        return USUAL[0]
    return text_column(list(fields), [key for key, text in fields.items() if text], "", first)


class _RecordError(Exception):
    def __init__(self, kind: str, error: T5smithError) -> None:
        self.kind, self.error = kind, error


def _object(line: str, here: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        fix = 'write one JSON object per line, or set corpus.format = "text"'
        raise _RecordError(
            "not JSON", T5smithError(f"not JSON ({error})", where=here, expected="a JSON object", fix=fix)
        ) from None
    if not isinstance(row, dict):
        raise _RecordError(
            "not JSON", T5smithError("not a JSON object", where=here, expected='{"text": "…"}')
        )
    return cast(dict[str, Any], row)


def _text_of(row: dict[str, Any], field: str, here: str) -> str:
    text = row.get(field)
    if not isinstance(text, str):
        kind = type(text).__name__
        what = f"the field {field!r} is {kind}, not text" if field in row else f"no field {field!r}"
        fields = ", ".join(map(repr, row)) or "none"
        fix = f"set corpus.text_field to the field with the text; the fields of this line: {fields}"
        raise _RecordError("no text", T5smithError(what, where=here, fix=fix))
    try:
        text.encode()
    except UnicodeEncodeError:
        error = T5smithError(
            "half of a surrogate pair",
            where=here,
            expected="whole characters",
            fix=r"correct the \ud800-style escape",
        )
        raise _RecordError("not Unicode", error) from None
    return text
