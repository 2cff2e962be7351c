"""Hashes of text files are computed once, and again only if a file may have changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from t5smith.base.artifact import file_hash
from t5smith.base.errors import T5smithError
from t5smith.base.lock import in_run_folder
from t5smith.pipeline import check, prepare
from t5smith.recipe.recipe import Recipe
from t5smith.text import fingerprints
from t5smith.text.corpus import CorpusFiles
from t5smith.text.fingerprints import HashCache, fingerprint_files
from t5smith.vocabulary.train import vocab
from tiny import tiny_recipe

DAY = 86_400


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the files that are hashed, with a cache folder of their own; files settle at once."""
    names: list[str] = []

    def spy(path: Path) -> str:
        names.append(path.name)
        return file_hash(path)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprints, "file_hash", spy)
    monkeypatch.setattr(fingerprints, "SETTLED_NS", -DAY * 10**9)
    monkeypatch.setattr(fingerprints, "MIN_CACHED_BYTES", 3)
    return names


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def cache_file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "t5smith" / "file-hashes-1.json"


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, hashed: list[str]) -> None:
    files = [write(tmp_path / f"{i}.txt", f"text {i}") for i in range(20)]
    first = fingerprint_files(files)
    assert sorted(hashed) == sorted(file.name for file in files)
    assert [facts["sha256"] for facts in first] == [
        hashlib.sha256(f"text {i}".encode()).hexdigest() for i in range(20)
    ]
    assert fingerprint_files(files) == first
    assert len(hashed) == 20


def test_a_changed_file_is_hashed_again(tmp_path: Path, hashed: list[str]) -> None:
    """Even if its size, or its size and mtime, are those of before."""
    file = write(tmp_path / "a.txt", "abc")
    os.utime(file, (1, 1))
    first = fingerprint_files([file])
    for text, mtime in (("abd", 2), ("abe", 2), ("abcd", 2)):
        write(file, text)
        os.utime(file, (mtime, mtime))
        second = fingerprint_files([file])
        assert second[0]["sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert second != first
        first = second
    assert len(hashed) == 4
    # Another file in its place, which is as old and as long.
    os.replace(write(tmp_path / "new.txt", "abcx"), file)
    os.utime(file, (2, 2))
    assert fingerprint_files([file]) != first


def test_hashing_is_remembered_only_where_it_takes_time(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = write(tmp_path / "small.txt", "ab"), write(tmp_path / "large.txt", "abc")
    fingerprint_files([small, large])
    fingerprint_files([small, large])
    assert sorted(hashed) == ["large.txt", "small.txt", "small.txt"]
    entries = json.loads(cache_file(tmp_path).read_text().partition("\n")[2])
    assert list(entries) == [str(large)]
    # In memory all of them are.
    hashes = HashCache()
    del hashed[:]
    for _ in range(2):
        fingerprint_files([small, large], hashes)
    assert hashed == ["small.txt"]
    monkeypatch.setattr(fingerprints, "MAX_HASHED_BYTES", 2)
    assert fingerprint_files([large]) == [
        {"name": "large.txt", "bytes": 3, "changed_ns": large.stat().st_mtime_ns}
    ]


def test_a_file_that_has_just_changed_is_not_remembered(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "SETTLED_NS", 60 * 10**9)
    file = write(tmp_path / "a.txt", "abc")
    os.utime(file, (1, 1))  # setting back the mtime does not help
    fingerprint_files([file])
    fingerprint_files([file])
    assert hashed == ["a.txt", "a.txt"]
    assert not cache_file(tmp_path).exists()


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.txt", "abc")

    def changing(path: Path) -> str:
        try:
            return file_hash(path)
        finally:
            write(path, "abcd")

    monkeypatch.setattr(fingerprints, "file_hash", changing)
    fingerprint_files([file])
    monkeypatch.setattr(fingerprints, "file_hash", file_hash)
    assert fingerprint_files([file])[0]["sha256"] == hashlib.sha256(b"abcd").hexdigest()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-9],
        lambda text: text.replace("sha", "").replace("a.txt", "b.txt"),
        lambda text: text.partition("\n")[2],
        lambda text: "{}\n[]",
    ],
)
def test_a_damaged_cache_is_ignored(tmp_path: Path, hashed: list[str], damage: Callable[[str], str]) -> None:
    files = [write(tmp_path / f"{name}.txt", name * 3) for name in "ab"]
    first = fingerprint_files(files[:1])
    cache = cache_file(tmp_path)
    cache.write_text(damage(cache.read_text()))
    fingerprint_files(files)
    assert fingerprint_files(files)[:1] == first
    assert sorted(hashed) == ["a.txt", "a.txt", "b.txt"]
    cache.write_bytes(b"\xff\xfe")
    assert fingerprint_files(files)[:1] == first


def test_without_a_cache_folder_files_are_hashed(tmp_path: Path, hashed: list[str]) -> None:
    write(tmp_path / "cache", "not a folder")
    file = write(tmp_path / "a.txt", "abc")
    assert fingerprint_files([file]) == fingerprint_files([file])
    assert hashed == ["a.txt", "a.txt"]


def test_old_entries_are_dropped_and_those_of_others_kept(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write(tmp_path / f"{name}.txt", name * 3) for name in "abcd"]

    def entries() -> list[str]:
        return [Path(name).name for name in json.loads(cache_file(tmp_path).read_text().partition("\n")[2])]

    def on_day(day: int, *used: Path, hashes: HashCache | None = None) -> None:
        monkeypatch.setattr(fingerprints.time, "time", lambda: day * DAY)
        fingerprint_files(used, hashes or HashCache())

    on_day(1_000, *files[:2])
    on_day(1_060, files[0])  # used again
    ours = HashCache()
    on_day(1_060, files[2])  # another process writes meanwhile
    on_day(1_060, files[3], hashes=ours)
    assert sorted(entries()) == ["a.txt", "b.txt", "c.txt", "d.txt"]
    on_day(1_100, files[3])
    assert sorted(entries()) == ["a.txt", "c.txt", "d.txt"]
    on_day(1_160, files[3])
    assert entries() == ["d.txt"]
    assert not [file for file in cache_file(tmp_path).parent.iterdir() if file != cache_file(tmp_path)]


def test_a_run_finds_and_hashes_its_text_once(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages that read text get the files that were found at the start."""
    text = write(tmp_path / "a.txt", "\n\n".join(f"det er dag {i}" for i in range(40)))
    recipe = tiny_recipe(
        tmp_path / "run",
        **{
            "corpus.train": (str(text),),
            "corpus.document": "block",
            "vocab.size": 40,
            "vocab.temperature": 2.0,
        },
    )
    calls: list[object] = []
    find = CorpusFiles.find.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(
        CorpusFiles, "find", classmethod(lambda cls, settings: calls.append(settings) or find(cls, settings))
    )

    @in_run_folder
    def text_stages(recipe: Recipe) -> None:
        files = check(recipe)
        vocab(recipe, files=files)
        prepare(recipe, files=files)

    text_stages(recipe)
    assert (len(calls), hashed) == (1, ["a.txt"])
    # Each stage works alone too.
    vocab(recipe)
    prepare(recipe)
    assert (len(calls), hashed) == (3, ["a.txt"])
    # Text that changes between two stages is hashed again, so the store's manifest shows what was read.
    files = check(recipe)
    vocab(recipe, files=files)
    write(text, text.read_text().replace("dag 1\n", "dag 7\n"))
    prepare(recipe, files=files)
    assert hashed == ["a.txt"] * 2
    text.unlink()
    with pytest.raises(T5smithError, match=r"a\.txt: there is no such file"):
        vocab(recipe, files=files)
