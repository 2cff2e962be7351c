import math
from pathlib import Path

import pytest

from t5smith.pages.facts import changed_settings, in_words, number, percent, rows, size
from t5smith.recipe.recipe import Recipe


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tokens", 3_072_000, "3,072,000"),
        ("steps", 0, "0"),
        ("tokens_per_second", 11_873.4, "11,873"),
        ("bits_per_byte", 2.23312, "2.233"),
        ("seconds", 3723.2, "1:02:03"),
        ("corpus_bytes", 1_912_334, "1.91 MB"),
        ("unknown_rate", 0.000123, "0.012 %"),
        ("accuracy", 0.1133, "11.3 %"),
        ("resumed", True, "yes"),
        ("resumed", False, "no"),
        ("files", ["a.txt", "b.txt"], "a.txt, b.txt"),
        ("folder", "runs/x", "runs/x"),
    ],
)
def test_values_are_shown_with_their_units(key: str, value: object, words: str) -> None:
    assert in_words(key, value) == words


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "", [], [None]])
def test_missing_values_are_not_shown(value: object) -> None:
    assert in_words("nll", value) is None
    assert rows({"nll": value}) == []


def test_nested_tables_are_flattened() -> None:
    assert rows({"got": 5, "text": {"nll": 6.5, "tokens": None}}) == [("Got", "5"), ("Text, nll", "6.5")]


def test_well_known_names_are_spelled_out() -> None:
    assert rows({"last_loss": 4.7, "ln_vocab": 8.3, "held_out_tokens": 7, "seconds": 5}) == [
        ("Mean loss of the last 20 steps", "4.7"),
        ("ln V", "8.3"),
        ("Held out tokens", "7"),
        ("Time", "0:05"),
    ]


@pytest.mark.parametrize(
    "facts", [{}, {"a": None}, {"a": {"b": None}}, {"a": {"b": "x"}}, {"a": {"b": True}}, {"a": 3}]
)
def test_number_is_none_where_there_is_no_number(facts: dict[str, object]) -> None:
    assert number(facts, "a", "b") is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_number_is_none_where_the_number_is_not_finite(value: float) -> None:
    assert number({"a": value}, "a") is None
    assert number({"a": 2}, "a") == 2.0


def test_percent_keeps_small_shares_visible() -> None:
    assert [percent(x) for x in (0, 0.00012, 0.5, 1)] == ["0 %", "0.012 %", "50.0 %", "100.0 %"]


def test_percent_below_one_has_two_significant_digits() -> None:
    shares = (0.003, 0.00086, 0.0013, 0.00996, 0.009951, 0.000_000_1, -0.003)
    assert [percent(x) for x in shares] == [
        "0.30 %",
        "0.086 %",
        "0.13 %",
        "1.0 %",
        "1.0 %",
        "0.000010 %",
        "-0.30 %",
    ]


def test_sizes_have_units() -> None:
    assert [size(x) for x in (950, 12_345, 4.56e6)] == ["950 B", "12.3 kB", "4.56 MB"]


def test_only_settings_that_differ_from_the_defaults_are_listed() -> None:
    default = Recipe().train.steps
    same = f"batch_size = {Recipe().train.batch_size}"
    toml = f'name = "x"\nseed = 0\n[train]\nsteps = 5\n{same}\n[corpus]\ntrain = ["a", "b"]'
    assert changed_settings(toml) == [
        ("name", "x", "untitled"),
        ("train.steps", "5", str(default)),
        ("corpus.train", "a, b", "none"),
    ]


def test_a_recipe_that_is_not_toml_has_no_changes() -> None:
    assert changed_settings("= nonsense") == []


def test_the_bundled_recipe_is_listed(request: pytest.FixtureRequest) -> None:
    toml = (request.config.rootpath / Path("src/t5smith/recipe/recipes/norwegian-tiny.toml")).read_text(
        encoding="utf-8"
    )
    assert ("name", "norwegian-tiny", "untitled") in changed_settings(toml)
