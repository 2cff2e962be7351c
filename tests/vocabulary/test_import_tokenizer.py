"""Importing a tokenizer as the vocabulary of a run."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub_server import Hub, reaching, serving
from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.vocabulary.import_tokenizer import import_tokenizer
from t5smith.vocabulary.train import vocab
from t5smith.vocabulary.vocabulary import BUNDLED, Vocabulary

NAMES = ["<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a"]


def tree(names: list[str] = NAMES, **changes: Any) -> dict[str, Any]:
    """A tokenizer.json with a few pieces and no sentinels."""
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "Unigram",
            "unk_id": 2,
            "byte_fallback": False,
            "vocab": [[name, -float(number)] for number, name in enumerate(names)],
        },
    } | changes


def written(folder: Path, content: object = None, name: str = "tokenizer.json") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(tree() if content is None else content))
    return str(folder / name)


def recipe(folder: Path, tokenizer: str, **changes: Any) -> Recipe:
    return Recipe(run_dir=folder / "run").replace(**{"vocab.tokenizer": tokenizer}, **changes)


def test_import_needs_no_text_and_reports_what_it_appended(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "mine")
    folder = vocab(recipe(tmp_path, file, **{"vocab.control_symbols": ["[R]"]}))
    said = capfd.readouterr().err
    assert f"vocab     7 pieces and 100 sentinels: {file} (tokenizer.json)" in said
    assert "vocab     appended: [R], 100 sentinels" in said
    assert "warning" not in said
    vocabulary = Vocabulary.load(folder)
    assert vocabulary.pieces([7, 8, 107]) == ["[R]", "<extra_id_99>", "<extra_id_0>"]
    assert not vocabulary.is_text[7:].any()
    assert vocabulary.is_text[vocabulary.encode("[R]<extra_id_0>")].all()
    facts = read_manifest(folder, "vocab").facts
    assert facts == {
        "tokenizer": file,
        "read_from": "tokenizer.json",
        "pieces": 7,
        "ids": 108,
        "sentinels": 100,
        "control_symbols": 1,
        "appended": "[R], 100 sentinels",
    }


def test_import_is_repeated_only_if_the_files_bytes_change(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "mine")
    first = recipe(tmp_path, file)
    made = (vocab(first) / "manifest.json").stat().st_mtime_ns
    copied = shutil.copytree(tmp_path / "mine", tmp_path / "copy")
    same = (first, first.replace(**{"vocab.tokenizer": str(copied)}), first.replace(**{"vocab.size": 99}))
    for one in (*same, first.replace(**{"corpus.train": ["nowhere.txt"]})):
        assert (vocab(one) / "manifest.json").stat().st_mtime_ns == made
    said = capfd.readouterr().err
    assert said.count("unchanged") == 4
    assert (
        said.count("warning: vocab.tokenizer imports a tokenizer, so these settings have no effect: vocab.s")
        == 1
    )
    keys = {read_manifest(tmp_path / "run" / "vocab", "vocab").key}
    keys.add(read_manifest(vocab(first.replace(**{"vocab.control_symbols": ["[S]"]})), "vocab").key)
    keys.add(read_manifest(vocab(first.replace(**{"vocab.tokenizer": "bytes"})), "vocab").key)
    written(tmp_path / "mine", tree([*NAMES, "ab"]))
    keys.add(read_manifest(vocab(first), "vocab").key)
    assert len(keys) == 4


def test_the_key_of_a_trained_vocabulary_does_not_contain_vocab_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("en fin dag og en fin natt\n\n" * 5)
    made = vocab(
        Recipe(run_dir=tmp_path / "run").replace(
            **{"corpus.train": [str(tmp_path / "a.txt")], "vocab.size": 60}
        )
    )
    assert "tokenizer" not in read_manifest(made, "vocab").inputs["vocab"]


def test_existing_sentinels_are_kept_and_symbols_are_appended(tmp_path: Path) -> None:
    names = [*NAMES, "▁<extra_id_0>", "▁<extra_id_1>"]
    found = import_tokenizer(written(tmp_path, tree(names)), ["[R]", "a"])
    assert found.vocabulary.sentinel_ids.tolist() == [7, 8]
    assert found.vocabulary.pieces([9]) == ["[R]"]
    assert found.appended == ("[R]",)
    # A piece that becomes a control symbol is no longer text.
    assert found.vocabulary.id_of("a") == 4
    assert not found.vocabulary.is_text[4]
    assert 4 not in found.vocabulary.encode("ba a")


def test_pieces_are_appended_after_added_tokens(tmp_path: Path) -> None:
    token = {"id": 7, "content": "<br>", "special": False, "single_word": False, "lstrip": False}
    content = tree(added_tokens=[token | {"rstrip": False, "normalized": False}])
    found = import_tokenizer(written(tmp_path, content), ["[R]"]).vocabulary
    assert found.pieces([7, 8, 9, 108]) == ["<br>", "[R]", "<extra_id_99>", "<extra_id_0>"]
    found.save(tmp_path / "saved")
    again = Vocabulary.load(tmp_path / "saved")
    assert again.encode("a<br>a") == found.encode("a<br>a") == [6, 7, 4]


@pytest.mark.parametrize("how", ["folder", "file", "run", "squeezed", "model"])
def test_a_tokenizer_is_found_by_folder_file_or_run_folder(tmp_path: Path, how: str, t5: Vocabulary) -> None:
    name = tmp_path / "t5"
    if how == "model":
        from test_sentencepiece import BASE, SOME, by_hand

        name.mkdir()
        (name / "tokenizer_config.json").write_text('{"extra_ids": 300}')
        (name / "spiece.model").write_bytes(by_hand([*BASE, *SOME]))
        for one in (name, name / "spiece.model"):
            assert import_tokenizer(str(one)).vocabulary.sentinel_ids.tolist() == list(range(306, 6, -1))
            assert Vocabulary.load(one).size == 307
        return
    if how == "squeezed":
        name = BUNDLED
    else:
        t5.save(name / "vocab" if how == "run" else name)
        name = name / "tokenizer.json" if how == "file" else name
    found = import_tokenizer(str(name)).vocabulary
    assert found.pieces(range(found.size)) == t5.pieces(range(t5.size))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"this file is empty \(0 bytes\)"),
        ("{", "not a tokenizer.json"),
        ("[1, 2]", "not a tokenizer.json"),
        ('"model"', "not a tokenizer.json"),
        ('{"model": {"type": "Unigram"}}', r"not a tokenizer.json \('vocab'\)"),
        ('{"model": {"type": "Unigram", "vocab": [1]}}', "not a tokenizer.json"),
        ('{"model": {"type": "Unigram", "vocab": [["a", "b"]]}}', "'a' with score 'b' is not a piece"),
        ('{"model": {"type": "Unigram", "vocab": [], "unk_id": 0}}', "the vocabulary has no <pad>"),
        (tree(model=tree()["model"] | {"unk_id": None}), "has no unknown piece; expected unk_id"),
        (tree(model=tree()["model"] | {"unk_id": 7}), "<extra_id_99> is missing"),
        ("[" * 100_000, "not a tokenizer.json"),
        (tree(added_tokens=[{"id": "x", "content": "y", "special": True}]), "'y' with id 'x' is not a token"),
        (
            tree(model={"type": "WordPiece", "vocab": {"a": 0}}),
            "a tokenizer of type WordPiece; expected Unigram",
        ),
        (tree(model={"type": "BPE", "vocab": {"a": 0}, "merges": []}), "of type BPE.*Use a T5, mT5 or UMT5"),
        (tree(["-", *NAMES[1:]]), "the vocabulary has no <pad>; expected a piece <pad>. Train it"),
        (tree(["<pad>", "-", *NAMES[2:]]), "the vocabulary has no </s>"),
        (tree(["</s>", "<pad>", *NAMES[2:]]), "<pad> has the id 1; expected 0"),
        (tree(pre_tokenizer=None), "no Metaspace"),
        (
            tree(normalizer={"type": "Precompiled", "precompiled_charsmap": "YWJj"}),
            "character map is damaged",
        ),
        (tree(normalizer={"type": "Nonesuch"}), "not a usable tokenizer.json"),
    ],
)
def test_unusable_tokenizers_are_rejected(tmp_path: Path, content: object, message: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(T5smithError, match=message) as caught:
        vocab(recipe(tmp_path, str(tmp_path)))
    assert str(caught.value).startswith(str(file))
    assert not (tmp_path / "run" / "vocab").exists()


def test_damaged_files_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "cut.json.xz").write_bytes(lzma.compress(b"{}" * 500)[:40])
    (tmp_path / "latin.json").write_bytes("bokmål".encode("latin-1"))
    for name in ("cut.json.xz", "latin.json"):
        with pytest.raises(T5smithError, match="damaged file"):
            import_tokenizer(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nowhere/tokenizer.json",
            "nowhere/tokenizer.json: there is no tokenizer here; expected a folder with",
        ),
        ("./nowhere", "nowhere: there is no tokenizer here"),
        (
            "a b",
            "vocab.tokenizer: 'a b' is neither a path nor a name on the Hugging Face Hub; expected a folder",
        ),
        ("hf:", "'hf:' is neither a path nor a name on the Hugging Face Hub"),
        ("a/b/c", "'a/b/c' is neither a path nor a name"),
        ("a--b", "vocab.tokenizer: a--b was not found here, and it is not a valid name on the Hugging Face"),
    ],
)
def test_unknown_names_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(T5smithError, match=message):
        import_tokenizer(name)


# The Hub's cache: with HF_HUB_OFFLINE nothing else is read.


def cached(cache: Path, name: str, files: dict[str, bytes], revision: str = "5" * 40) -> Path:
    """Put a model's files into the Hub's cache; returns its folder there."""
    repo = cache / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(revision)
    for file, data in files.items():
        (snapshot / file).write_bytes(data)
    return repo


def command(folder: Path, cache: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, "-m", "t5smith", "vocab", "--run-dir", str(folder / "run"), *args]
    return subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True)


def test_a_model_in_the_hubs_cache_is_found_by_name(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    from test_sentencepiece import BASE, SOME, by_hand

    model = by_hand([*BASE, *SOME])
    cached(cache, "some/both", {"tokenizer.json": json.dumps(tree()).encode(), "spiece.model": model})
    cached(cache, "some/old", {"spiece.model": model})
    cached(cache, "plain", {"spiece.model": model})
    for name, read in (
        ("some/both", "tokenizer.json"),
        ("some/old", "spiece.model"),
        ("hf:plain", "spiece.model"),
    ):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        done = command(tmp_path, cache, "--vocab.tokenizer", name, "--json")
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout.splitlines()[-1])
        assert (facts["tokenizer"], facts["read_from"]) == (name, f"{read} at {'5' * 40}")
    revision = command(tmp_path, cache, "--vocab.tokenizer", f"hf:some/old@{'5' * 40}", "--json")
    assert json.loads(revision.stdout.splitlines()[-1])["ids"] == 107


def test_the_cache_has_several_revisions_of_a_model(tmp_path: Path) -> None:
    repo = cached(tmp_path / "cache", "some/both", {"tokenizer.json": json.dumps(tree()).encode()})
    older = repo / "snapshots" / ("6" * 40)
    older.mkdir()
    (older / "tokenizer.json").write_text(json.dumps(tree([*NAMES, "x"])))
    done = command(tmp_path, tmp_path / "cache", "--vocab.tokenizer", f"hf:some/both@{'6' * 40}", "--json")
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["read_from"] == f"tokenizer.json at {'6' * 40}"


def test_an_existing_path_takes_precedence_over_a_name_on_the_hub(tmp_path: Path) -> None:
    cached(tmp_path / "cache", "some/both", {"tokenizer.json": json.dumps(tree([*NAMES, "x"])).encode()})
    written(tmp_path / "some" / "both")
    done = command(tmp_path, tmp_path / "cache", "--vocab.tokenizer", "some/both", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["pieces"] == 7


def test_an_unreachable_hub_gives_a_one_line_error(tmp_path: Path) -> None:
    cached(tmp_path / "cache", "some/empty", {"config.json": b"{}"})
    for name in ("some/empty", "no/such", "hf:some/empty@v2"):
        done = command(tmp_path, tmp_path / "cache", "--vocab.tokenizer", name)
        plain = name.removeprefix("hf:").partition("@")[0]
        said = (
            f"t5smith: error: vocab.tokenizer: {plain} was not found here, and the Hugging Face Hub cannot be"
        )
        assert done.returncode == 2
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    from test_sentencepiece import BASE, SOME, by_hand

    models = {
        "some/both": {"tokenizer.json": json.dumps(tree()).encode(), "spiece.model": b"not asked for"},
        "some/old": {"config.json": b"{}", "spiece.model": by_hand([*BASE, *SOME])},
        "some/image": {"model.bin": b""},
    }
    with serving(models) as address:
        yield address


def online(folder: Path, hub: str, name: str) -> subprocess.CompletedProcess[str]:
    environment = reaching(hub, folder / "cache")
    line = [sys.executable, "-m", "t5smith", "vocab", "--run-dir", str(folder / "run")]
    line += ["--vocab.tokenizer", name, "--json"]
    return subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(("name", "file"), [("some/both", "tokenizer.json"), ("some/old", "spiece.model")])
def test_a_file_is_downloaded_and_cached(tmp_path: Path, hub: str, name: str, file: str) -> None:
    done = online(tmp_path, hub, name)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert (facts["ids"], facts["read_from"]) == (107, f"{file} at {Hub.commit}")
    shutil.rmtree(tmp_path / "run")
    # Cached, and used when the Hub does not answer.
    again = online(tmp_path, "http://127.0.0.1:9", name)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1]) == facts


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no/such",
            "no/such was found neither here nor on the Hugging Face Hub. Name an existing folder or file",
        ),
        (
            "some/private",
            "some/private was found neither here nor on the Hugging Face Hub. Name an existing folder",
        ),
        (
            "some/gated",
            "access to some/gated on the Hub must be requested first. Accept its terms on its page there and",
        ),
        ("hf:some/old@v2", "some/old on the Hub has no revision 'v2'"),
        (
            "some/image",
            "some/image on the Hub has no tokenizer; expected one of tokenizer.json, spiece.model",
        ),
    ],
)
def test_errors_of_the_hub_are_one_line(tmp_path: Path, hub: str, name: str, message: str) -> None:
    done = online(tmp_path, hub, name)
    assert done.returncode == 2
    assert done.stderr.startswith(f"t5smith: error: vocab.tokenizer: {message}")
    assert done.stderr.count("\n") == 1
