"""What a file is, by its first bytes and its name."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.compression import compression_of, open_stream
from t5smith.text.documents import read_documents
from t5smith.text.recognition import file_format, is_splittable
from t5smith.text.skipped_records import SkippedRecords

ROWS = b'{"id": 1, "text": "en dag"}\n{"id": 2, "text": "to dager"}\n'
TEXT = b"En dag gikk det to menn.\n\nDe kom ikke tilbake.\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:665232916d12\nsize 146946961\n"
SQUEEZE = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}


def written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("name", ["wiki_00", "part-00000", "a.jsonlines", "a.jsonl.txt", "a.txt", "a.ndjson"])
@pytest.mark.parametrize("squeeze", [bytes, gzip.compress, zstandard.compress])
def test_json_lines_of_any_name(tmp_path: Path, name: str, squeeze) -> None:
    path = Path(written(tmp_path / name, squeeze(ROWS)))
    assert [document.text for document in read_documents(CorpusSettings(), [path])] == ["en dag", "to dager"]
    one = written(tmp_path / f"b{name}", squeeze(b'\xef\xbb\xbf {"text": "' + b"a" * 100_000 + b'"}'))
    assert file_format(CorpusSettings(), one) == "jsonl"


@pytest.mark.parametrize(
    ("before", "documents", "counted"),
    [
        (b'{"text": "en', 2, 1),
        (b"{}", 2, 1),
        (b"null\n", 2, 1),
        (b'{"text": "bl\xe5"}', 2, 1),
        (b'{"a":' * 9_000 + b"1" + b"}" * 9_000, 2, 1),
        (b'\x1e{"text": "null"}\n\x1e', 3, 0),
    ],
    ids=["cut", "empty", "null", "latin-1", "deep", "RFC 7464"],
)
def test_json_lines_that_begin_badly(tmp_path: Path, before: bytes, documents: int, counted: int) -> None:
    """The first line alone does not show that a file of any name is text."""
    data = before + (b"" if before.endswith(b"\x1e") else b"\n") + ROWS
    path = Path(written(tmp_path / "part-00000", data))
    skipped = SkippedRecords()
    found = list(read_documents(CorpusSettings(), [path], None, skipped))
    assert (len(found), skipped.counts.total()) == (documents, counted)


@pytest.mark.parametrize("more", [0, 2_000])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("kind", ["array", "texts", "list", "objects"])
def test_json_that_is_not_lines_is_no_text(tmp_path: Path, kind: str, indent: int | None, more: int) -> None:
    rows = [{"id": number, "text": f"dag {number}"} for number in range(2 + more)]
    values = {
        "array": [rows],
        "texts": [["en", "to"]],
        "list": [{"version": "1", "data": rows}],
        "objects": rows,
    }
    data = "\n".join(json.dumps(value, indent=indent) for value in values[kind]).encode()
    path = Path(written(tmp_path / "data", data))
    if (kind, indent) == ("objects", None):
        assert len(list(read_documents(CorpusSettings(), [path]))) == 2 + more
        return
    with pytest.raises(T5smithError, match=f"^{path}:1: .*(jq -c|corpus.format)"):
        list(read_documents(CorpusSettings(), [path]))


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        b'En dag:\n\n{"a": "b"}\n\ner JSON.\n',
        b'["en", "to"] er en liste.',
        b'{\n  "text": er ikke JSON',
        b"ORCA er en hval.",
        b"PAR1 og PAR2",
        b"WARC/1.0 er et format.",
        b"GIF8 er kort",
        b"{en} dag",
        b'{"en": ikke JSON}\n',
        b'{\n "a": 1\n}',
        b"[1] en dag",
        b"",
    ],
)
def test_other_text_is_text(tmp_path: Path, text: bytes) -> None:
    assert file_format(CorpusSettings(), written(tmp_path / "a", text)) == "text"
    assert file_format(CorpusSettings(), written(tmp_path / "a.csv", text)) == "csv"


@pytest.mark.parametrize("ending", [*SQUEEZE, ".gzip", ".zstd", "", ".txt", ".7"])
@pytest.mark.parametrize("kind", SQUEEZE)
def test_compression_is_seen_in_the_first_bytes(tmp_path: Path, kind: str, ending: str) -> None:
    name = written(tmp_path / f"a{ending}", SQUEEZE[kind](TEXT))
    assert compression_of(name) == kind
    assert not is_splittable(CorpusSettings(), name)
    with open_stream(name) as (_, stream):
        assert stream.read() == TEXT


def test_a_file_that_is_not_compressed_whatever_its_name(tmp_path: Path) -> None:
    name = written(tmp_path / "a.txt.gz", TEXT)
    assert compression_of(name) == ""
    assert is_splittable(CorpusSettings(), name)
    with open_stream(name) as (_, stream):
        assert stream.read() == TEXT


def test_a_skippable_frame_before_zstd(tmp_path: Path) -> None:
    data = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip" + zstandard.compress(TEXT)
    assert compression_of(written(tmp_path / "a", data)) == ".zst"


def test_tables_of_any_name(tmp_path: Path) -> None:
    table = pa.table({"text": ["en dag"]})
    parquet.write_table(table, tmp_path / "a.bin")
    with pa.OSFile(str(tmp_path / "stream"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile(str(tmp_path / "file"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    for name in ("a.bin", "stream", "file"):
        assert [document.text for document in read_documents(CorpusSettings(), [tmp_path / name])] == [
            "en dag"
        ]


def tar(compression: str = "") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{compression}") as file:
        file.addfile(tarfile.TarInfo("a.txt"))
    return data.getvalue()


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("a.txt", TEXT)
    return data.getvalue()


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "a", "a.gz", "a.csv", "a.zip"])
@pytest.mark.parametrize(
    ("data", "what"),
    [
        (
            POINTER,
            "a pointer of Git LFS, not the file. In its repository run `git lfs install` and `git lfs pull`",
        ),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF file"),
        (b"7z\xbc\xaf\x27\x1c\0\x04" + bytes(90), "a 7-Zip archive"),
        (b"\x04\x22\x4d\x18\x64\x40\xa7" + bytes(90), "an LZ4 archive"),
        (b"SQLite format 3\0" + bytes(90), "an SQLite database"),
        (b"ORC\x0a\x03\x00\x00\x00" + bytes(90), "an ORC file"),
    ],
    ids=["lfs", "pdf", "7z", "lz4", "sqlite", "orc"],
)
def test_what_is_refused_is_named(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(T5smithError, match="^" + str(path)) as caught:
        list(read_documents(CorpusSettings(), [path]))
    assert f"this is {what}" in str(caught.value)
    assert "iconv" not in str(caught.value)


def test_a_binary_file_is_no_text_in_another_encoding(tmp_path: Path) -> None:
    for name in ("a", "a.txt", "a.dat"):
        path = Path(written(tmp_path / name, bytes(range(256)) * 20))
        with pytest.raises(T5smithError, match="a binary file of an unknown format"):
            list(read_documents(CorpusSettings(), [path]))
    latin = Path(written(tmp_path / "latin.txt", "blå dag\n".encode("latin-1") * 20))
    with pytest.raises(T5smithError, match="iconv -f latin1"):
        list(read_documents(CorpusSettings(strict=True), [latin]))


@pytest.mark.parametrize("name", ["a", "a.txt", "a.jsonl", "a.csv", "a.html"])
def test_arbitrary_bytes_are_binary_whatever_the_name(tmp_path: Path, name: str) -> None:
    for seed in range(20):
        path = Path(written(tmp_path / name, random.Random(seed).randbytes(3_000)))
        with pytest.raises(T5smithError, match="a binary file of an unknown format"):
            list(read_documents(CorpusSettings(), [path]))


@pytest.mark.parametrize("name", ["a.txt.gz.gz", "a.jsonl.gz", "a"])
@pytest.mark.parametrize("inner", SQUEEZE)
def test_what_is_compressed_twice_is_named(tmp_path: Path, name: str, inner: str) -> None:
    path = Path(written(tmp_path / name, gzip.compress(SQUEEZE[inner](TEXT))))
    with pytest.raises(T5smithError, match=r"this is compressed twice. Unpack it once, and name that file"):
        list(read_documents(CorpusSettings(), [path]))
