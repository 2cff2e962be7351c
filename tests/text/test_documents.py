from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text import fingerprints
from t5smith.text.corpus import CorpusFiles, find_files
from t5smith.text.documents import (
    Document,
    is_held_out,
    read_documents,
    split_documents,
)
from t5smith.text.fingerprints import fingerprint_files

SQUEEZE = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(path: Path, **settings: object) -> list[tuple[str, int]]:
    corpus = CorpusSettings.model_validate(settings)
    return [(document.text, document.line) for document in read_documents(corpus, [path])]


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


BLOCKS = "\n \nen\nto\n\n\t\ntre  \n\nfire"


def test_what_a_document_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", BLOCKS)
    assert read(path) == [("en\nto", 3), ("tre  ", 7), ("fire", 9)]
    assert read(path, document="line") == [("en", 3), ("to", 4), ("tre  ", 7), ("fire", 9)]
    assert read(path, document="file") == [("en\nto\n\n\t\ntre  \n\nfire", 3)]
    assert next(read_documents(CorpusSettings(), [path])) == Document("en\nto", str(path), 3)
    assert Document("blå", "", 1).bytes == 4


@pytest.mark.parametrize("document", ["block", "line", "file"])
def test_windows_line_ends_and_a_bom_change_nothing(tmp_path: Path, document: str) -> None:
    plain = write(tmp_path / "a.txt", BLOCKS + "\n")
    windows = write(tmp_path / "b.txt", b"\xef\xbb\xbf" + BLOCKS.replace("\n", "\r\n").encode())
    assert read(windows, document=document) == read(plain, document=document)


def test_byte_order_marks_of_joined_files(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.txt", "\ufeffa\n\n\ufeffb")) == [("a", 1), ("b", 3)]


@pytest.mark.parametrize("ending", SQUEEZE)
def test_compressed_files_read_as_they_were(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"a.txt{ending}", SQUEEZE[ending](BLOCKS.encode()))
    assert read(path) == [("en\nto", 3), ("tre  ", 7), ("fire", 9)]
    rows = write(tmp_path / f"a.jsonl{ending}", SQUEEZE[ending](b'{"text": "en"}\n'))
    assert read(rows) == [("en", 1)]


@given(
    blocks=st.lists(
        st.lists(st.text("aø <|", min_size=1).filter(lambda x: not x.isspace()), min_size=1), min_size=1
    )
)
def test_every_line_is_in_one_document(
    blocks: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.mktemp("x") / "a.txt", "\n\n".join("\n".join(lines) for lines in blocks))
    assert [text.split("\n") for text, _ in read(path)] == blocks
    assert [text for text, _ in read(path, document="line")] == [line for lines in blocks for line in lines]


def test_json_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "en\\n\\nto", "id": 1}\n\n{"text": "", "body": "tre"}\r\n')
    assert read(path) == [("en\n\nto", 1), ("", 3)]
    for name in ("b.json", "b.ndjson", "B.JSONL"):
        assert read(write(tmp_path / name, '{"body": "tre"}'), text_field="body") == [("tre", 1)]
    assert read(write(tmp_path / "rows.txt", '{"text": "en"}'), format="text") == [('{"text": "en"}', 1)]
    assert read(write(tmp_path / "rows.csv", '{"text": "en"}'), format="jsonl") == [("en", 1)]
    assert read(write(tmp_path / "c.jsonl", '{"text": "en"}'), format="text") == [('{"text": "en"}', 1)]


@pytest.mark.parametrize(
    ("name", "content", "place", "message"),
    [
        ("a.txt", b"god\ndag bl\xe5\n", ":2", "invalid UTF-8: byte 0xe5 at position 7 of the line"),
        ("a.txt", "\ufeffhei".encode("utf-16-le"), ":1", "looks like UTF-16"),
        ("a.txt", ("\ufeff" + "dag\n" * 9).encode("utf-16-be"), ":1", "looks like UTF-16"),
        ("a.jsonl", ('{"text": "a"}\n' * 9).encode("utf-16-le"), ":1", "`iconv -f utf-16 -t utf-8`"),
        ("a.txt", "en\rto\r\rtre\r", ":1", "its lines end in CR, as on old Macs"),
        ("a.jsonl", b'{"text": "\xff"}', ":1", "invalid UTF-8"),
        ("a.jsonl", '\n{"text": "b"', ":2", "not JSON"),
        ("a.jsonl", '{"a":' * 100_000, ":1", "not JSON"),
        ("a.jsonl", "\n1\n", ":2", "not a JSON object"),
        ("a.json", '\n[\n{"text": "a"},\n{"text": "b"}\n]', ":2", "it begins as one JSON array"),
        (
            "a.jsonl",
            '{"a": "a", "b": "b"}',
            ":1",
            "2 fields hold text, and none is called 'text'. Set corpus.",
        ),
        ("a.jsonl", '{"text": null, "id": "a"}', ":1", "the field 'text' is not text"),
        ("a.jsonl", '{"id": ["a"]}', ":1", "no field holds text"),
        ("a.txt.gz", gzip.compress(b"hei\n" * 9, mtime=0)[:-9], ":", "cut short or damaged"),
        ("a.txt.xz", lzma.compress(os.urandom(9_000).hex("\n").encode())[:-99], ":", "cut short or damaged"),
        ("a.txt.bz2", bz2.compress(b"hei\n" * 9)[:-9], ":", "cut short or damaged"),
        ("a.txt.gz", b"hei", ":1", "cut short or damaged"),
        ("a.txt.xz", b"hei", ":1", "cut short or damaged"),
        ("a.txt.bz2", b"hei", ":1", "cut short or damaged"),
        ("a.txt.gz", gzip.compress(b"hei\n" * 9, mtime=0)[:12] + b"\xff" * 9, ":1", "cut short or damaged"),
    ],
)
def test_bad_input_is_refused_with_its_line(
    tmp_path: Path, name: str, content: bytes | str, place: str, message: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(T5smithError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}{place}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_read_before_the_bad_line_is_still_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"en\nto\n\xff\n")
    stream = read_documents(CorpusSettings(document="line"), [path])
    assert next(stream).text == "en"


def test_a_folder_is_not_a_file_and_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(T5smithError, match="this is a folder"):
        read(tmp_path)
    with pytest.raises(T5smithError, match=r"gone.txt: there is no such file"):
        read(tmp_path / "gone.txt")


@pytest.fixture
def as_a_user() -> Iterator[Path]:
    """A folder that anyone may look into, while we have no more rights than anyone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for path in folder.rglob("*"):
            path.chmod(0o700)
        shutil.rmtree(folder)


def step_down() -> None:
    if os.geteuid() == 0:
        os.seteuid(65_534)


def test_what_may_not_be_read_is_said(as_a_user: Path) -> None:
    file = write(as_a_user / "secret.txt", "a")
    closed = as_a_user / "closed"
    closed.mkdir()
    file.chmod(0)
    closed.chmod(0)
    step_down()
    for reader in (read, lambda path: fingerprint_files([path])):
        with pytest.raises(T5smithError, match=r"secret.txt: no permission to read"):
            reader(file)
    with pytest.raises(T5smithError, match=r"closed: cannot read this folder"):
        find_files([str(as_a_user)], "corpus.train")


def test_what_may_not_be_looked_into_is_not_passed_over(as_a_user: Path) -> None:
    for folder in ("open", "secret", "listed"):
        (as_a_user / folder).mkdir(mode=0o755)
        write(as_a_user / folder / "a.txt", "a")
    (as_a_user / "secret").chmod(0)
    (as_a_user / "listed").chmod(0o444)  # its names may be known, but no more
    step_down()
    assert find_files([f"{as_a_user}/o*/**/*.txt"], "f") == [as_a_user / "open" / "a.txt"]
    secret = ("**/*.txt", "**", "*", "*/*.txt", "**/a.txt", "s*/a.txt")
    named = ("secret", "secret/a.txt", "secret/*.txt", "secret/**/*.txt", "listed", "listed/*")
    says = r"/(secret|listed)(/.*)?: cannot read this( folder)?; expected permission to read it$"
    for pattern in secret + named:
        with pytest.raises(T5smithError, match=says):
            find_files([f"{as_a_user}/{pattern}"], "f")


def test_names_stand_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "b.txt",
        "a.txt",
        "sub/c.txt",
        ".hidden.txt",
        ".git/x.txt",
        "sub/deep/d.jsonl",
        "odd[1].txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, "x")
    monkeypatch.chdir(tmp_path)

    def names(*patterns: str) -> list[str]:
        return [
            path.relative_to(tmp_path).as_posix() for path in map(Path.absolute, find_files(patterns, "f"))
        ]

    everything = ["a.txt", "b.txt", "odd[1].txt", "sub/c.txt", "sub/deep/d.jsonl"]
    assert names(".") == names(str(tmp_path)) == everything
    assert names("b.txt", "a.txt", "./b.txt", ".") == ["b.txt", "a.txt", *everything[2:]]
    assert names("*.txt") == ["a.txt", "b.txt", "odd[1].txt"]
    assert names("**/*.jsonl") == ["sub/deep/d.jsonl"]
    assert names("s*") == ["sub/c.txt", "sub/deep/d.jsonl"]
    assert names("odd[1].txt") == ["odd[1].txt"]
    assert names(".hidden.txt") == [".hidden.txt"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names("~/a.txt") == ["a.txt"]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "x")
    (tmp_path / "again").symlink_to(tmp_path)
    assert find_files([str(tmp_path)], "f") == [tmp_path / "a.txt"]


def test_bundled_text_is_there_without_its_licence_file() -> None:
    names = [path.name for path in find_files(["bundled:norwegian"], "corpus.train")]
    assert names == [path.name for path in find_files(["bundled:norwegian/*"], "corpus.train")]
    assert names == [
        "debian-handbook-nb.train.txt.xz",
        "debian-handbook-nb.valid.txt.xz",
        "ordbok-nb-examples.txt.xz",
        "udhr-nno.txt.xz",
        "udhr-nob.txt.xz",
    ]
    corpus = CorpusSettings()
    counts = [
        len(list(read_documents(corpus, find_files([f"bundled:norwegian/{name}"], "f"))))
        for name in names[:2]
    ]
    assert counts == [111, 5]
    lines = read_documents(CorpusSettings(document="line"), find_files(["bundled:norwegian/ordbok*"], "f"))
    assert sum(1 for _ in lines) == 53_857


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ((), "corpus.train: no text is named; expected at least one file or folder"),
        (("gone.txt",), "corpus.train: there is no file or folder 'gone.txt'"),
        (("a.txt", "gone/*.txt"), "corpus.train: no file in 'gone/*.txt'"),
        (("empty",), "corpus.train: no file in 'empty'"),
        (("bundled:danish",), "'bundled:danish' is not bundled with t5smith; expected bundled:norwegian"),
        (("bundled:norwegian/*.doc",), "no file in 'bundled:norwegian/*.doc'"),
        (("nul\0.txt",), "there is no file or folder"),
    ],
)
def test_names_that_stand_for_nothing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patterns: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.txt", "x")
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    with pytest.raises(T5smithError) as caught:
        find_files(patterns, "corpus.train")
    assert message in str(caught.value)


def test_progress_adds_up_to_the_size_of_the_files(tmp_path: Path) -> None:
    big = write(tmp_path / "a.txt", "en linje\n" * 40_000)
    squeezed = write(tmp_path / "b.txt.xz", lzma.compress(os.urandom(150_000).hex("\n").encode()))
    told: list[int] = []
    for _ in read_documents(CorpusSettings(document="line"), [big, squeezed], told.append):
        pass
    assert sum(told) == big.stat().st_size + squeezed.stat().st_size
    assert len(told) > 5


def test_a_long_file_is_not_held_in_memory(tmp_path: Path) -> None:
    """Documents come while the file is still open far from its end."""
    path = write(tmp_path / "a.txt", "en linje\n\n" * 200_000)
    told: list[int] = []
    stream = read_documents(CorpusSettings(), [path], told.append)
    for _ in range(10):
        next(stream)
    assert sum(told) == 0
    stream.close()


def test_fingerprints_follow_name_size_and_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", "abc")
    one = fingerprint_files([path])
    assert one == fingerprint_files([path])
    assert one[0]["name"] == "a.txt"
    assert one[0]["bytes"] == 3
    os.utime(path, (1, 1))
    assert fingerprint_files([path]) == one
    assert fingerprint_files([write(path, "abd")]) != one
    monkeypatch.setattr(fingerprints, "MAX_HASHED_BYTES", 2)
    large = fingerprint_files([path])
    assert "sha256" not in large[0]
    os.utime(path, (2, 2))
    assert fingerprint_files([path]) != large


@given(text=st.text())
def test_held_out_goes_by_the_text_alone(text: str) -> None:
    assert is_held_out(text, 0.3) == is_held_out(text, 0.3)
    assert not (is_held_out(text, 0.1) and not is_held_out(text, 0.5))


def test_held_out_share_is_the_fraction() -> None:
    documents = 20_000
    for fraction in (0.002, 0.01, 0.5, 0.9):
        held_out = sum(is_held_out(f"document {i}", fraction) for i in range(documents))
        deviation = (documents * fraction * (1 - fraction)) ** 0.5
        # Of 20,000 documents 40 at the least: holding out none is six deviations away.
        assert held_out == pytest.approx(documents * fraction, abs=4 * deviation)


def test_splits_share_the_documents_between_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "".join(json.dumps({"text": f"nr {i}"}) + "\n" for i in range(200)))
    files = CorpusFiles.find(CorpusSettings(train=(str(path),), held_out_fraction=0.2))
    train = [d.text for d in split_documents(files, "train")]
    valid = [d.text for d in split_documents(files, "valid")]
    assert 20 < len(valid) < 60
    assert sorted(train + valid) == sorted(f"nr {i}" for i in range(200))
    assert all(is_held_out(text, 0.2) for text in valid)


def test_given_held_out_files_override_the_hash(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.txt", "en\n\nto"), write(tmp_path / "b.txt", "tre")
    corpus = CorpusSettings(train=(str(a),), valid=(str(b),), held_out_fraction=0.999)
    files = CorpusFiles.find(corpus)
    assert [d.text for d in split_documents(files, "train")] == ["en", "to"]
    assert [d.text for d in split_documents(files, "valid")] == ["tre"]
    b.unlink()
    assert len(list(split_documents(files, "train"))) == 2


def test_inputs_hold_all_that_decides_the_documents(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.txt", "en"), write(tmp_path / "b.txt", "to")
    corpus = CorpusSettings(train=(str(a),), held_out_fraction=0.1)
    seen = [CorpusFiles.find(corpus).inputs()]
    changes = ({"held_out_fraction": 0.2}, {"format": "text"}, {"document": "line"}, {"text_field": "t"})
    for change in (*changes, {"valid": (str(b),)}, {"train": (str(b),)}):
        seen.append(CorpusFiles.find(corpus.model_copy(update=change)).inputs())
    assert all(x != y for i, x in enumerate(seen) for y in seen[:i])
    assert "held_out_fraction" not in seen[5]


def test_inputs_hold_which_files_are_of_which_corpus(tmp_path: Path) -> None:
    a, b, c = (write(tmp_path / f"{name}.txt", name) for name in "abc")
    for field in ("train", "valid"):
        seen: list[object] = []
        for second in ("nb", "nn"):
            files = (f"nb={a}", f"{second}={b}", f"nn={c}")
            other = {"train": (f"nb={write(tmp_path / 'd.txt', 'd')}",)}
            corpus = CorpusSettings.model_validate({**other, field: files})
            seen.append(CorpusFiles.find(corpus).inputs())
        assert seen[0] != seen[1]
