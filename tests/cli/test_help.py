"""The help of each verb: complete, short, and no wider than the terminal."""

import os
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from cli.helptext import WITH_FLAGS, described, flags_of, help_of, named
from t5smith import __version__
from t5smith.cli.commands import RECIPE_VERBS, RecipeCommand
from t5smith.cli.flags import command_flags, recipe_flags
from t5smith.cli.main import OVERVIEW, main
from t5smith.cli.verbs import OTHER_VERBS
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import load_recipe

OPTIONS = Path(__file__).parents[1] / "data" / "cli-options.txt"
SETTINGS = list(recipe_flags(Recipe()))
HELP = ["-h, --help", "--help-all"]


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    """A terminal 80 columns wide."""
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"], ["--help-all"]])
def test_the_overview_names_every_verb(argv, capsys):
    assert main(argv) == 0
    assert capsys.readouterr().out == OVERVIEW + "\n"
    assert re.findall(r"^  (\w+)  ", OVERVIEW, re.MULTILINE) == [*RECIPE_VERBS, *OTHER_VERBS]
    assert max(map(len, OVERVIEW.splitlines())) <= 80


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version(flag, capsys):
    assert main([flag]) == 0
    assert capsys.readouterr().out == f"t5smith {__version__}\n"


@pytest.mark.parametrize(
    ("args", "code", "unused"),
    [
        (["--version"], 0, {"pydantic", "rich", "tyro", "numpy", "jax"}),
        (["--help"], 0, {"pydantic", "rich", "tyro", "numpy", "jax"}),
        (["train", "--help"], 0, {"rich", "tyro", "numpy", "jax", "tokenizers", "optax", "matplotlib"}),
        (["train", "--train.steps", "0"], 2, {"tyro", "numpy", "jax", "tokenizers", "optax", "matplotlib"}),
    ],
)
def test_help_and_errors_import_little(args, code, unused):
    program = (
        f"import sys; from t5smith.cli.main import main; assert main({args}) == {code}; "
        f"heavy = {unused} & sys.modules.keys(); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", WITH_FLAGS)
def test_every_flag_is_described(verb, capsys):
    for flag in flags_of(verb):
        assert re.search(r"[a-z]{2}", flag.description), flag.setting
        assert flag.description[0].isupper() or flag.accepts.choices or " " in flag.description
    shown = described(help_of(capsys, verb, "--help-all"))
    own = [", ".join(flag.spellings) for flag in flags_of(verb)]
    help_flags = HELP if verb in RECIPE_VERBS else HELP[:1]
    assert Counter(shown) == Counter(own + help_flags)


@pytest.mark.parametrize("verb", RECIPE_VERBS)
def test_every_setting_is_in_exactly_one_table_of_help_all(verb, capsys):
    text = help_of(capsys, verb, "--help-all").partition("--help-all\n")[2]
    top, *tables = re.split(r"^\[([a-z0-9_.]+)\] ", text, flags=re.MULTILINE)
    found = {"": described(top), **dict(zip(tables[::2], map(described, tables[1::2]), strict=True))}
    expected: dict[str, list[str]] = {}
    for flag in SETTINGS:
        expected.setdefault(flag.table, []).append(", ".join(flag.spellings))
    assert found == expected


@pytest.mark.parametrize("verb", RECIPE_VERBS)
def test_help_shows_the_tables_that_the_verb_reads(verb, capsys):
    spec = RECIPE_VERBS[verb]
    text = help_of(capsys, verb)
    tables = {*spec.shown, *spec.named}
    assert tables <= {flag.table for flag in SETTINGS}
    for table in tables - {""}:
        assert f"[{table}] " in text
    assert set(re.findall(r"^ *\[([a-z0-9_.]+)\] ", text, re.MULTILINE)) == tables - {""}
    common = [flag for flag in SETTINGS if flag.setting in spec.common]
    assert len(common) == len(spec.common) <= 10
    assert {flag.table for flag in common} <= tables
    # Each setting once: described among the most changed or in its table, or named.
    read = [flag for flag in SETTINGS if flag.table in tables]
    shown = [flag for flag in read if flag in common or flag.table in spec.shown]
    own = [", ".join(flag.spellings) for flag in [*command_flags(spec.command), *shown]]
    assert Counter(described(text)) == Counter([*own, *HELP])
    rest = [flag.spellings[0] for flag in read if flag not in shown]
    assert Counter(named(text)) == Counter(rest)
    assert described(text)[len(described(text)) - len(shown) :][: len(common)] == [
        ", ".join(flag.spellings) for name in spec.common for flag in common if flag.setting == name
    ]


def test_run_and_finetune_read_every_table():
    read = [{*RECIPE_VERBS[verb].shown, *RECIPE_VERBS[verb].named} for verb in ("run", "finetune")]
    assert read[0] | read[1] == {flag.table for flag in SETTINGS}
    assert read[0] & read[1] == {""}


@pytest.mark.parametrize("flag", ["--help", "--help-all"])
@pytest.mark.parametrize("verb", WITH_FLAGS)
def test_help_fits_the_terminal_and_breaks_between_words(verb, flag, capsys, monkeypatch):
    words: list[list[str]] = []
    for width in (80, 90, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        text = help_of(capsys, verb, flag)
        assert max(map(len, text.splitlines())) <= min(width, 100)
        assert all(line == line.rstrip() for line in text.splitlines())
        words.append(text.split())
    assert words[0] == words[1] == words[2]


def test_help_in_a_pipe_is_plain_and_at_most_80_columns_wide():
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "t5smith", "train", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_flags_are_bold_on_a_terminal(capsys, monkeypatch):
    plain = help_of(capsys, "train")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    text = help_of(capsys, "train")
    assert "\x1b[1m--train.steps\x1b[0m" in text
    assert re.sub(r"\x1b\[[0-9]+m", "", text) == plain


def test_defaults_are_those_of_the_recipe_and_are_not_broken(capsys):
    assert main(["train", "norwegian-tiny", "--help"]) == 0
    text = capsys.readouterr().out
    steps = load_recipe("norwegian-tiny").train.steps
    assert f"--train.steps  a whole number, 1 or more; default: {steps}\n" in text
    assert "default:\n" not in help_of(capsys, "train", "--help-all")


def test_types_are_words(capsys):
    text = re.sub(r"\s+", " ", help_of(capsys, "run", "--help-all"))
    for words in (
        "--train.optimizer.clip-norm a number, more than 0, or none; default: 1.0",
        "--train.batch-size a whole number, 1 or more, or auto; default: 128",
        "--corpus.train a list of strings",
        "--vocab.max-piece-length a whole number, from 1 to 64; default: 16",
        "--train.precision float32 or bfloat16; default: bfloat16",
        "--corpus.strict, --corpus.no-strict default: false",
        "--cleaning.gopher-repetition.top-n-grams a list of numbers; default: 0.2 0.18 0.16",
        "--run-dir a path",
    ):
        assert f" {words} " in text, words
    assert not re.search(r"\b(INT|FLOAT|STR|None)\b|\{", text)


def test_help_does_not_keep_the_lines_of_docstrings(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = help_of(capsys, "prepare")
    paragraph = text.partition("--corpus.train")[2].partition("\n  --")[0].splitlines()[1:]
    assert len(paragraph) > 2
    for line, below in pairwise(paragraph):
        assert len(line) + 1 + len(below.split()[0]) > 100


def test_a_change_of_the_options_is_seen():
    """To accept one: T5SMITH_ACCEPT=1 make test ARGS="tests/cli/test_help.py -n0"."""
    lines = [f"RECIPE-VERB {flags}" for flags in HELP]
    for verb in ("RECIPE-VERB", *WITH_FLAGS):
        flags = [*command_flags(RecipeCommand), *SETTINGS] if verb == "RECIPE-VERB" else flags_of(verb)
        lines += [f"{verb} {HELP[0]}"] if verb not in RECIPE_VERBS and verb != "RECIPE-VERB" else []
        for flag in flags:
            if verb in RECIPE_VERBS and (flag in SETTINGS or flag.setting == "json"):
                continue  # these are the same for all
            names = ", ".join(flag.spellings)
            lines.append(f"{verb} {names}: {flag.accepts.describe(quote=False, limits=True)}")
    text = "\n".join(lines) + "\n"
    if "T5SMITH_ACCEPT" in os.environ:
        OPTIONS.write_text(text, encoding="utf-8")
    assert text == OPTIONS.read_text(encoding="utf-8")
