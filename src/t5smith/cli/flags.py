"""Command-line flags to a typed command, by tyro; what tyro would let pass or explain badly, we refuse."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import inspect
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Generator, Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar, cast

import tyro

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import Settings


class Command(Protocol):
    """A dataclass whose fields are the flags of a verb, or recipes whose settings are."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


C = TypeVar("C", bound=Command)


def parse(
    command: type[C],
    args: list[str],
    *,
    prog: str,
    description: str | None = None,
    default: C | None = None,
) -> C:
    """Make a command of its arguments. `--help` and wrong types are tyro's: it prints and exits.

    Raises:
      T5smithError: a flag that does not exist or is given twice, or a setting that cannot be used.
    """
    _refuse_repeated(args)
    with _help(default) if {"-h", "--help"} & set(args) else contextlib.nullcontext():
        parsed, unknown = cast(
            "tuple[C, list[str]]",
            tyro.cli(
                command,
                args=args,
                prog=prog,
                description=description,
                default=default,
                return_unknown_args=True,
            ),
        )
    if unknown:
        _refuse_unknown(unknown[0], [f"--{name}" for name in names(default or command)], prog)
    return parsed


class _Kept(io.StringIO):
    """What is printed, by somebody who takes it for the terminal that it stands for."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return sys.__stdout__ is not None and sys.__stdout__.isatty()


@contextlib.contextmanager
def _help(default: Command | None) -> Generator[None]:
    """Print tyro's help as the body prints it, but with no line that is wider than the terminal.

    tyro breaks what stands in its boxes, but neither the usage nor the description, and it keeps some of the
    lines that docstrings happen to be broken into.
    """
    for field in dataclasses.fields(default) if default is not None else ():
        if isinstance(settings := getattr(default, field.name), Settings):
            _join_lines(type(settings))
    kept = _Kept()
    try:
        with contextlib.redirect_stdout(kept):
            yield
    finally:
        width = shutil.get_terminal_size().columns
        for line in kept.getvalue().splitlines():
            # Boxes are as wide as the terminal, and their colours take no room on it.
            print(line if "│" in line or "─" in line else _broken(line, width))


def _broken(line: str, width: int) -> str:
    """A line broken at spaces if it is too long; what stands in brackets in a usage stays together."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
    if len(plain) <= width:
        return line
    usage = " " * len("usage: ") if plain.startswith("usage: ") else ""
    if usage:
        plain = re.sub(r"\[[^][]*\]", lambda found: found[0].replace(" ", "\0"), plain)
    lines = textwrap.wrap(plain, width, subsequent_indent=usage, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _join_lines(settings: type[Settings]) -> None:
    """Make one line of each docstring of a table's settings, and tell tyro of that."""
    (table,) = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    for setting, said in pairwise(cast("ast.ClassDef", table).body):
        match setting, said:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                settings.model_fields[name].description = " ".join(text.split())
            case _:
                pass
    for field in settings.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            _join_lines(field.annotation)


def names(command: Command | type[Command]) -> Iterator[str]:
    """Every flag of a command, without its dashes: `json`, `train.batch-size`."""
    for field in dataclasses.fields(command):
        value = getattr(command, field.name, None)
        if isinstance(value, Settings):
            yield from _dotted(value.model_dump(), "")
        else:
            yield field.name.replace("_", "-")


def _dotted(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in tree.items():
        name = prefix + key.replace("_", "-")
        if isinstance(value, dict):
            yield from _dotted(value, f"{name}.")
        else:
            yield name


def _spelled(arg: str) -> str:
    """A flag as --help spells it, without a value."""
    return arg.split("=", 1)[0].replace("_", "-")


def _refuse_repeated(args: list[str]) -> None:
    """A list given in two parts would silently lose the first."""
    seen: set[str] = set()
    for arg in args:
        name = _spelled(arg)
        if name.startswith("--") and name in seen:
            raise T5smithError("given twice", where=name, fix="give it once, with all its values behind it")
        seen.add(name)


def _refuse_unknown(arg: str, known: list[str], prog: str) -> NoReturn:
    if not arg.startswith("-"):
        raise T5smithError(
            "there is no place for this", where=arg, fix=f"see how the line is built with `{prog} --help`"
        )
    name = _spelled(arg)
    near = difflib.get_close_matches(name, known, n=1)
    table = name.rpartition(".")[0]
    beside = [flag for flag in known if "." in flag and flag.rpartition(".")[0] == table]
    raise T5smithError(
        "there is no such flag",
        where=arg.split("=", 1)[0],
        expected=f"one of {', '.join(beside)}" if beside else None,
        fix=f"did you mean {near[0]}?" if near else f"`{prog} --help` lists them all",
    )
