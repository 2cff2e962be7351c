"""Each format is read as other programs read it, and every record is a document or counted."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read, write, write_table

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.documents import read_documents
from t5smith.text.row_count import count_rows
from t5smith.text.skipped_records import SkippedRecords

SEPARATORS = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"
"""What `str.splitlines` takes for the end of a line, and no format here."""
TEXT = st.text(st.sampled_from(f'ab æ,;"\\\t\n\r\ufeff😀{SEPARATORS}'), max_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conventions")


# Tables


@given(
    rows=st.lists(st.tuples(TEXT, TEXT), max_size=6),
    delimiter=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_tables_as_the_csv_module_writes_them(
    folder: Path, rows: list[tuple[str, str]], delimiter: str, end: str, quoting: int
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([("id", "text"), ("0", "en"), *rows])
    path = write(folder / "a.csv", out.getvalue())
    # It writes a CR alone without quotes, so that it reads two rows there.
    theirs = list(csv.reader(io.StringIO(out.getvalue(), newline=""), delimiter=delimiter))[1:]
    theirs = [row for row in theirs if row]
    texts, skipped = read(path)
    assert texts == [row[1] for row in theirs if len(row) == 2]
    assert skipped.counts.total() == len(theirs) - len(texts)
    assert count_rows(path) == len(theirs)


@given(body=st.text(st.sampled_from('ab,"\n\r\n\ufeff'), max_size=40))
def test_irregular_tables_as_the_csv_module_reads_them(folder: Path, body: str) -> None:
    """Quotes in the middle of fields, ends of all kinds, rows of other lengths, a quote that stays open."""
    data = f"id,text\n0,en\n{body}"
    path = write(folder / "b.csv", data)
    texts, skipped = read(path)
    # A byte order mark in front of a row is left by a program that joined files.
    rows = [row for row in csv.reader(io.StringIO(data.replace("\ufeff", ""), newline="")) if row][1:]
    ours = [row for row in csv.reader(io.StringIO(data, newline="")) if row][1:]
    # Without it, quotes that follow may join rows or separate them.
    fewest, most = sorted((len(rows), len(ours)))
    assert fewest <= len(texts) + skipped.counts.total() <= most
    if "\ufeff" not in body and not skipped.counts["not CSV"]:
        assert texts == [row[1] for row in rows if len(row) == 2 and row != ["id", "text"]]
        assert skipped.counts["wrong number of fields"] == sum(len(row) != 2 for row in rows)


def test_joined_tables(tmp_path: Path) -> None:
    one = "\ufefftext,id\r\nen,1\r\n"
    path = write(tmp_path / "a.csv", one + '\ufeff"text","id"\n"to",2\n' + one + "\ufefftre,3\n")
    texts, skipped = read(path)
    assert (texts, skipped.counts) == (["en", "to", "en", "tre"], {"repeated headers": 2})
    assert skipped.first == []
    assert list(read_documents(CorpusSettings(strict=True), [path]))


def test_a_carriage_return_ends_a_row_among_others(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,text\n1,en\r2,to\r3,"tre\rfire"\r\n4\rx,5\n')
    texts, skipped = read(path)
    assert (texts, skipped.counts) == (["en", "to", "tre\rfire", "5"], {"wrong number of fields": 1})
    places = [document.where for document in read_documents(CorpusSettings(), [path])]
    assert [place.rpartition(":")[2] for place in places] == ["2", "2", "2", "3"]


def test_a_row_with_several_long_lines_is_counted_once(tmp_path: Path) -> None:
    long = "x" * 500
    path = write(tmp_path / "a.csv", f'text\nen\n"to\n{long}\n{long}"\ntre\n"{long}\n{long}')
    texts, skipped = read(path, longest_document=100)
    assert (texts, skipped.counts) == (["en", "tre"], {"too long": 2})


def test_a_table_without_names_of_columns(tmp_path: Path) -> None:
    """As MS MARCO's documents: id, address, title and body."""
    rows = "".join(f"D{i}\thttps://ex.no/{i}\tTittel {i}\tDet var en gang {i}\n" for i in range(30))
    path = write(tmp_path / "msmarco-docs.tsv", rows)
    for field in ("", "body"):
        with pytest.raises(T5smithError) as caught:
            read(path, text_field=field)
        assert "'https://ex.no/0' stands where the name of a column should" in str(caught.value)
    write(path, "id\turl\ttitle\tbody\n" + rows)
    assert read(path)[0] == [f"Det var en gang {i}" for i in range(30)]


# JSON lines


def whole(text: str) -> str:
    """Text with U+FFFD for each half of a surrogate pair, by another way than ours."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@given(
    texts=st.lists(
        st.text(st.characters(categories=["L", "Zl", "Zp", "Cc", "Cs", "Zs"]), max_size=8), max_size=6
    ),
    ascii_only=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n", "\n\ufeff"]),
)
def test_json_lines_as_the_json_module_writes_them(
    folder: Path, texts: list[str], ascii_only: bool, end: str
) -> None:
    halves = [text for text in texts if whole(text) != text]
    ascii_only |= bool(halves)
    rows = [json.dumps({"text": text}, ensure_ascii=ascii_only) for text in ["en", *texts]]
    path = write(folder / "a.jsonl", end.join(rows))
    found, skipped = read(path)
    assert found == ["en", *map(whole, (json.loads(row)["text"] for row in rows[1:]))]
    assert not skipped.counts
    pairs = [row for row in rows if whole(json.loads(row)["text"]) != json.loads(row)["text"]]
    assert sum(number for number, _ in skipped.repaired.values()) == len(pairs)


def test_halves_of_surrogate_pairs_are_counted_with_their_place(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [r'{"text": "\ud83d\ude00"}', r'{"text": "et \ud83d smil"}', r'{"text": "\ude00\ud83d"}']
    path = write(tmp_path / "a.jsonl", "\n".join(rows))
    texts, skipped = read(path)
    assert texts == ["😀", "et \ufffd smil", "\ufffd\ufffd"]
    number, message = skipped.repaired["half of a surrogate pair"]
    assert number == 2
    assert message.startswith(f"{path}:2: half of a surrogate pair, read as U+FFFD")
    merged = SkippedRecords()
    for _ in range(2):
        merged.merge(json.loads(json.dumps(skipped.facts())))
    merged.report()
    assert "4 records with half of a surrogate pair, which was replaced" in capfd.readouterr().err
    with pytest.raises(T5smithError, match=r"a\.jsonl:2: half of a surrogate pair"):
        list(read_documents(CorpusSettings(strict=True), [path]))


LINES = st.sampled_from(
    [
        '{"text": "en dag"}',
        '{"text": ""}',
        '{"text": null}',
        '{"text": 7}',
        '{"text": ["a"]}',
        '{"text": {"a": "b"}}',
        '{"id": 3}',
        "[1]",
        "3",
        '{"text": "x"',
        '{"text": "x"}{"text": "y"}',
        '{"text": NaN}',
        "\u00a0",
        "\ufeff",
        '\ufeff{"text": "to"}',
        r'{"text": "\ud83d"}',
        '{"text": "a\tb"}',
        "",
        "  ",
        "\r",
        '{"text": "' + "x" * 200 + '"}',
        '{"text": "bl\udce5"}',
    ]
)


@settings(max_examples=200)
@given(lines=st.lists(LINES, max_size=12), format_=st.sampled_from(["jsonl", "text"]))
def test_every_line_is_a_document_or_counted(folder: Path, lines: list[str], format_: str) -> None:
    lines = ['{"text": "en dag"}', *lines]
    path = write(folder / "b.jsonl", "\n".join(lines).encode("utf-8", "surrogateescape"))
    texts, skipped = read(path, format=format_, document="line", longest_document=100)
    if format_ == "jsonl":
        records = [line for line in lines if line.strip(" \r")]
        assert count_rows(path) == len(records)
    else:
        records = [line for line in lines if line.strip("\ufeff") and not line.isspace()]
    assert len(texts) + skipped.counts.total() == len(records)


@pytest.mark.parametrize(
    ("data", "says", "fix"),
    [
        (
            json.dumps({"text": "a", "id": [1]}, indent=2) + "\n" + json.dumps({"text": "b"}, indent=2),
            ":1: not JSON",
            "If objects go on over several lines, write each on one, as with `jq -c .`",
        ),
        (
            '{"data": [\n  {"text": "a"},\n  {"text": "b"}\n]}',
            ":1: not JSON",
            "as with `jq -c '.data[]'`",
        ),
        (
            json.dumps({"version": "1", "data": [{"text": "a"}, {"text": "b"}]}),
            ":1: one JSON object, with its records in a list, 'data'",
            "write each record on a line, as with `jq -c '.data[]'`",
        ),
        (json.dumps([{"text": "a"}]), "not a JSON object but an array", "as with `jq -c '.[]'`"),
        ('[\n{"text": "a"},\n{"text": "b"}\n]', "it begins as one JSON array", "as with `jq -c '.[]'`"),
    ],
)
def test_json_that_is_not_lines_is_rejected(tmp_path: Path, data: str, says: str, fix: str) -> None:
    path = write(tmp_path / "a.json", data)
    for field in ("", "text"):
        with pytest.raises(T5smithError) as caught:
            read(path, text_field=field)
        assert fix.lower() in str(caught.value).lower()
        assert field or says in str(caught.value)


def test_fields_within_fields_of_json(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "doc": {"body": {"no": "en"}}},
        {"doc.body.no": "to"},
        {"doc": {"body": None}},
        {"doc": "x"},
        {"doc": {"body": {"no": 3}}},
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    texts, skipped = read(path, text_field="doc.body.no")
    assert (texts, skipped.counts) == (["en", "to"], {"no text": 3})
    with pytest.raises(T5smithError, match=r"no field 'doc\.body'|no field holds text.*'doc\.body\.no'"):
        read(write(tmp_path / "b.jsonl", json.dumps(rows[0])))
    with pytest.raises(T5smithError, match=r"the field 'doc' is an object, not text.*'doc\.body\.no'"):
        read(tmp_path / "b.jsonl", text_field="doc")


# Parquet and Arrow

KINDS = ["a.parquet", "a.arrow", "b.arrow"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_bytes_are_text_if_they_are_named(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    """As older programs write strings."""
    values = pa.array(["blå".encode(), None, b"bl\xe5", b""], kind)
    path = write_table(tmp_path / name, pa.table({"text": values, "n": [1, 2, 3, 4]}), rows=2)
    texts, skipped = read(path)
    assert (texts, skipped.counts) == (["blå", ""], {"no text": 1, "not UTF-8": 1})
    path = write_table(tmp_path / name, pa.table({"raw": values, "n": [1, 2, 3, 4]}), rows=2)
    with pytest.raises(T5smithError, match=r"no field holds text.*'raw \(.*binary.*\)'"):
        read(path)
    assert read(path, text_field="raw") == (texts, skipped) or read(path, text_field="raw")[0] == texts


@pytest.mark.parametrize("name", KINDS)
def test_fields_within_structs(tmp_path: Path, name: str) -> None:
    rows = [{"b": {"c": "en"}}, {"b": None}, None, {"b": {"c": None}}, {"b": {"c": "to"}}]
    path = write_table(tmp_path / name, pa.table({"a": rows, "n": [1, 2, 3, 4, 5]}), rows=2)
    texts, skipped = read(path, text_field="a.b.c")
    expected = [((row or {}).get("b") or {}).get("c") for row in pa.table({"a": rows})["a"].to_pylist()]
    assert texts == [text for text in expected if text is not None]
    assert skipped.counts == {"no text": 3}
    assert f"{path}:2: the field 'a.b.c' is empty" in skipped.first[0]
    with pytest.raises(T5smithError, match=r"no field holds text.*there are 'a', 'n', 'a\.b\.c'"):
        read(path)
    with pytest.raises(T5smithError, match=r"the field 'a' is not text but of the type struct.*as 'a\.b\.c'"):
        read(path, text_field="a")
    with pytest.raises(T5smithError, match=r"the field 'a\.x' is missing.*'a\.b\.c'"):
        read(path, text_field="a.x")
    with pytest.raises(T5smithError, match=r"the field 'a\.b', of the type struct"):
        read(path, text_field="a.b")


@pytest.mark.parametrize("name", KINDS)
def test_a_column_of_another_type_is_named_with_it(tmp_path: Path, name: str) -> None:
    for values, kind in (([["a"]], "list<"), ([3], "int64"), ([None], "null")):
        path = write_table(tmp_path / name, pa.table({"text": values, "title": ["t"]}), rows=2)
        with pytest.raises(
            T5smithError, match=f"the field 'text' is not text but of the type {kind}.*'title'"
        ):
            read(path)


@given(texts=st.lists(st.none() | TEXT, min_size=1, max_size=9), name=st.sampled_from(KINDS))
def test_every_row_of_a_table_is_a_document_or_counted(
    folder: Path, texts: list[str | None], name: str
) -> None:
    path = write_table(folder / name, pa.table({"text": pa.array(texts, pa.string())}), rows=2)
    usable = [text for text in texts if text is not None]
    if not usable:
        with pytest.raises(T5smithError, match="is empty"):
            read(path)
        return
    found, skipped = read(path)
    assert found == usable
    assert skipped.counts.total() == len(texts) - len(usable)
    assert count_rows(path) == len(texts)


# Plain text


def blocks_of(data: str) -> list[str]:
    """The blocks between blank lines, line by line, by another way than ours."""
    found: list[list[str]] = [[]]
    for line in data.split("\n"):
        line = line.rstrip("\r")
        if not line.replace("\ufeff", "").strip():
            found.append([])
        else:
            found[-1].append(line.removeprefix("\ufeff"))
    return ["\n".join(block) for block in found if block]


@settings(max_examples=200)
@given(data=st.text(st.sampled_from(f"ab æ\n\n\r{SEPARATORS}"), max_size=30), joined=st.booleans())
def test_plain_text(folder: Path, data: str, joined: bool) -> None:
    data = "en\n" + data
    whole_file = f"\ufeff{data}\n\n\ufeff{data}" if joined else data
    path = write(folder / "a.txt", whole_file)
    assert read(path) == (blocks_of(whole_file), SkippedRecords())
    lines = [line.removeprefix("\ufeff").rstrip("\r") for line in whole_file.split("\n")]
    expected = [line for line in lines if line and not line.isspace()]
    assert read(path, document="line") == (expected, SkippedRecords())
    assert len(read(path, document="file")[0]) == 1
