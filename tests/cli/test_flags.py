"""Flags: how values are read, and what is said of those that cannot be used."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.helptext import WITH_FLAGS, flags_of
from t5smith.base.errors import T5smithError
from t5smith.cli.flags import Flag, read, recipe_flags, value_of
from t5smith.cli.main import main
from t5smith.recipe.allowed import Allowed
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import load_recipe

SETTINGS = {flag.setting: flag for flag in recipe_flags(Recipe())}


def changed(*args: str) -> Recipe:
    """The default recipe with flags."""
    return Recipe().replace(**read(list(SETTINGS.values()), args, "run"))


def error(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line about a command that a user got wrong."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("t5smith: error: ")
    assert err.count("\n") == 1
    return err.removeprefix("t5smith: error: ").rstrip("\n")


def wrong_values(accepts: Allowed) -> list[str]:
    """Values that a setting does not accept, as they are written in a recipe file."""
    if accepts.base in (str, Path):
        return []  # any text
    wrong = ["'five'", "'None'"] if not accepts.optional else ["'five'"]
    if accepts.base in (int, float):
        wrong += ["true", "nan", "-inf", *(["5.5"] if accepts.base is int else [])]
        bounds = accepts.bounds
        if "ge" in bounds or "gt" in bounds:
            wrong.append(f"{int(min(bounds.get('ge', 9e9), bounds.get('gt', 9e9))) - 1}")
        if "le" in bounds or "lt" in bounds:
            wrong.append(f"{int(max(bounds.get('le', 0), bounds.get('lt', 0))) + 1}")
    return [f"[{value}]" for value in wrong] if accepts.many else wrong


@pytest.mark.parametrize("name", SETTINGS)
def test_a_wrong_value_gets_the_same_sentence_in_a_file_and_as_a_flag(name, tmp_path, capsys):
    flag = SETTINGS[name]
    values = wrong_values(flag.accepts)
    assert bool(values) != (flag.accepts.base in (str, Path))
    for value in values:
        file = tmp_path / "mine.toml"
        file.write_text(f"{name} = {value}", encoding="utf-8")
        with pytest.raises(T5smithError) as caught:
            load_recipe(file)
        in_file = str(caught.value).removeprefix(f"{file}:1: ")
        text = value.strip("[]'")
        argv = [f"{flag.spellings[0]}={text}"] if text.startswith("-") else [flag.spellings[0], text]
        if flag.accepts.base is bool:
            argv = [f"{flag.spellings[0]}={text}"]
        assert error(capsys, "run", *argv) == in_file
        assert re.fullmatch(
            rf"{re.escape(name)}(\.0)?: .+ cannot be used( \(did you mean .+\?\))?; expected .+", in_file
        )


@pytest.mark.parametrize("name", SETTINGS)
def test_the_default_of_a_setting_can_be_typed(name):
    flag = SETTINGS[name]
    default, spelling = flag.default, flag.spellings[0]
    typed = [*default] if isinstance(default, tuple) else ["none" if default is None else default]
    for value, args in (
        [(True, [spelling]), (False, [flag.spellings[1]])]
        if flag.accepts.base is bool
        else [(default, [spelling, *map(str, typed)])]
    ):
        if default is None and flag.accepts.base is Path:
            continue  # no path stands for no path
        assert read(list(SETTINGS.values()), args, "run") == {name: value}


@given(st.integers())
def test_whole_numbers_are_read(value):
    assert value_of(str(value), Allowed(int)) == value
    assert value_of(str(value), Allowed(str)) == str(value)


@given(st.floats(allow_nan=False))
def test_numbers_are_read(value):
    assert value_of(str(value), Allowed(float)) == value


def test_none_and_choices_and_truth_are_read():
    assert value_of("none", Allowed(int, optional=True)) is None
    assert value_of("None", Allowed(float, optional=True)) is None
    assert value_of("none", Allowed(choices=("nfc", "none"))) == "none"
    assert value_of("none", Allowed(str, optional=True)) == "none"
    assert value_of("true", Allowed(bool)) is True
    assert value_of("auto", Allowed(int, choices=("auto",))) == "auto"


def test_values_with_a_leading_hyphen_are_values():
    assert changed("--train.z-loss", "1e-4", "--corpus.train", "-", "- a").corpus.train == ("-", "- a")
    with pytest.raises(T5smithError, match=r"^seed: -5 cannot be used"):
        changed("--seed", "-5")


def test_every_spelling_of_a_flag_is_read():
    for args in (("--train.batch-size", "5"), ("--train.batch_size", "5"), ("--train.batch_size=5",)):
        assert changed(*args).train.batch_size == 5


def test_a_list_ends_at_the_next_flag():
    recipe = changed("--corpus.train", "a", "b", "--seed", "1", "--corpus.valid")
    assert (recipe.corpus.train, recipe.seed, recipe.corpus.valid) == (("a", "b"), 1, ())


@pytest.mark.parametrize("verb", WITH_FLAGS)
def test_no_two_flags_are_spelled_alike(verb):
    spellings = [name for flag in flags_of(verb) for name in flag.spellings]
    assert len(set(spellings)) == len(spellings)
    assert all(isinstance(flag, Flag) for flag in flags_of(verb))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "--train.steps", "five"], "train.steps: 'five' cannot be used; expected a whole number"),
        (["train", "--train.steps", "0"], "train.steps: 0 cannot be used; expected 1 or more"),
        (
            ["train", "--train.batch-size", "0"],
            "train.batch_size: 0 cannot be used; expected a whole number, 1 or more, or 'auto'",
        ),
        (
            ["train", "--train.precision", "bfloat"],
            "train.precision: 'bfloat' cannot be used (did you mean 'bfloat16'?); "
            "expected 'float32' or 'bfloat16'",
        ),
        (
            ["train", "--train.optimizer.clip-norm", "off"],
            "train.optimizer.clip_norm: 'off' cannot be used; expected a number, or 'none'",
        ),
        (
            ["run", "--cleaning.gopher_repetition.top_n_grams", "0.1", "much"],
            "cleaning.gopher_repetition.top_n_grams.1: 'much' cannot be used; expected a number",
        ),
        (["run", "--corpus.strict=yes"], "corpus.strict: 'yes' cannot be used; expected true or false"),
        (["train", "--train.steps"], "--train.steps: missing value; expected a whole number, 1 or more"),
        (
            ["train", "--train.stps", "5"],
            "--train.stps: unknown flag. Did you mean --train.steps? `t5smith train --help-all` lists all",
        ),
        (["train", "--train.stps=5"], "--train.stps: unknown flag. Did you mean --train.steps?"),
        (["train", "--steps", "5"], "--steps: unknown flag. Did you mean --train.steps?"),
        (["train", "--zzzzzzzz"], "--zzzzzzzz: unknown flag. `t5smith train --help-all` lists all flags"),
        (["train", "-x"], "-x: unknown flag"),
        (
            ["train", "--seed", "1", "norwegian-tiny"],
            "norwegian-tiny: unexpected argument. `t5smith train --help` shows what it takes",
        ),
        (["train", "--train.steps", "5", "6"], "6: unexpected argument"),
        (["train", "--corpus.train", "a", "--corpus.train=b"], "--corpus.train: given twice"),
        (["train", "--train.batch-size", "1", "--train.batch_size", "2"], "--train.batch-size: given twice"),
        (["prepare", "--corpus.strict", "--corpus.no-strict"], "--corpus.no-strict: given twice"),
        (["train", "--train.z-loss", "nan"], "train.z_loss: nan cannot be used; expected a finite number"),
        (["recipes", "--frob"], "--frob: unknown flag"),
        (["recipes", "norwegian-tiny"], "norwegian-tiny: unexpected argument"),
        (["generate"], "MODEL: missing; expected a run folder, or an exported model folder"),
        (
            ["generate", "m", "--max-new-tokens", "0"],
            "--max-new-tokens: 0 cannot be used; expected 1 or more",
        ),
        (
            ["inspect", "--batches", "few"],
            "--batches: 'few' cannot be used; expected a whole number, or 'none'",
        ),
        (
            ["inspect", "a dog", "--objective", "ul3"],
            "--objective: 'ul3' cannot be used (did you mean 'ul2'?); "
            "expected 'span_corruption', 'prefix_lm', 'ul2' or 'none'",
        ),
        (["inspect", "a dog", "--json=maybe"], "--json: 'maybe' cannot be used; expected true or false"),
        (["bench", "train", "--steps", "1.5"], "--steps: 1.5 cannot be used; expected a whole number"),
    ],
)
def test_mistakes_are_one_line(argv, message, capsys):
    assert error(capsys, *argv).startswith(message)
