"""Texts from a file to a file: in order, a line for a line, and resumable after any end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from t5smith.base.artifact import fingerprint
from t5smith.base.disk import disk_errors, write_atomically
from t5smith.base.errors import T5smithError
from t5smith.base.progress import info, progress, warn
from t5smith.base.wrapping import pluralize
from t5smith.generation.completion import Completion
from t5smith.generation.fill import BATCHES_AHEAD, Generator, model_folder
from t5smith.recipe.evaluate import GenerateSettings
from t5smith.text.compression import open_stream

NOTE = ".t5smith.json"
"""Suffix of the file beside an output that says what it is generated with."""
EMPTY, NOT_UTF8, NOT_JSON, NO_FIELD = "empty", "not UTF-8", "not a JSON object", "no such text field"
SHOWN = 5
"""Skipped lines that are shown; all are counted."""


@dataclass(frozen=True)
class FileCounts:
    """What became of the lines of a file.

    Attributes:
      lines: all lines; each has its line in the output.
      generated: those with an output of the model.
      found: those that were in the output before.
      skipped: the others, by reason.
    """

    lines: int
    generated: int
    found: int
    skipped: dict[str, int]


def generate_file(
    model: str | Path,
    source: str | Path,
    target: str | Path,
    settings: GenerateSettings | None = None,
    mode: str | None = None,
    field: str = "text",
    **changes: Any,
) -> FileCounts:
    """Generate for every line of a file. What is in the output already, as after a kill, is kept.

    Line N of the output is a JSON object for line N of the input: `text`, `filled`, `fills`, `answer`, ...,
    or `skipped` with the reason.

    Args:
      model: a Hugging Face T5 folder, or a run folder with an exported `model`.
      source: JSON lines, or plain text with a text per line; may be compressed.
      target: the output.
      settings: how to generate.
      mode: mode token put before each text.
      field: the field with the text, in JSON lines.
      **changes: settings by name.

    Raises:
      T5smithError: as `generate`; the file cannot be read; the output was begun with other settings.
    """
    source, target = Path(source), Path(target)
    if not source.is_file():
        raise T5smithError("there is no such file", where=source, expected="a file with a text per line")
    if target.exists() and target.samefile(source):
        raise T5smithError("the output is the input", where=target, fix="choose another file")
    folder = model_folder(Path(model))
    tree = (settings or GenerateSettings()).model_dump() | changes
    settings = GenerateSettings.model_validate(tree)
    with disk_errors(target.parent):
        found = _begin(target, _inputs(folder, source, field, settings, mode))
    total = _line_count(source)
    if found >= total:
        info(f"generate  already done: {target}")
        return _finish(target, total, 0, found)
    if found:
        info(f"generate  {pluralize(found, 'line')} of {target} are kept")
    generator = Generator(folder, settings, mode)
    generated = 0
    with (
        disk_errors(target.parent),
        target.open("a", encoding="utf-8") as out,
        progress("generate", total, "texts", found) as bar,
    ):
        for number, line in _lines_of(generator, _texts(source, field), found):
            generated += "skipped" not in line
            out.write(json.dumps({"line": number} | line, ensure_ascii=False) + "\n")
            out.flush()
            bar.advance(1)
    return _finish(target, total, generated, found)


def _lines_of(
    generator: Generator, texts: Iterator[tuple[str, T5smithError | None]], found: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and the content of each line of the output after the first `found`."""
    size = generator.settings.batch_size * BATCHES_AHEAD
    numbered = islice(enumerate(texts, 1), found, None)
    warned = 0
    while ahead := list(islice(numbered, size)):
        usable: dict[int, list[int]] = {}
        skipped: dict[int, str] = {}
        for number, (text, error) in ahead:
            try:
                if error:
                    raise error
                usable[number] = generator.encoded(text)
            except T5smithError as fault:
                skipped[number] = fault.what
                if fault.what != EMPTY and (warned := warned + 1) <= SHOWN:
                    warn(f"line {number:,} is skipped: {fault}")
        done = generator.each_of_ids(usable.values(), [number - 1 for number in usable])
        completions = dict(zip(usable, done, strict=True))
        for number, (text, _) in ahead:
            skip = skipped.get(number)
            yield number, {"skipped": skip} if skip else line_of(text, completions[number])


def line_of(text: str, one: Completion) -> dict[str, Any]:
    """What is written of a completion, and printed by `--json`."""
    line: dict[str, Any] = {
        "text": text,
        "filled": one.filled,
        "fills": one.fills,
        "answer": one.text,
        "cut": one.cut,
        "unanswered": one.unanswered,
    }
    if one.log_probs:
        line |= {"ids": one.ids, "log_probs": [round(x, 6) for x in one.log_probs]}
    if one.score is not None:
        line["score"] = round(one.score, 6)
    if one.others:
        line["others"] = [
            {key: value for key, value in line_of(text, other).items() if key != "text"}
            for other in one.others
        ]
    return line


def _texts(source: Path, field: str) -> Iterator[tuple[str, T5smithError | None]]:
    """The text of each line, or why it cannot be used.

    Raises:
      T5smithError: the first line has no text in this field.
    """
    is_json = ".json" in "".join(source.suffixes[-2:])
    expected = f"an object with a text in {field!r}" if is_json else "UTF-8 text"
    with open_stream(str(source)) as (_, stream):
        for number, raw in enumerate(stream, 1):
            text, reason = _text_of(raw, field if is_json else None)
            error = T5smithError(reason, where=f"{source}:{number}", expected=expected) if reason else None
            if error and number == 1 and reason in (NOT_JSON, NO_FIELD):
                error.fix = "name the field with --field" if reason == NO_FIELD else "name text files .txt"
                raise T5smithError(error.what, where=error.where, expected=expected, fix=error.fix)
            yield text, error


def _text_of(raw: bytes, field: str | None) -> tuple[str, str]:
    """The text of a line, or why there is none."""
    try:
        text = raw.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        return "", NOT_UTF8
    if field is not None and text.strip():
        try:
            tree = json.loads(text)
        except (ValueError, RecursionError):
            return "", NOT_JSON
        if not isinstance(tree, dict):
            return "", NOT_JSON
        text = cast("dict[str, Any]", tree).get(field)
        if not isinstance(text, str):
            return "", NO_FIELD
    return (text, "") if text.strip() else ("", EMPTY)


def _line_count(source: Path) -> int:
    with open_stream(str(source)) as (_, stream):
        return sum(1 for _ in stream)


def _inputs(
    folder: Path, source: Path, field: str, settings: GenerateSettings, mode: str | None
) -> dict[str, Any]:
    """What determines the output: a change of one of these would mix outputs of two kinds."""

    def stamp(file: Path) -> list[Any]:
        status = file.stat()
        return [file.name, status.st_size, status.st_mtime_ns]

    weights = sorted(stamp(file) for file in folder.iterdir() if file.is_file())
    # The size of a batch does not determine it.
    own = settings.model_dump(exclude={"batch_size"})
    return {"settings": own, "mode": mode, "field": field, "input": stamp(source), "model": weights}


def _begin(target: Path, inputs: dict[str, Any]) -> int:
    """The number of lines of an output that was begun with the same inputs; its last line may be cut off.

    Raises:
      T5smithError: it was begun with other inputs, or it is something else.
    """
    note, key = target.with_name(target.name + NOTE), fingerprint(inputs)
    if not target.exists() or not target.stat().st_size:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, json.dumps({"inputs": key, **inputs}, ensure_ascii=False) + "\n")
        return 0
    fix = "delete it, or choose another --output"
    try:
        begun = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise T5smithError("this file exists, and was not generated here", where=target, fix=fix) from None
    if begun.get("inputs") != key:
        changed = [name for name in inputs if begun.get(name) != json.loads(json.dumps(inputs[name]))]
        what = f"it was begun with another {' and another '.join(changed)}"
        raise T5smithError(what, where=target, fix=fix)
    with target.open("r+b") as file:
        return _whole_lines(file)


def _whole_lines(file: IO[bytes]) -> int:
    """The number of whole lines of a file; what is after them is cut off."""
    count, end = 0, 0
    for line in file:
        if line.endswith(b"\n"):
            count, end = count + 1, end + len(line)
    file.truncate(end)
    os.fsync(file.fileno())
    return count


def _finish(target: Path, total: int, generated: int, found: int) -> FileCounts:
    """Count what the output has, by reading it."""
    skipped: dict[str, int] = {}
    with target.open(encoding="utf-8") if target.exists() else open(os.devnull) as file:
        for line in file:
            if reason := json.loads(line).get("skipped"):
                skipped[reason] = skipped.get(reason, 0) + 1
    return FileCounts(total, generated, found, skipped)
