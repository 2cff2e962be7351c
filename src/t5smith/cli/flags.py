"""The flags of a command, made from its settings; values are read as a recipe file would have them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.fields import FieldInfo

from t5smith.base.errors import T5smithError
from t5smith.recipe.allowed import Allowed, allowed
from t5smith.recipe.base import Settings, rejected

POSITIONAL = "positional"
"""Metadata of a command's field that is an argument, not a flag."""
C = TypeVar("C")


@dataclass_transform(frozen_default=True)
def command(kind: type[C]) -> type[C]:
    """Make a class the flags of a verb: its fields, with the docstring below each as its help."""
    config = ConfigDict(strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
    return cast("type[C]", pydantic_dataclass(kind, frozen=True, config=config))


@dataclass(frozen=True)
class Flag:
    """One flag, or a positional argument.

    Attributes:
      setting: dotted name of the setting that it changes: `train.batch_size`.
      accepts: the values that it accepts.
      default: its value if it is not given.
      description: what it does.
      positional: whether the value is given without a flag.
      required: whether it must be given.
      negatable: whether there is a second flag that turns it off.
    """

    setting: str
    accepts: Allowed
    default: object
    description: str
    positional: bool = False
    required: bool = False
    negatable: bool = False

    @property
    def table(self) -> str:
        """The table of the setting; empty at the top level."""
        return self.setting.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The name within the table, as it is typed: `batch-size`; `for` of `for_`, a keyword in Python."""
        return self.setting.rpartition(".")[2].removesuffix("_").replace("_", "-")

    @property
    def spellings(self) -> tuple[str, ...]:
        """As it is typed: `--train.batch-size`; `--corpus.strict`, `--corpus.no-strict`; `MODEL`."""
        if self.positional:
            return (self.setting.upper(),)
        prefix = f"--{self.table}.".replace("_", "-") if self.table else "--"
        return (prefix + self.name, *([f"{prefix}no-{self.name}"] if self.negatable else []))


def command_flags(kind: type) -> list[Flag]:
    """The flags and arguments of a command's class."""
    # A class has the docstrings of its own fields only, not of those that it inherits.
    bases = [_fields(base) for base in kind.__mro__ if hasattr(base, "__pydantic_fields__")]
    described = {name: info for fields in bases for name, info in fields.items() if info.description}
    return [
        _flag(name, described[name], info.default, negatable=info.default is True)
        for name, info in _fields(kind).items()
    ]


def recipe_flags(settings: Settings, table: str | None = None) -> Iterator[Flag]:
    """A flag for each setting of a recipe, with its value there as the default.

    Args:
      settings: of one table, with those within it.
      table: its name. Default: that of its class.
    """
    table = settings.section if table is None else table
    prefix = f"{table}." if table else ""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    for name, info in type(settings).model_fields.items():
        if not isinstance(values[name], Settings | Mapping):
            yield _flag(prefix + name, info, values[name], negatable=True)
    for name, value in values.items():
        if isinstance(value, Settings):
            yield from recipe_flags(value, prefix + name)
        elif isinstance(value, Mapping):
            # Tables that the user names, such as tasks.
            for own, one in cast("Mapping[str, Settings]", value).items():
                yield from recipe_flags(one, f"{prefix}{name}.{own}")


def _flag(setting: str, info: FieldInfo, default: object, *, negatable: bool = False) -> Flag:
    accepts = allowed(info)
    return Flag(
        setting,
        accepts,
        None if info.is_required() else default,
        " ".join((info.description or "").split()),
        positional=POSITIONAL in info.metadata,
        required=info.is_required(),
        negatable=negatable and accepts.base is bool,
    )


def _fields(kind: type) -> dict[str, FieldInfo]:
    return cast("Any", kind).__pydantic_fields__


def parse(kind: type[C], args: Sequence[str], verb: str) -> C:
    """Make a command from its arguments.

    Raises:
      T5smithError: an unknown flag, an unexpected argument, a missing or unusable value.
    """
    return build(kind, read(command_flags(kind), args, verb))


def build(kind: type[C], values: Mapping[str, Any]) -> C:
    """A command with these values.

    Raises:
      T5smithError: a value that cannot be used, or a missing argument.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        ours = rejected(_fields(kind), error, "")
        name, dot, index = (ours.where or "").partition(".")
        flags = {flag.setting: flag for flag in command_flags(kind)}
        place = flags[name].spellings[0] if name in flags else name
        expected = ours.expected
        if ours.what == "missing" and name in flags:
            expected = flags[name].description.rstrip(".")
            expected = expected[0].lower() + expected[1:]
        raise T5smithError(ours.what, where=place + dot + index, expected=expected, fix=ours.fix) from None


@dataclass
class _Reader:
    """Reads arguments from left to right."""

    flags: Sequence[Flag]
    args: list[str]
    verb: str
    values: dict[str, Any] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)

    def read(self) -> dict[str, Any]:
        known = {name: flag for flag in self.flags if not flag.positional for name in flag.spellings}
        while self.args:
            arg = self.args.pop(0)
            if arg == "--":
                self.loose += self.args
                break
            if not _is_flag(arg):
                self.loose.append(arg)
                continue
            typed, equals, value = arg.partition("=")
            name = typed.replace("_", "-")
            if name not in known:
                _reject_unknown(typed, known, self.verb)
            flag = known[name]
            if flag.setting in self.values:
                raise T5smithError("given twice", where=name, fix="give it once, followed by all its values")
            self.values[flag.setting] = self._value(flag, name, [value] if equals else None)
        self._positional([flag for flag in self.flags if flag.positional])
        return self.values

    def _value(self, flag: Flag, name: str, given: list[str] | None) -> object:
        accepts = flag.accepts
        if accepts.base is bool and not accepts.many and given is None:
            return name == flag.spellings[0]
        if given is None:
            given = []
            while self.args and not _is_flag(self.args[0]) and (accepts.many or not given):
                given.append(self.args.pop(0))
        if accepts.many:
            return tuple(value_of(text, accepts) for text in given)
        if not given:
            expected = accepts.describe(quote=False, limits=True)
            raise T5smithError("missing value", where=name, expected=expected)
        return _not_empty(name, given[0], accepts)

    def _positional(self, flags: Sequence[Flag]) -> None:
        for flag in flags:
            if flag.accepts.many:
                self.values[flag.setting], self.loose = tuple(self.loose), []
            elif self.loose:
                self.values[flag.setting] = _not_empty(flag.spellings[0], self.loose.pop(0), flag.accepts)
        if self.loose:
            raise T5smithError(
                "unexpected argument",
                where=self.loose[0],
                fix=f"`t5smith {self.verb} --help` shows what it takes",
            )


def read(flags: Sequence[Flag], args: Sequence[str], verb: str) -> dict[str, Any]:
    """The settings that arguments change: dotted name -> value.

    Raises:
      T5smithError: an unknown or repeated flag, an unexpected argument, a missing value.
    """
    return _Reader(flags, list(args), verb).read()


def _not_empty(name: str, text: str, accepts: Allowed) -> object:
    """The value of a flag. An empty path, as of a variable that is not set, would be the current folder.

    Raises:
      T5smithError: an empty path.
    """
    if accepts.base is Path and not text.strip():
        raise T5smithError("it is empty", where=name, expected=accepts.describe(quote=False, limits=True))
    return value_of(text, accepts)


def value_of(text: str, accepts: Allowed) -> object:
    """A value as a recipe file would have it; what cannot be read stays text, which is rejected later."""
    if text in accepts.choices or accepts.base in (str, Path):
        return text
    if accepts.optional and text.lower() == "none":
        return None
    if accepts.base is None:
        return text
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def _is_flag(arg: str) -> bool:
    """Whether an argument is a flag; negative numbers and texts with a leading hyphen are not."""
    return re.match(r"--?[A-Za-z]|--$", arg) is not None


def _reject_unknown(typed: str, known: Iterable[str], verb: str) -> NoReturn:
    name = typed.replace("_", "-")
    near = difflib.get_close_matches(name, list(known), n=1)
    if not near:
        # `--steps` for `--train.steps`
        by_last_part = {flag.rpartition(".")[2].removeprefix("--"): flag for flag in reversed(list(known))}
        last = difflib.get_close_matches(name.rpartition(".")[2].removeprefix("--"), by_last_part, n=1)
        near = [by_last_part[part] for part in last]
    hint = f"`t5smith {verb} --help-all` lists all flags"
    raise T5smithError("unknown flag", where=typed, fix=f"did you mean {near[0]}? {hint}" if near else hint)
