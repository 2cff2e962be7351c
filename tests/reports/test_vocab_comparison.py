"""Comparison of vocabularies: figures counted by hand, a table that fits the terminal, a picture."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from t5smith import compare_vocabularies
from t5smith.base.errors import T5smithError
from t5smith.cli.main import main
from t5smith.recipe.recipe import Recipe
from t5smith.reports.vocab_comparison import picture, shortened, show
from t5smith.vocabulary.vocabulary import Vocabulary

HELD_OUT = ["The bad dog", "ruined my  sleep", "ærlig talt"]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    for name, lines in (("train.txt", ["a b c"]), ("valid.txt", HELD_OUT)):
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    return Recipe(run_dir=tmp_path / "run").replace(
        **{
            "corpus.train": [str(tmp_path / "train.txt")],
            "corpus.valid": [str(tmp_path / "valid.txt")],
            "corpus.document": "line",
        }
    )


@pytest.fixture
def t5_folder(t5: Vocabulary, tmp_path: Path) -> str:
    t5.save(tmp_path / "a-rather-long-name-of-a-folder" / "in-another" / "t5")
    return str(tmp_path / "a-rather-long-name-of-a-folder" / "in-another" / "t5")


@pytest.fixture(scope="session")
def t5() -> Vocabulary:
    return Vocabulary.bundled()


def test_all_figures_are_of_the_same_raw_text(recipe: Recipe, t5_folder: str, t5: Vocabulary) -> None:
    found = compare_vocabularies(recipe, [t5_folder, "bytes"])
    size = sum(len(line.encode()) for line in HELD_OUT)
    assert (found.documents, found.bytes, found.words, found.whole) == (3, size, 8, True)
    theirs, bytes_ = found.vocabularies
    ids = [number for line in HELD_OUT for number in t5.encode(line)]
    assert (theirs.tokens, theirs.unknown) == (len(ids), ids.count(t5.unk_id))
    assert theirs.unknown == 1
    assert theirs.unknown_rate == 1 / len(ids)
    assert theirs.used == len(set(ids)) - 1
    assert theirs.pieces == t5.size - 103
    assert theirs.used_rate == theirs.used / theirs.pieces
    assert (theirs.ids, theirs.sentinels, theirs.read_from) == (32_100, 100, "tokenizer.json")
    assert theirs.bytes_per_token == size / len(ids)
    assert theirs.tokens_per_word == len(ids) / 8
    assert theirs.longest[0] == "ruined"
    assert set(theirs.longest) <= set(t5.pieces(ids))
    assert (bytes_.tokens, bytes_.unknown, bytes_.bytes_per_token) == (size, 0, 1.0)
    assert bytes_.tokens_per_word == size / 8
    assert (bytes_.pieces, bytes_.longest) == (256, ())
    assert bytes_.used == len({byte for line in HELD_OUT for byte in line.encode()})


def test_whole_documents_up_to_the_limit_evenly_of_corpora(recipe: Recipe, tmp_path: Path) -> None:
    assert compare_vocabularies(recipe, ["bytes"], 12).bytes == len("The bad dogruined my  sleep")
    first = compare_vocabularies(recipe, ["bytes"], 11)
    assert (first.documents, first.whole) == (1, False)
    (tmp_path / "other.txt").write_text("xx\nyy\nzz")
    files = [f"a={tmp_path}/valid.txt", f"b={tmp_path}/other.txt"]
    both = compare_vocabularies(recipe.replace(**{"corpus.valid": files}), ["bytes"], 8)
    assert (both.documents, both.bytes) == (3, len("The bad dogxxyy"))


def test_a_pipe_gets_no_spaces_at_the_ends_of_lines(recipe: Recipe, t5_folder: str) -> None:
    file = io.StringIO()
    show(compare_vocabularies(recipe, [t5_folder, "bytes"]), Console(file=file))
    lines = file.getvalue().splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert max(map(len, lines)) <= 80
    assert "3 documents, 8 words" in lines[0]


def test_text_is_that_which_prepare_holds_out(recipe: Recipe, tmp_path: Path) -> None:
    from t5smith.text.corpus import CorpusFiles
    from t5smith.text.documents import split_documents

    lines = [f"ord nummer {number}" for number in range(300)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    held = recipe.replace(**{"corpus.valid": [], "corpus.held_out_fraction": 0.1})
    expected = [document.text for document in split_documents(CorpusFiles.find(held.corpus), "valid")]
    assert 5 < len(expected) < 100
    assert compare_vocabularies(held, ["bytes"]).bytes == sum(map(len, expected))


def test_without_held_out_text_there_is_nothing_to_compare(recipe: Recipe) -> None:
    none = recipe.replace(**{"corpus.valid": [], "corpus.held_out_fraction": 1e-9})
    with pytest.raises(T5smithError, match=r"held_out_fraction: there is no held-out text\. Raise"):
        compare_vocabularies(none, ["bytes"])
    with pytest.raises(T5smithError, match="--max-bytes: 0 cannot be used"):
        compare_vocabularies(recipe, ["bytes"], 0)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_and_long_names_lose_their_beginning(
    recipe: Recipe, t5_folder: str, width: int
) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    show(compare_vocabularies(recipe, [t5_folder, "bytes"]), console)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any("t5 " in line and " 32,100 " in line and "%" in line for line in lines)
    assert (t5_folder in file.getvalue()) == (len(t5_folder) <= width - 54)
    for word in ("unknown", "used", "sentinels", "in-another/t5", "bytes", "▁sleep"):
        assert word in file.getvalue() or width == 60


def test_names_are_shortened_from_the_left() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcdef", 4) == "…def"


def test_pictures_are_the_same_for_the_same_figures(recipe: Recipe) -> None:
    found = compare_vocabularies(recipe, ["bytes", "bytes"])
    for kind, begins in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF-")):
        data = picture(found, kind)
        assert data.startswith(begins)
        assert picture(found, kind) == data


def command(recipe: Recipe, *args: str) -> list[str]:
    corpus = recipe.corpus
    flags = ["--corpus.train", *corpus.train, "--corpus.valid", *corpus.valid, "--corpus.document", "line"]
    return ["vocab", *flags, "--run-dir", str(recipe.folder), *args]


def test_the_command(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "c.svg"
    assert main(command(recipe, "--compare", "bytes", "bytes", "--plot", str(plot), "--json")) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in facts["vocabularies"]] == ["bytes", "bytes"]
    assert facts["documents"] == 3
    assert plot.read_bytes().startswith(b"<?xml")
    assert main(command(recipe, "--compare", "bytes")) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    assert not (recipe.folder / "vocab").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--plot", "a.png"], "--plot: needs `--compare`. Add --compare TOKENIZER"),
        (["--max-bytes", "5"], "--max-bytes: needs `--compare`. Add --compare"),
        (
            ["--compare", "bytes", "--plot", "a.jpeg"],
            "--plot: a.jpeg has an unknown ending; expected .png, .svg or .pdf",
        ),
        (["--compare", "bytes", "--plot", "/none/a.png"], "/none/a.png: cannot be written (no such file"),
        (["--compare"], "--compare: nothing to compare; expected one or more tokenizers"),
        (["--compare", "--plot", "a.png"], "--compare: nothing to compare; expected one or more"),
        (["--compare", "bytes", "a b"], "--compare: 'a b' is neither a path nor a name"),
    ],
)
def test_mistakes(recipe: Recipe, args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(recipe, *args)) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"t5smith: error: {message}")
