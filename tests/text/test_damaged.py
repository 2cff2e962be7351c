"""Input that is broken: what is whole is used, what is not is counted with its place, or refused."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from reading import read, write

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.store.prepare import prepare
from t5smith.text.document import BlockSelection
from t5smith.text.documents import positioned_documents, read_documents
from t5smith.text.row_count import count_rows
from t5smith.text.skipped_records import MAX_BAD_START, SkippedRecords, skipped_messages
from t5smith.vocabulary.train import vocab

GOOD = [json.dumps({"text": f"dag {i}"}) for i in range(30)]


@pytest.mark.parametrize(
    ("name", "bad", "kind", "says"),
    [
        ("a.jsonl", b'{"text": "x"', "not JSON", ":16: not JSON"),
        ("a.jsonl", b"[1, 2]", "not JSON", ":16: not a JSON object"),
        ("a.jsonl", b'{"id": 3}', "no text", ":16: no field 'text'"),
        ("a.jsonl", b'{"text": 3}', "no text", ":16: the field 'text' is a number, not text"),
        ("a.jsonl", b'{"text": "bl\xe5"}', "not UTF-8", ":16: invalid UTF-8: byte 0xe5"),
        ("a.jsonl", b'{"text": "' + b"x" * 500 + b'"}', "too long", ":16: a line of 513 bytes is longer"),
    ],
)
def test_a_bad_line_among_good_ones_is_counted_with_its_place(
    tmp_path: Path, name: str, bad: bytes, kind: str, says: str
) -> None:
    lines = [line.encode() for line in GOOD]
    path = write(tmp_path / name, b"\n".join([*lines[:15], bad, *lines[15:]]))
    texts, skipped = read(path, longest_document=300)
    assert texts == [f"dag {i}" for i in range(30)]
    assert skipped.counts == {kind: 1}
    assert f"{path}{says}" in skipped.first[0]
    with pytest.raises(T5smithError) as caught:
        list(read_documents(CorpusSettings(strict=True, longest_document=300), [path]))
    assert str(caught.value) == skipped.first[0]


def test_mixed_encodings_in_plain_text(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.txt", "en blå dag\n\n".encode() + "en blå natt\nto\n\n".encode("latin-1") + b"slutt"
    )
    texts, skipped = read(path)
    assert texts == ["en blå dag", "slutt"]
    assert skipped.counts == {"not UTF-8": 1}
    assert f"{path}:3: invalid UTF-8: byte 0xe5 at position 6" in skipped.first[0]


def unpacked(ending: str, data: bytes) -> bytes:
    """What there is of the first stream of an archive."""
    if ending == ".gz":
        return zlib.decompressobj(31).decompress(data)
    if ending == ".zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return (lzma.LZMADecompressor() if ending == ".xz" else bz2.BZ2Decompressor()).decompress(data)


@pytest.mark.parametrize(
    ("ending", "squeeze"),
    [
        (".gz", gzip.compress),
        (".xz", lzma.compress),
        (".bz2", lambda data: bz2.compress(data, 1)),
        (".zst", zstandard.ZstdCompressor().compress),
    ],
)
def test_an_archive_that_is_cut_short(tmp_path: Path, ending: str, squeeze: object) -> None:
    lines = "".join(
        json.dumps({"text": f"dag {i * 7919 % 10_007} {i * 104_729 % 1_000_003}"}) + "\n"
        for i in range(20_000)
    )
    whole = squeeze(lines.encode())  # type: ignore[operator]
    path = write(tmp_path / f"a.jsonl{ending}", whole[: len(whole) // 2])
    texts, skipped = read(path)
    assert 0 < len(texts) < 20_000
    # All that can be unpacked is, to the last whole line.
    assert texts == [
        json.loads(line)["text"] for line in unpacked(ending, path.read_bytes()).split(b"\n")[:-1]
    ]
    assert skipped.counts == {"damaged archive": 1}
    assert f"a.jsonl{ending}:{len(texts) + 1}: the archive is cut short" in skipped.first[0]
    block = write(tmp_path / f"b.txt{ending}", squeeze(b"en\n\n" * 9_000 + lines.encode())[:-2_000])  # type: ignore[operator]
    texts, skipped = read(block)
    assert texts[0] == "en"
    assert not any("nummer" in text for text in texts)
    assert skipped.counts == {"damaged archive": 1}


def test_tables(tmp_path: Path) -> None:
    rows = (
        "id,text\n"
        + "".join(f"{i},dag {i}\n" for i in range(9))
        + "9,to,mange\n"
        + '10,"to\nlinjer"\n11,"æ"\n'
    )
    texts, skipped = read(write(tmp_path / "a.csv", rows))
    assert texts == [*(f"dag {i}" for i in range(9)), "to\nlinjer", "æ"]
    assert skipped.counts == {"wrong number of fields": 1}
    assert f"{tmp_path}/a.csv:11: 3 fields; expected 2" in skipped.first[0]
    latin = write(tmp_path / "b.csv", "id,text\n1,a\n2,bl\u00e5\n".encode("latin-1"))
    assert read(latin)[1].counts == {"not UTF-8": 1}
    # Offsets of texts that lie beyond the data, which Arrow follows if it is let.
    offsets = np.array([0, 2, 1 << 30, 9], np.int32)
    buffers = [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"en to tre")]
    beyond = pa.record_batch({"text": pa.Array.from_buffers(pa.utf8(), 3, buffers)})
    with pa.ipc.new_file(str(tmp_path / "c.arrow"), beyond.schema) as writer:
        writer.write_batch(pa.record_batch({"text": ["hei"]}))
        writer.write_batch(beyond)
    with pytest.raises(T5smithError, match=r"c\.arrow: damaged.*Offset invariant failure"):
        read(tmp_path / "c.arrow")
    parquet.write_table(pa.table({"text": ["en", None, "to"], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    texts, skipped = read(tmp_path / "a.parquet")
    assert (texts, skipped.counts) == (["en", "to"], {"no text": 1})
    assert "a.parquet:2: the field 'text' is empty" in skipped.first[0]


@pytest.mark.parametrize(("ending", "squeeze"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_compressed_table_is_unpacked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, squeeze: Callable[[bytes], bytes]
) -> None:
    """Its end says where its columns are, so that nothing of one that is cut short can be used."""
    out = io.BytesIO()
    parquet.write_table(pa.table({"text": [f"dag {i}" for i in range(99)]}), out)
    whole = squeeze(out.getvalue())
    path = write(tmp_path / f"a.parquet{ending}", whole)
    assert count_rows(path) == 99
    assert read(path) == ([f"dag {i}" for i in range(99)], SkippedRecords())
    write(path, whole[:-20])
    for reader in (read, count_rows):
        with pytest.raises(T5smithError, match=rf"a\.parquet{ending}: the archive is cut short or damaged"):
            reader(path)
    write(path, whole)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(T5smithError, match="the disk is full"):
        read(path)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.parquet", b"PAR1 no more", "damaged, or not what its name says"),
        ("a.arrow", b"ARROW1 no more", "damaged, or not what its name says"),
        ("a.csv", b"a,b\nx,y\n", "none is called 'text'"),
        ("a.csv", b"a,b\n1,2\n", "no field holds text"),
        ("a.jsonl", b"hei\n" * (MAX_BAD_START + 1), ":1: not JSON"),
        ("a.warc.gz", b"hei", "damaged"),
        ("a.warc", b"hei", "damaged"),
    ],
)
def test_a_file_of_which_nothing_can_be_used_is_refused(
    tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    with pytest.raises(T5smithError) as caught:
        read(write(tmp_path / name, data))
    assert str(tmp_path / name) in str(caught.value)
    assert says in str(caught.value)


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["en"], "n": [1]}), tmp_path / "a.parquet")
    for field, says in (
        ("body", "no field 'body'. Set corpus.text_field"),
        ("n", "the field 'n' is not text"),
    ):
        with pytest.raises(T5smithError, match=says):
            read(tmp_path / "a.parquet", text_field=field)


@pytest.mark.parametrize("document", ["block", "line"])
def test_a_long_line_is_passed_over_without_being_held(tmp_path: Path, document: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("en\n\n" + "x" * 5_000_000 + "\n\nto")
    texts, skipped = read(path, longest_document=1_000, document=document)
    assert texts == ["en", "to"]
    assert skipped.counts == {"too long": 1}
    assert f"{path}:3: a line of 5,000,001 bytes is longer than allowed" in skipped.first[0]
    with pytest.raises(T5smithError, match=r"a\.txt:3: a line of 5,000,001 bytes"):
        read(path, longest_document=1_000, document="file")


def test_the_length_of_each_document_counts_alone(tmp_path: Path) -> None:
    """All of them together may be longer than one is allowed to be."""
    path = write(tmp_path / "a.txt", "\n\n".join(["dag " * 9, "x" * 90 + "\n" + "y" * 90, *["natt"] * 40]))
    texts, skipped = read(path, longest_document=100)
    assert texts == ["dag " * 9, *["natt"] * 40]
    assert skipped.counts == {"too long": 1}


@settings(max_examples=200, deadline=None)
@given(data=st.data(), cut=st.integers(0, 2_000), flips=st.lists(st.integers(0, 2_000), max_size=3))
def test_no_damage_is_a_traceback(
    data: st.DataObject, cut: int, flips: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bytes of a file of any kind are cut off or altered: documents come, or it is said what is wrong."""
    name, whole = data.draw(st.sampled_from(_FILES))
    damaged = bytearray(whole[: max(len(whole) - cut, 0)])
    for place in flips:
        if place < len(damaged):
            damaged[place] ^= data.draw(st.integers(1, 255))
    path = write(tmp_path_factory.mktemp("damaged") / name, bytes(damaged))
    try:
        texts, skipped = read(path)
    except T5smithError as error:
        if str(path) in str(error):
            return
        raise
    if bytes(damaged) != whole and name.endswith((".gz", ".xz")) and len(texts) < 30:
        assert skipped.counts or not damaged


def _files() -> list[tuple[str, bytes]]:
    rows = "\n".join(GOOD).encode()
    table = pa.table({"text": [f"dag {i}" for i in range(30)]})
    arrow, columns = pa.BufferOutputStream(), pa.BufferOutputStream()
    with pa.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    parquet.write_table(table, columns, row_group_size=9)
    return [
        ("a.jsonl", rows),
        ("a.jsonl.gz", gzip.compress(rows, mtime=0)),
        ("a.jsonl.xz", lzma.compress(rows)),
        ("a.jsonl.zst", zstandard.compress(rows)),
        ("a.txt", rows),
        ("a.csv", b"id,text\n" + b"".join(b'%d,"dag, %d"\n' % (i, i) for i in range(30))),
        ("a.arrow", arrow.getvalue().to_pybytes()),
        ("a.parquet", columns.getvalue().to_pybytes()),
    ]


_FILES = _files()


def test_what_is_skipped_is_in_the_manifest_and_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(300):
        write(folder / f"{i:03}.jsonl", "\n".join([*GOOD[:5], "{" if i % 100 == 7 else GOOD[6]]))
    write(folder / "empty.jsonl", b"")
    write(folder / "z.jsonl", "\n".join([GOOD[0], *["nei"] * 12]))
    recipe = Recipe.model_validate(
        {
            "run_dir": tmp_path / "run",
            "corpus": {"train": (str(folder),), "held_out_fraction": 0.3},
            "vocab": {"size": 30},
        }
    )
    vocab(recipe)
    skipped = read_manifest(prepare(recipe), "store").facts["skipped_records"]
    assert skipped["counts"] == {"not JSON": 15}
    assert len(skipped["first"]) == 10
    assert f"{folder}/007.jsonl:6: not JSON" in skipped["first"][0]
    told = capfd.readouterr().err
    assert told.count("15 records were skipped: 15 not JSON") == 2
    with pytest.raises(T5smithError, match=r"007\.jsonl:6: not JSON"):
        prepare(recipe.replace(**{"corpus.strict": True, "prepare.document_separator": "none"}))


@pytest.mark.parametrize("document", ["block", "line"])
def test_a_part_within_a_long_line_is_not_read_to_its_end(tmp_path: Path, document: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("en\n\n" + "x" * 30_000_000 + "\n\nto")
    told: list[int] = []
    corpus = CorpusSettings.model_validate({"document": document})
    part = BlockSelection(1_000_000, 5_000_000, 6_000_000)
    placed = list(positioned_documents(corpus, str(path), part, SkippedRecords(), told.append))
    assert not any(found for _, found in placed)
    assert sum(told) < 3_000_000


def test_a_quote_that_is_never_closed_does_not_take_the_file_along(tmp_path: Path) -> None:
    rows = [f"{i},dag {i}" for i in range(200)]
    rows[20] = '20,"dag'
    texts, skipped = read(write(tmp_path / "a.csv", "id,text\n" + "\n".join(rows)), longest_document=300)
    assert texts[:20] == [f"dag {i}" for i in range(20)]
    assert texts[-1] == "dag 199"
    assert skipped.counts["not CSV"] >= 1
    assert "a.csv:22: not CSV (field larger than field limit (300)). Close the quotes" in skipped.first[0]


def test_documents_of_tables_may_be_too_long(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["en", "å" * 60, "to"]}), tmp_path / "a.parquet")
    texts, skipped = read(tmp_path / "a.parquet", longest_document=100)
    assert (texts, skipped.counts) == (["en", "to"], {"too long": 1})
    assert "a.parquet:2: a document of 120 bytes is longer than allowed" in skipped.first[0]


def test_strict_sees_what_an_earlier_run_skipped(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "\n".join([*GOOD, "{"]))
    recipe = Recipe.model_validate(
        {
            "run_dir": tmp_path / "run",
            "corpus": {"train": (str(tmp_path / "a.jsonl"),), "held_out_fraction": 0.3},
            "vocab": {"size": 30},
        }
    )
    vocab(recipe)
    prepare(recipe)
    for stage in (vocab, prepare):
        with pytest.raises(
            T5smithError, match=r"1 record was skipped, the first of them: .*a\.jsonl:31: not JSON"
        ):
            stage(recipe.replace(**{"corpus.strict": True}))


def test_what_is_skipped_is_told_even_if_nothing_is_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.jsonl", "\n".join(GOOD))
    write(tmp_path / "v.jsonl", '{"text": ""}\n{"text": 3}\n')
    recipe = Recipe.model_validate(
        {
            "run_dir": tmp_path / "run",
            "corpus": {"train": (str(tmp_path / "a.jsonl"),), "valid": (str(tmp_path / "v.jsonl"),)},
            "vocab": {"size": 30},
        }
    )
    vocab(recipe)
    with pytest.raises(T5smithError, match="the valid split has no text"):
        prepare(recipe)
    assert "v.jsonl:2: the field 'text' is a number" in capfd.readouterr().err


def test_of_each_kind_one_place_is_told_and_archives_first(capfd: pytest.CaptureFixture[str]) -> None:
    def skipped(*kinds: str) -> SkippedRecords:
        made = SkippedRecords()
        for number, kind in enumerate(kinds):
            made.add(kind, T5smithError(kind, where=f"a:{number}"))
        return made

    whole = SkippedRecords()
    for part in (skipped(*["no text"] * 12, "not JSON"), skipped("no text", "damaged archive")):
        whole.merge(json.loads(json.dumps(part.facts())))
    whole.report()
    told = capfd.readouterr().err.splitlines()
    assert told[0] == (
        "warning: 14 records were skipped: 13 no text, 1 not JSON, "
        "and the rest of 1 damaged archive is lost; the first:"
    )
    assert [line.strip() for line in told[1:]] == ["a:1: damaged archive", "a:0: no text", "a:12: not JSON"]
    assert skipped_messages(whole.facts())[:4] == [
        "a:1: damaged archive",
        "a:0: no text",
        "a:12: not JSON",
        "a:1: no text",
    ]
    skipped("damaged archive", "damaged archive").report()
    assert capfd.readouterr().err.startswith("warning: the rest of 2 damaged archives is lost; the first:")
