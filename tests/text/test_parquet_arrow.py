"""Parquet and Arrow as people have them: categories, names that occur twice."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from reading import read, write, write_table

from t5smith.base.errors import T5smithError
from t5smith.text.row_count import count_rows
from t5smith.text.skipped_records import SkippedRecords

KINDS = ["a.parquet", "a.arrow", "b.arrow"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_categories_are_text(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    """As pandas writes them: numbers of texts that are kept once."""
    texts = ["en", None, "to", "en", "to", "tre", "en"]
    column = pa.array(texts, kind).dictionary_encode()
    numbers = pa.array(range(7)).dictionary_encode()
    path = write_table(tmp_path / name, pa.table({"n": numbers, "beskrivelse": column}))
    found, skipped = read(path)
    assert (found, skipped.counts) == ([text for text in texts if text], {"no text": 1})
    assert f"{path}:2: the field 'beskrivelse' is empty" in skipped.first[0]
    with pytest.raises(T5smithError, match="the field 'n' is not text"):
        read(path, text_field="n")


@pytest.mark.parametrize("name", ["a.arrow", "b.arrow"])
def test_null_among_the_categories(tmp_path: Path, name: str) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, None, 2], pa.int8()), ["en", None, "to"])
    found, skipped = read(write_table(tmp_path / name, pa.table({"text": column})))
    assert (found, skipped.counts) == (["en", "en", "to"], {"no text": 2})


def test_damaged_categories(tmp_path: Path) -> None:
    bad = pa.array([b"en", b"\xff", b"to"]).view(pa.utf8())
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 1]), bad)
    found, skipped = read(write_table(tmp_path / "a.arrow", pa.table({"text": column})))
    assert (found, skipped.counts) == (["en", "to"], {"not UTF-8": 2})
    assert "a.arrow:2: invalid UTF-8" in skipped.first[0]
    for values in (bad, pa.array(["en"])):
        beyond = pa.DictionaryArray.from_arrays(pa.array([0, 9]), values, safe=False)
        path = write_table(tmp_path / "b.arrow", pa.table({"text": beyond}))
        with pytest.raises(T5smithError, match=r"b\.arrow: damaged, or not what its name says"):
            read(path)


def test_views_that_are_not_utf8(tmp_path: Path) -> None:
    bad = pa.array([b"en", b"\xff"], pa.binary_view()).view(pa.string_view())
    found, skipped = read(write_table(tmp_path / "a.arrow", pa.table({"text": bad})))
    assert (found, skipped.counts) == (["en"], {"not UTF-8": 1})


@pytest.mark.parametrize("name", KINDS)
def test_two_columns_with_the_name_are_refused(tmp_path: Path, name: str) -> None:
    columns = [pa.array(["en"]), pa.array([1]), pa.array(["to"])]
    path = write_table(tmp_path / name, pa.table(columns, names=["text", "id", "text"]))
    with pytest.raises(T5smithError) as caught:
        read(path)
    assert str(caught.value) == (f"{path}: 2 fields are called 'text'. Rename or remove all but one of them")
    path = write_table(tmp_path / name, pa.table(columns, names=["a", "b", "b"]))
    with pytest.raises(T5smithError, match="2 fields are called 'b'"):
        read(path, text_field="b")
    assert read(path, text_field="a") == (["en"], SkippedRecords())


def test_streams_that_were_joined_are_read_as_one(tmp_path: Path) -> None:
    streams: list[bytes] = []
    for number, column in enumerate(("text", "text", "body")):
        table = pa.table({column: [f"en {number}", f"to {number}"]})
        streams.append(write_table(tmp_path / f"s{number}.arrow", table).read_bytes())
    joined = write(tmp_path / "s.arrow", b"".join(streams[:2]))
    assert read(joined)[0] == ["en 0", "to 0", "en 1", "to 1"]
    assert count_rows(joined) == 4
    for more in (streams[2], b"junk" * 9):
        with pytest.raises(T5smithError, match=r"s.arrow: damaged, or not what its name says"):
            read(write(joined, streams[0] + more))
