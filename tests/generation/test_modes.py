"""A mode token is one that the model was trained with; what is assumed is reported."""

import json
from pathlib import Path

import pytest

from t5smith.base.errors import T5smithError
from t5smith.generation.modes import Mode, mode_of
from t5smith.objective.denoisers import mode_token_ids
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.vocabulary.vocabulary import Vocabulary

OWN = {"name": "mixture", "denoisers": ("0.25 prefix 1 [S]", "0.15 3 1 [N]"), "eos": False}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.bundled()


def model(folder: Path, settings: object) -> Path:
    """A folder with the settings of a training."""
    (folder / "t5smith.json").write_text(json.dumps({"objective": settings}))
    return folder


@pytest.mark.parametrize(
    ("settings", "asked", "token", "continues", "said"),
    [
        ({}, None, "", False, ""),
        ({}, "", "", False, ""),
        ({"name": "prefix_lm"}, None, "", True, ""),
        (
            {"name": "ul2"},
            None,
            "[R]",
            False,
            "generate  mode [R] is assumed; others: --mode [S], --mode [X]\n",
        ),
        ({"name": "ul2"}, "[S]", "[S]", True, ""),
        ({"name": "ul2"}, "[X]", "[X]", False, ""),
        (
            {"name": "ul2"},
            "",
            "",
            False,
            "warning: no mode token, but the model was trained with [R], [S], [X]\n",
        ),
        (OWN, None, "[N]", False, "generate  mode [N] is assumed; others: --mode [S]\n"),
    ],
)
def test_the_mode_is_one_of_the_training(
    vocabulary, tmp_path, capsys, settings, asked, token, continues, said
):
    objective = ObjectiveSettings.model_validate(settings)
    found = mode_of(model(tmp_path, objective.model_dump(mode="json")), vocabulary, asked)
    assert found == Mode(token, mode_token_ids(token, vocabulary), continues, objective.eos)
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"^--mode \[Q\]: the model was trained without mode tokens; expected no mode token$"),
        (
            {"name": "ul2"},
            r"^--mode \[Q\]: the model was trained with other mode tokens; expected \[R\] or \[S\] or \[X\]$",
        ),
    ],
)
def test_another_mode_is_rejected(vocabulary, tmp_path, settings, message):
    objective = ObjectiveSettings.model_validate(settings).model_dump(mode="json")
    with pytest.raises(T5smithError, match=message):
        mode_of(model(tmp_path, objective), vocabulary, "[Q]")


def test_a_model_of_another_project_does_not_say_what_it_was_trained_with(vocabulary, tmp_path, capsys):
    said = "warning: whether the model was trained with the mode token [R] is not recorded, and its"
    assert mode_of(tmp_path, vocabulary, "[R]").ids == mode_token_ids("[R]", vocabulary)
    assert capsys.readouterr().err.startswith(said)
    assert mode_of(tmp_path, vocabulary, None) == mode_of(tmp_path, vocabulary, "") == Mode("", ())
    assert capsys.readouterr().err == ""
    for damaged in ("[]", "{", '{"objective": {"name": "other"}}'):
        (tmp_path / "t5smith.json").write_text(damaged)
        assert mode_of(tmp_path, vocabulary, None) == Mode("", ())


def test_control_pieces_of_such_a_model_are_named(tmp_path, capsys):
    from t5smith.vocabulary.train import build

    pieces = [(letter, -1.0) for letter in "▁abc"]
    mine = Vocabulary(build(pieces, ["[NLU]", "[S2S]"]).to_str())
    assert mode_of(tmp_path, mine, None) == Mode("", ())
    assert capsys.readouterr().err == (
        "generate  no mode token is assumed; the vocabulary has [NLU], [S2S], which --mode may name\n"
    )
    assert mode_of(tmp_path, mine, "[NLU]").ids == (mine.id_of("[NLU]"),)
    assert capsys.readouterr().err == (
        "warning: whether the model was trained with the mode token [NLU] is not recorded\n"
    )
