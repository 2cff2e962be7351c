"""Reads the help that the command prints."""

import re

import pytest

from t5smith.cli.bench import BENCH_PARTS
from t5smith.cli.commands import RECIPE_VERBS, GenerateCommand, RecipesCommand
from t5smith.cli.flags import Flag, command_flags, recipe_flags
from t5smith.cli.import_model import ImportCommand
from t5smith.cli.inspect_flags import InspectCommand
from t5smith.cli.main import main
from t5smith.cli.verbs import OTHER_VERBS
from t5smith.recipe.evaluate import GenerateSettings
from t5smith.recipe.recipe import Recipe

WITH_FLAGS = [
    *RECIPE_VERBS,
    *(verb for verb in OTHER_VERBS if verb != "bench"),
    *(f"bench {part}" for part in BENCH_PARTS),
]


def help_of(capsys: pytest.CaptureFixture[str], verb: str, flag: str = "--help") -> str:
    """What a verb prints for --help or --help-all."""
    assert main([*verb.split(), flag]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def described(text: str) -> list[str]:
    """The flags and arguments that a help describes: `--json`, `--corpus.strict, --corpus.no-strict`."""
    one = r"--?[^ ,\n]+"
    found = re.findall(rf"^  ((?:{one},\s+)?{one}|[A-Z]+)(?=  |$)", text, re.MULTILINE)
    return [" ".join(flags.split()) for flags in found]


def named(text: str) -> list[str]:
    """The settings that a help only names, as they are typed."""
    _, _, tail = text.partition("Other settings that it reads\n")
    found: list[str] = []
    for paragraph in tail.split("\n\n")[1:]:
        heading, names = re.split(r"\n(?=      )", paragraph, maxsplit=1)
        table = re.match(r"  \[([a-z0-9_.]+)\] ", heading)
        prefix = f"--{table[1]}.".replace("_", "-") if table else "--"
        found += [prefix + name for name in names.split()]
    return found


def flags_of(verb: str) -> list[Flag]:
    """The flags of a verb: those of its own, and the settings if it takes a recipe."""
    if verb in RECIPE_VERBS:
        return [*command_flags(RECIPE_VERBS[verb].command), *recipe_flags(Recipe())]
    if verb.startswith("bench "):
        return command_flags(BENCH_PARTS[verb.removeprefix("bench ")].command)
    commands = {
        "import": ImportCommand,
        "generate": GenerateCommand,
        "inspect": InspectCommand,
        "recipes": RecipesCommand,
    }
    shared = recipe_flags(GenerateSettings()) if verb == "generate" else ()
    return [*command_flags(commands[verb]), *shared]
