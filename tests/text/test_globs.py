"""Files below folders and those of globs: as `glob` has them, but nothing is passed over in silence."""

from __future__ import annotations

import glob
import os
import socket
from pathlib import Path

import pytest

from t5smith.base.errors import T5smithError
from t5smith.text.corpus import find_files


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "a.txt",
        "t/b.txt",
        "t/B.TXT",
        "t/.hidden.txt",
        "t/.git/c.txt",
        "t/sub/d.txt",
        "t/sub/e[1].txt",
        "t/sub/deep/t/f.jsonl",
        "u/sub/g.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("en tekst\n")
    (tmp_path / "u" / "link").symlink_to(tmp_path / "t" / "sub")
    (tmp_path / "u" / "file.txt").symlink_to(tmp_path / "a.txt")
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


PATTERNS = [
    "*",
    "*.txt",
    "**",
    "**/*",
    "**/*.txt",
    "t/**",
    "t/**/*.txt",
    "t/**/",
    "**/sub/*.txt",
    "**/sub/**/*.jsonl",
    "**/**/d.txt",
    "*/*/[dg].txt",
    "t/.*",
    "t/.git/*",
    "t/**/.*",
    "**/.git/*.txt",
    "t/../u/*",
    "u/link/*",
    "u/*/deep/**/*",
    "?/sub/e[[]1].txt",
    "t/b.txt/*",
    "gone/**/*.txt",
    "none/**/*.txt",
    "**/gone.txt",
    "**/d.txt",
    "./**/t/*",
    "x**/*",
    "t**/*.txt",
]


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_globs_match_what_glob_does(tree: Path, pattern: str, absolute: bool) -> None:
    pattern = f"{tree}/{pattern}" if absolute else pattern
    expected: set[str] = set()
    for match in glob.glob(pattern, recursive=True):
        below = [file for file in Path(match).rglob("*") if file.is_file()]
        shown = [file for file in below if not any(p[0] == "." for p in file.relative_to(match).parts)]
        expected |= {os.path.realpath(file) for file in (shown if os.path.isdir(match) else [match])}
    if not expected:
        with pytest.raises(T5smithError, match="no file in"):
            find_files([pattern], "f")
        return
    found = [os.path.realpath(str(file)) for file in find_files([pattern], "f")]
    assert sorted(found) == sorted(expected)


def test_loops_of_links_end(tree: Path) -> None:
    for name in ("up", "again"):
        (tree / "t" / name).symlink_to("..")
    everything = {"a.txt", "b.txt", "d.txt", "e[1].txt", "g.txt"}
    for pattern in ("t/**/*.txt", "t/**/t/**/*.txt"):
        found = find_files([pattern], "f")
        assert sorted(Path(str(file)).name for file in found) == sorted(everything)
    assert len(find_files(["t"], "f")) == len(everything) + 2


def test_only_what_can_be_read_again_is_a_file(tree: Path) -> None:
    os.mkfifo(tree / "t" / "pipe.txt")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind("t/socket.txt")
    (tree / "t" / "link.txt").symlink_to("pipe.txt")
    try:
        for pattern in ("t", "t/*", "t/**/*", "t/**", "*/*"):
            names = {Path(str(file)).name for file in find_files([pattern], "f")}
            assert "b.txt" in names
            assert not names & {"pipe.txt", "socket.txt", "link.txt"}
        for name in ("t/pipe.txt", "t/socket.txt", "t/link.txt", "/dev/null", "nb=t/pipe.txt"):
            with pytest.raises(
                T5smithError, match=r"^f: '.*' is not a regular file; expected a file that can"
            ):
                find_files([name], "f")
        with pytest.raises(T5smithError, match=r"^f: no file in 't/pipe\*'"):
            find_files(["t/pipe*"], "f")
    finally:
        bound.close()


def test_a_link_that_leads_nowhere_is_said(tree: Path) -> None:
    for target in ("gone.txt", "lost.txt"):
        (tree / "none" / "lost.txt").symlink_to(target)
        for pattern in ("none", "none/*", "**/lost.txt"):
            with pytest.raises(
                T5smithError, match=r"^none/lost\.txt: there is no such file\. Remove the link"
            ):
                find_files([pattern], "f")
        (tree / "none" / "lost.txt").unlink()


def test_what_the_system_cannot_read_is_said(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, **_: object) -> object:
        raise OSError(5, "Input/output error", name)

    monkeypatch.setattr(os, "listdir", broken)
    with pytest.raises(T5smithError, match=r"^t: cannot read this folder \(Input/output error\)$"):
        find_files(["t/*"], "f")
    monkeypatch.setattr(os, "stat", broken)
    with pytest.raises(T5smithError, match=r"^a\.txt: cannot read this \(Input/output error\)$"):
        find_files(["a.txt"], "f")
