"""Corpora with names: which files they are, what they weigh, and where they lie in the store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.store.prepare import prepare
from t5smith.store.token_store import TokenStore
from t5smith.text.corpus import CorpusFiles, find_corpora, find_files, named_weights
from t5smith.vocabulary.train import vocab


@pytest.fixture
def texts(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for part in range(2):
            lines = [f"{name} {part} line {i} of the text on winter and summer\n" for i in range(40)]
            (tmp_path / name / f"{part}.txt").write_text("".join(lines))
    return tmp_path


def test_names_group_files(texts):
    found = find_corpora([f"x={texts}/a", f"y={texts}/b/0.txt", f"x={texts}/c/*.txt"], "corpus.train")
    assert list(found) == ["x", "y"]
    assert [file.parent.name for file in found["x"]] == ["a", "a", "c", "c"]
    both = [*sorted((texts / "b").iterdir()), *sorted((texts / "a").iterdir())]
    assert find_files([f"y={texts}/b", f"x={texts}/a"], "here") == both
    assert list(find_corpora([str(texts / "a")], "corpus.train")) == [""]


def test_a_path_with_an_equals_sign_can_be_named(texts, monkeypatch):
    (texts / "k=v.txt").write_text("a text\n")
    monkeypatch.chdir(texts)
    assert [file.name for file in find_files(["./k=v.txt"], "here")] == ["k=v.txt"]
    assert list(find_corpora(["name=k=v.txt"], "here")) == ["name"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["x={t}/a", "{t}/b"], "has no name, but other texts do"),
        (["x={t}/a", "y={t}/a/0.txt"], "is in two corpora, x and y"),
        (["x={t}/nowhere"], "there is no file or folder"),
        ([], "no text is named"),
        ([""], "a name is empty; expected a file or folder"),
        (["{t}/a", ""], "a name is empty"),
        (["file://"], "a name is empty"),
        (["x=file://"], "a name is empty"),
        (
            ["~nosuchuser/x"],
            "'~nosuchuser/x' begins with an unknown home folder. Write the full path",
        ),
    ],
)
def test_names_that_do_not_go_together_are_refused(texts, patterns, message):
    with pytest.raises(T5smithError, match=message):
        find_corpora([pattern.format(t=texts) for pattern in patterns], "corpus.train")


def test_a_folder_with_an_equals_sign_is_told_from_a_name(texts, monkeypatch):
    (texts / "lang=nb").mkdir()
    (texts / "lang=nb" / "a.txt").write_text("a text\n")
    monkeypatch.chdir(texts)
    hint = r"\. For a path write \./lang=nb/.+: lang= is read as the name of a corpus$"
    for name, message in (("a.txt", "there is no file or folder 'nb/a.txt'"), ("*", r"no file in 'nb/\*'.*")):
        with pytest.raises(T5smithError, match=f"{message}{hint}"):
            find_files([f"lang=nb/{name}"], "here")
        assert find_files([f"./lang=nb/{name}"], "here") == [Path("lang=nb/a.txt")]
    with pytest.raises(T5smithError, match=r"a path with = in it is written \./k=v/a\.txt"):
        find_files(["lang=nb/a.txt", "a"], "here")


def test_names_that_cannot_be_kept_are_refused(texts, monkeypatch):
    monkeypatch.chdir(texts)
    names = {"rows": "part#rows=2-5", "latin": os.fsdecode("bl\xe5.txt".encode("latin-1"))}
    says = {
        "rows": r"^here: 'rows/part#rows=2-5' ends like the name of a range of rows\. Rename it$",
        "latin": r"^here: the name 'latin/bl\\udce5\.txt' is not UTF-8\. Rename the file$",
    }
    for folder, name in names.items():
        (texts / folder).mkdir()
        (texts / folder / name).write_text("a text\n")
        for pattern in (folder, f"{folder}/*", f"{folder}/**/*", f"{folder}/{name}"):
            with pytest.raises(T5smithError, match=says[folder]) as caught:
                find_files([pattern], "here")
            str(caught.value).encode()


def test_urls_of_files_are_paths(texts, monkeypatch):
    monkeypatch.chdir(texts)
    assert find_files(["a/0.txt", f"file://{texts}/a/0.txt", f"local://{texts}/a"], "here") == [
        Path("a/0.txt"),
        texts / "a" / "1.txt",
    ]
    assert find_files([f"x=file://{texts}/a/*.txt"], "here") == sorted((texts / "a").iterdir())


def test_no_file_is_trained_on_and_held_out(texts, monkeypatch):
    monkeypatch.chdir(texts)
    (texts / "link").symlink_to("a")
    for valid in ("a/0.txt", f"{texts}/a", "link/*", f"file://{texts}/a/0.txt", "x=a/0.txt"):
        with pytest.raises(T5smithError, match=r"^corpus\.valid: .*/0\.txt is in corpus\.train too.*\. Name"):
            CorpusFiles.find(
                CorpusSettings(train=("a", "b"), valid=("c", valid) if valid[1] != "=" else (valid,))
            )
    files = CorpusFiles.find(CorpusSettings(train=("x=a", "y=b"), valid=("c",)))
    train, valid = files.train, files.valid
    assert (list(train), list(valid), len(valid[""])) == (["x", "y"], [""], 2)
    assert CorpusFiles.find(CorpusSettings(train=("a",))).valid == {}


def test_a_file_is_known_by_whatever_link_leads_to_it(texts, monkeypatch):
    (texts / "file.txt").symlink_to(texts / "a" / "0.txt")
    (texts / "twice.txt").symlink_to(texts / "file.txt")
    (texts / "folder").symlink_to(texts / "a")
    monkeypatch.chdir(texts)
    same = ["a/0.txt", "./a/../a/0.txt", str(texts / "a/0.txt"), "file.txt", "twice.txt", "folder/0.txt"]
    assert find_files(same, "here") == [Path("a/0.txt")]
    for name in same[1:]:
        with pytest.raises(T5smithError, match="is in two corpora, x and y"):
            find_corpora(["x=a", f"y={name}"], "here")


def test_folders_are_followed_once_however_many_files_they_have(texts, monkeypatch):
    followed = []
    realpath = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: followed.append(os.fspath(path)) or realpath(path))
    for i in range(100):
        (texts / "a" / f"more{i}.txt").write_text("a text")
    assert len(find_corpora([f"x={texts}/a", f"y={texts}/b"], "here")["x"]) == 102
    assert len(followed) <= 4


@pytest.mark.parametrize(
    ("weights", "more", "message"),
    [
        (["x"], {}, "'x' cannot be used"),
        (["x=0", "y=1"], {}, "'x=0' cannot be used"),
        (["x=nan", "y=1"], {}, "'x=nan' cannot be used"),
        (["x=1", "x=2", "y=1"], {}, "'x=2' cannot be used"),
        (["x=1"], {}, "weights for x, but the corpora are x, y"),
        (["x=1", "y=1", "z=1"], {}, "weights for x, y, z, but"),
        (["x=1", "y=1"], {"temperature": 2.0}, "weights and a temperature"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights, more, message):
    with pytest.raises(T5smithError, match=message):
        named_weights(CorpusSettings(train=("x=a", "y=b"), weights=tuple(weights), **more))


def test_the_store_keeps_corpora_one_after_the_other(texts):
    recipe = Recipe.model_validate(
        {
            "run_dir": texts / "run",
            "corpus": {
                "train": [f"x={texts}/a", f"y={texts}/b", f"x={texts}/c"],
                "document": "line",
                "held_out_fraction": 0.2,
            },
            "vocab": {"size": 60},
        }
    )
    vocab(recipe)
    store = TokenStore.open(prepare(recipe))
    facts = read_manifest(recipe.folder / "store", "store").facts
    for split in (store.train, store.valid):
        parts = facts[split.name]["corpora"]
        assert list(parts) == ["x", "y"]
        for total in ("documents", "tokens", "text_bytes"):
            assert sum(part[total] for part in parts.values()) == facts[split.name][total]
        x, y = split.corpora
        assert (x.start, x.stop, y.stop) == (0, y.start, len(split.tokens))
        assert x.stop in split.ends
    plain = recipe.replace(**{"corpus.train": [str(texts / name) for name in ("a", "c", "b")]})
    again = TokenStore.open(prepare(plain)).train
    assert CorpusFiles.find(plain.corpus).inputs() != CorpusFiles.find(recipe.corpus).inputs()
    # The same text in the same order: only its division is gone.
    assert again.tokens.tolist() == store.train.tokens.tolist()
    assert [corpus.name for corpus in again.corpora] == ["train"]


def test_a_corpus_without_text_is_named(texts):
    (texts / "empty.txt").write_text("\n")
    recipe = Recipe.model_validate(
        {
            "run_dir": texts / "run",
            "corpus": {
                "train": [f"x={texts}/a", f"none={texts}/empty.txt"],
                "document": "line",
                "held_out_fraction": 0.2,
            },
            "vocab": {"size": 60},
        }
    )
    vocab(recipe)
    with pytest.raises(T5smithError, match="the corpus 'none' has no text"):
        prepare(recipe)
