"""The help of a verb, written from its settings: what each does, what it accepts, and its default."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

from t5smith.cli.commands import GenerateCommand, RecipeVerb
from t5smith.cli.flags import Flag, command_flags, parse, recipe_flags
from t5smith.recipe.base import Settings
from t5smith.recipe.evaluate import GenerateSettings
from t5smith.recipe.recipe import Recipe

UNBREAKABLE = "\xa0"
"""A space at which no line is broken; printed as a space."""
WIDEST = 100
"""Lines are no longer than this even on a wider terminal."""
HELP_FLAGS = {"-h", "--help", "--help-all"}
INTRODUCTION = """\
RECIPE is a bundled recipe (`t5smith recipes` lists them), a .toml file, or a run folder, which keeps the
recipe that it was made with. Its settings are changed by flags such as --train.steps 50. A list is given as
values with spaces between them."""
C = TypeVar("C")


def width() -> int:
    """Columns of the terminal; 80 in a pipe."""
    return min(shutil.get_terminal_size().columns, WIDEST)


def wrap(text: str, indent: int = 0, hanging: int | None = None) -> str:
    """Text in lines that fit the terminal.

    Args:
      text: one paragraph.
      indent: spaces before each line.
      hanging: spaces before all lines but the first, if not `indent`.
    """
    below = " " * (indent if hanging is None else hanging)
    return textwrap.fill(
        text,
        width(),
        initial_indent=" " * indent,
        subsequent_indent=below,
        break_on_hyphens=False,
        break_long_words=False,
    ).replace(UNBREAKABLE, " ")


def bold(text: str) -> str:
    """Text in bold, where the output is a terminal."""
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else text


def parse_or_help(kind: type[C], args: Sequence[str], verb: str) -> C | None:
    """Make a command from its arguments; None after help was printed.

    Raises:
      T5smithError: an unknown flag, an unexpected argument, a missing or unusable value.
    """
    if not HELP_FLAGS & set(args):
        return parse(kind, args, verb)
    flags = command_flags(kind)
    arguments = [_argument(flag) for flag in flags if flag.positional]
    print(wrap(" ".join(["usage: t5smith", verb, *arguments, "[--flag VALUE ...]"]), hanging=7))
    print(f"\n{wrap(' '.join((kind.__doc__ or '').split()))}\n")
    _show(flags)
    _show_help_flag("-h, --help", "Show this help.")
    return None


def show_generate() -> None:
    """Print the help of `generate`: its own flags, and the settings of generation."""
    flags = command_flags(GenerateCommand)
    arguments = [_argument(flag) for flag in flags if flag.positional]
    print(wrap(" ".join(["usage: t5smith generate", *arguments, "[--flag VALUE ...]"]), hanging=7))
    print(f"\n{wrap(' '.join((GenerateCommand.__doc__ or '').split()))}\n")
    _show(flags)
    _show_help_flag("-h, --help", "Show this help.")
    print(f"\n{bold('Settings')}")
    _show(recipe_flags(GenerateSettings()))


def _argument(flag: Flag) -> str:
    """A positional argument as usage lines show it: MODEL, [TEXT], [TEXT ...]."""
    name = flag.spellings[0] + (" ..." if flag.accepts.many else "")
    return name if flag.required else f"[{name}]"


def show_recipe_verb(verb: str, spec: RecipeVerb, recipe: Recipe, *, everything: bool) -> None:
    """Print the help of a verb that takes a recipe.

    Args:
      verb: its name.
      spec: its flags, and the tables that it reads.
      recipe: the values of its settings are shown as defaults.
      everything: show every table of a recipe in full.
    """
    print(wrap(f"usage: t5smith {verb} [RECIPE] [--flag VALUE ...]", hanging=7))
    print(f"\n{wrap(spec.help)}\n\n{wrap(INTRODUCTION)}\n\n{bold('Flags')}")
    _show(command_flags(spec.command))
    _show_help_flag("-h, --help", "Show this help.")
    _show_help_flag("--help-all", "Show every setting of a recipe.")
    flags, tables = list(recipe_flags(recipe)), dict(_tables(recipe))
    shown = tuple(tables) if everything else spec.shown
    if not everything:
        print(f"\n{bold('Settings that are changed most')}")
        _show(flag for name in spec.common for flag in flags if flag.setting == name)
        flags = [flag for flag in flags if flag.setting not in spec.common]
    for table in shown:
        print("\n" + bold(wrap(tables[table])))
        _show(flag for flag in flags if flag.table == table)
    if not everything:
        print(f"\n{bold('Other settings that it reads')}")
        print(wrap(f"They are typed as --TABLE.NAME. `t5smith {verb} --help-all` describes them.", 2))
    for table in () if everything else spec.named:
        names = [flag.name for flag in flags if flag.table == table]
        print(f"\n{wrap(tables[table], 2)}\n{wrap(' '.join(names), 6)}")


def _show_help_flag(names: str, description: str) -> None:
    print(f"  {bold(names)}\n      {description}")


def _tables(settings: Settings, table: str | None = None) -> Iterator[tuple[str, str]]:
    """The heading of each table of a recipe: its name, and the first paragraph of its description."""
    about = " ".join((type(settings).__doc__ or "").split("\n\n")[0].split())
    table = settings.section if table is None else table
    yield (table, f"[{table}] {about}" if table else "The run (typed as --NAME)")
    for name in type(settings).model_fields:
        value, own = getattr(settings, name), f"{table}.{name}" if table else name
        if isinstance(value, Settings):
            yield from _tables(value, own)
        elif isinstance(value, Mapping):
            for key, one in cast("Mapping[str, Settings]", value).items():
                yield from _tables(one, f"{own}.{key}")


def _show(flags: Iterable[Flag]) -> None:
    for flag in flags:
        names, values = ", ".join(flag.spellings), _values(flag)
        head = wrap(f"{names}  {values}".rstrip(), 2, 6)
        if flag.negatable and "\n" in head:
            head = f"{wrap(names, 2)}\n{wrap(values, 6)}"
        for name in flag.spellings:
            head = head.replace(name, bold(name), 1)
        print(head)
        print(wrap(flag.description, 6))


def _values(flag: Flag) -> str:
    """What a flag accepts, and its default."""
    accepts, default = flag.accepts, flag.default
    switch = accepts.base is bool
    words = [] if switch else [accepts.describe(quote=False, limits=True)]
    shown = ""
    if default is None:
        shown = "none" if "none" in "".join(words) and "Default:" not in flag.description else ""
    elif switch:
        shown = str(default).lower() if flag.negatable else ""
    else:
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return "; ".join([*words, *([f"default:{UNBREAKABLE}{shown}"] if shown else [])])
