"""The verb `generate`: texts from arguments, stdin or a file; results to stdout or a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from t5smith.base.errors import T5smithError
from t5smith.cli.commands import GenerateCommand
from t5smith.cli.flags import build, command_flags, read, recipe_flags
from t5smith.cli.help import HELP_FLAGS, show_generate
from t5smith.cli.output import function, print_json
from t5smith.recipe.evaluate import GenerateSettings

if TYPE_CHECKING:
    from t5smith.generation.completion import Completion


def generate(args: list[str]) -> None:
    """Run the verb with its arguments, or print its help.

    Raises:
      T5smithError: arguments that cannot be used, or an error of generating.
    """
    if HELP_FLAGS & set(args):
        show_generate()
        return
    own, shared = command_flags(GenerateCommand), list(recipe_flags(GenerateSettings()))
    values = read([*own, *shared], args, "generate")
    command = build(
        GenerateCommand, {flag.setting: values.pop(flag.setting) for flag in own if flag.setting in values}
    )
    settings = _settings(values)
    if command.input is not None:
        _of_file(command, settings)
        return
    if command.output is not None:
        raise T5smithError("needs `--input`", where="--output", fix="add --input FILE, or use > FILE")
    for number, text in enumerate(command.text, 1):
        if not text.strip():
            fix = "mark missing words by <extra_id_0>, <extra_id_1>, ..."
            what = "it is empty" if len(command.text) > 1 else "no text"
            raise T5smithError(what, where=f"TEXT {number}" if len(command.text) > 1 else "TEXT", fix=fix)
    texts = check_utf8(command.text or _lines_of_stdin())
    requested = [text for text in texts if text.strip()]
    if not requested:
        raise T5smithError("no text", where="stdin", expected="one text per line")
    done: list[Completion] = function("t5smith.generation.fill", "generate")(
        command.model, requested, settings, mode=command.mode
    )
    # A line without text gets an empty result, so that results and lines keep the same numbers.
    left = iter(done)
    completions = [next(left) if text.strip() else None for text in texts]
    if command.json:
        print_json(
            {"model": str(command.model), "mode": done[0].mode, "answers": _answers(texts, completions)}
        )
    else:
        for one in completions:
            print("\n".join(each.filled for each in (one, *one.others)) if one else "")
    function("t5smith.cli.warnings", "warn_of_completions")(texts, completions, settings.max_new_tokens)


def _settings(values: dict[str, Any]) -> GenerateSettings:
    """The settings by flags; an error names the flags."""
    try:
        return GenerateSettings.model_validate(values)
    except T5smithError as error:
        where = f"--{(error.where or '').replace('_', '-')}"
        raise T5smithError(error.what, where=where, expected=error.expected, fix=error.fix) from None


def _of_file(command: GenerateCommand, settings: GenerateSettings) -> None:
    """Generate for the lines of a file."""
    if command.text:
        raise T5smithError("cannot be used together", where="TEXT and --input", fix="choose one")
    if command.output is None:
        raise T5smithError("needs `--output`", where="--input", fix="add --output FILE.jsonl")
    counts = function("t5smith.generation.files", "generate_file")(
        command.model, command.input, command.output, settings, command.mode, command.field
    )
    if command.json:
        print_json({"output": str(command.output), **asdict(counts)})
        return
    if counts.skipped:
        from t5smith.base.progress import warn

        reasons = ", ".join(f"{number:,} {reason}" for reason, number in counts.skipped.items())
        warn(f"{sum(counts.skipped.values()):,} of {counts.lines:,} lines were skipped: {reasons}")
    print(command.output)


def _answers(texts: list[str], completions: list[Completion | None]) -> list[dict[str, Any]]:
    """What `--json` prints of each text."""
    from t5smith.generation.completion import Completion
    from t5smith.generation.files import line_of

    nothing = Completion((), "", (), "")
    return [line_of(text, one or nothing) for text, one in zip(texts, completions, strict=True)]


_CONVERT = "convert it to UTF-8 (`iconv -f latin1 -t utf-8` if it is Latin-1)"


def _lines_of_stdin() -> list[str]:
    if sys.stdin.isatty():
        print("one text per line, then Ctrl-D", file=sys.stderr)
    try:
        return [line.rstrip("\n") for line in sys.stdin]
    except UnicodeDecodeError:
        raise T5smithError("not UTF-8 text", where="stdin", fix=_CONVERT) from None


def check_utf8(texts: Iterable[str]) -> list[str]:
    """The texts; an argument with invalid UTF-8, whose bytes Python turns into surrogates, is an error."""
    for text in texts:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise T5smithError("not UTF-8 text", where=ascii(text), fix=_CONVERT)
    return list(texts)
