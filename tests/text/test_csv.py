"""CSV as people have it: which column is the text, what parts the fields, and what is no CSV."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.document import BlockSelection
from t5smith.text.documents import positioned_documents, read_documents
from t5smith.text.row_count import count_rows
from t5smith.text.skipped_records import SkippedRecords


def read(path: Path, **more: object) -> tuple[list[str], SkippedRecords]:
    skipped = SkippedRecords()
    corpus = CorpusSettings.model_validate(more)
    return [document.text for document in read_documents(corpus, [path], skipped=skipped)], skipped


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize(
    ("row", "below"),
    [('30,"never closed', 0), ('30,"en\n""to""","never closed', 1), ('"30', 0), ('30,"', 0)],
)
def test_a_quote_open_at_the_end_is_told_with_its_line(
    tmp_path: Path, row: str, below: int, end: str
) -> None:
    good = [f"{i},dag {i}" for i in range(30)]
    path = write(tmp_path / "a.csv", "\n".join(["id,text", *good, row, *good]) + end)
    texts, skipped = read(path)
    assert texts == [f"dag {i}" for i in range(30)]
    assert skipped.counts == {"not CSV": 1}
    assert f"{path}:{32 + below}: not CSV (a quote is never closed)" in skipped.first[0]
    with pytest.raises(T5smithError, match=rf"a\.csv:{32 + below}: .*never closed"):
        list(read_documents(CorpusSettings(strict=True), [path]))


def test_an_open_quote_at_the_very_end_or_in_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,text\n1,en\n2,"')
    texts, skipped = read(path)
    assert (texts, skipped.counts) == (["en"], {"not CSV": 1})
    assert f"{path}:3: " in skipped.first[0]
    with pytest.raises(T5smithError, match=r"a\.csv:1: not CSV \(a quote is never closed\)"):
        read(write(path, 'id,"text\n1,en\n2,to\n'))
    # A quote that is closed at the very end is none of this.
    assert read(write(path, 'id,text\n1,"en\nto"')) == (["en\nto"], SkippedRecords())


def test_a_row_without_a_line_that_was_too_long_is_no_document(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text\nen\n"to\n' + "x" * 500 + '\ntre"\nfire\n')
    texts, skipped = read(path, longest_document=100)
    assert (texts, skipped.counts) == (["en", "fire"], {"too long": 1})
    assert f"{path}:4: a line of 501 bytes" in skipped.first[0]


def test_the_delimiter_goes_by_the_ending(tmp_path: Path) -> None:
    folder = tmp_path / "my.tsv.d"
    assert read(write(folder / "a.csv", "id,text\n1,en\tdag\n")) == (["en\tdag"], SkippedRecords())
    assert read(write(folder / "a.csv.gz", gzip.compress(b"id,text\n1,en\tdag\n"))) == (
        ["en\tdag"],
        SkippedRecords(),
    )
    for name in ("a.tsv", "A.TSV.GZ"):
        data = b"id\ttext\n1\ten, to\n"
        path = write(folder / name, gzip.compress(data) if name.endswith("GZ") else data)
        assert read(path) == (["en, to"], SkippedRecords())


@pytest.mark.parametrize("delimiter", [";", "\t", ","])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_other_delimiters_where_they_alone_find_the_column(tmp_path: Path, name: str, delimiter: str) -> None:
    rows = f'id{delimiter}text\n1{delimiter}en\n2{delimiter}"to, {delimiter}\ntre"\n'
    path = write(tmp_path / name, "\ufeff" + rows)
    assert read(path) == (["en", f"to, {delimiter}\ntre"], SkippedRecords())
    assert count_rows(path) == 2
    path = write(tmp_path / name, rows.replace("text", "beskrivelse").replace("\n", "\r\n"))
    assert read(path, text_field="beskrivelse") == (["en", f"to, {delimiter}\r\ntre"], SkippedRecords())
    assert count_rows(path) == 2


def test_the_ending_goes_before_other_delimiters(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,a;text;b\nen,to\n")
    assert read(path) == (["en"], SkippedRecords())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("id;beskrivelse\n1;en\n", "called 'id;beskrivelse'; expected the names of the columns in the first"),
        (
            "id;beskrivelse\n1;en\n",
            "If semicolons separate the fields, set corpus.text_field to one of them",
        ),
        ("id;beskrivelse\n1;en\n", "there are 'id', 'beskrivelse'"),
        ("id\tbeskrivelse\n1\ten\n", "If tabs separate the fields, set corpus.text_field to one of them; "),
        ("Det er en dag.\nOg en natt.\n", "one column, called 'Det er en dag.'; expected the names"),
        ("Det er en dag.\nOg en natt.\n", "Write such a line above the rows, or set corpus.text_field"),
        ("1,en dag\n2,en natt\n", "'1' stands where the name of a column should"),
        ("2024-01-01,en dag\n2024-01-02,en natt\n", "'2024-01-01' stands where the name of a column"),
        ("x" * 500 + "\nhei\n", f"one column, called '{'x' * 59}…'; expected"),
        ("text,id,text\na,b,c\n", "2 fields are called 'text'. Rename or remove all but one"),
        (
            "text\nhei\n".encode("utf-16-le"),
            "this looks like UTF-16; expected text in UTF-8. Save the text as UTF-8 (`iconv -f utf-16 ",
        ),
        ("text\nhei\n".encode("utf-16-be"), "(`iconv -f utf-16 -t utf-8`)"),
        ("text\nhei\n".encode("utf-16"), "(`iconv -f utf-16 -t utf-8`)"),
        ("id,språk,text\n1,nb,hei\n".encode("latin-1"), "(`iconv -f latin1 -t utf-8`)"),
        ("id,text\r1,en\r2,to\r", "its lines end in CR, as on old Macs"),
        ("text\rhei\r", "lines end as on old Macs (CR)"),
        ("text," + "x" * 150_000 + "\nhei,1\n", "the header is longer than allowed"),
        ('"text' + "\n" + "x" * 99_999 + '"\nhei\n', "the header is not CSV (field larger than field limit"),
    ],
)
def test_a_header_that_is_none_is_refused_in_one_line(
    tmp_path: Path, content: bytes | str, says: str
) -> None:
    path = write(tmp_path / "a.csv", content)
    longest = 100_000 if len(content) > 100_000 else 10**6
    with pytest.raises(T5smithError) as caught:
        read(path, longest_document=longest)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert says in str(caught.value)


def test_a_single_column_that_is_named_or_usual(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", "content\nen\nto\n")) == (["en", "to"], SkippedRecords())
    path = write(tmp_path / "b.csv", "a;b\nen\nto\n")
    assert read(path, text_field="a;b") == (["en", "to"], SkippedRecords())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id,beskrivelse\n1,en\n2,to\n", ["en", "to"]),
        # As pandas writes it, with places in front.
        (",beskrivelse,score\n0,en,1.5\n1,,1e-5\n2,12,nan\n", ["en", "", "12"]),
        ('a,"dato",c\n"1 000,5",2024-01-02,år\n', ["år"]),
        ("id,beskrivelse\n\n1,2,3\n1,en\n", ["en"]),
    ],
)
def test_the_only_column_with_words(tmp_path: Path, content: str, expected: list[str]) -> None:
    assert read(write(tmp_path / "a.csv", content))[0] == expected


def test_columns_without_words_are_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,score\n1,2.5\n2,\n")
    with pytest.raises(T5smithError, match=r"a\.csv:1: no field holds text.*there are 'id', 'score'"):
        read(path)
    # What is named is read as it stands there.
    assert read(path, text_field="id") == (["1", "2"], SkippedRecords())
    write(path, "a,b\n" + "1,en\n" * 20 + "to,en\n")
    assert read(path) == (["en"] * 21, SkippedRecords())
    write(path, "a,b\n" + "1,en\n" * 19 + "to,en\n")
    with pytest.raises(T5smithError, match="2 fields hold text, and none is called 'text'"):
        read(path)


def test_looking_for_the_column_changes_no_place(tmp_path: Path) -> None:
    """Rows that decide on the column may lie in several blocks, with unusable ones among them."""
    lines: list[bytes] = []
    for i in range(60):
        lines += [b'%d,"dag\n%d"' % (i, i * 7919), b"1,2,3", b"9,\xff", b"8," + b"x" * 300][: 1 + i % 4]
    found: list[object] = []
    for header in (b"id,text", b"id,tekt"):
        path = write(tmp_path / "a.csv", b"\n".join([header, *lines]))
        corpus = CorpusSettings(longest_document=200)
        for turns in (1, 5):
            placed: list[tuple[int, str, str]] = []
            counts: dict[int, object] = {}
            for turn in range(turns):
                skipped, block = SkippedRecords(), 0
                part = BlockSelection(100, reader=turn, readers=turns)
                for place, document in positioned_documents(corpus, str(path), part, skipped):
                    if part.block_of(place) != block:
                        counts |= {block: skipped.facts()} if part.includes(block) else {}
                        skipped.clear()
                        block = part.block_of(place)
                    if document is not None:
                        placed.append((place, document.text, document.where))
                counts |= {block: skipped.facts()} if part.includes(block) else {}
            found.append((sorted(placed), counts))
    assert all(one == found[0] for one in found)
    assert len(found[0][0]) == 60  # type: ignore[index]


def test_the_highest_limit_is_one_that_csv_takes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text\n" + "x" * 200_000 + "\n")
    assert read(path, longest_document=2**31 - 1) == (["x" * 200_000], SkippedRecords())


def test_rows_with_long_fields_are_counted(tmp_path: Path) -> None:
    before = csv.field_size_limit(1_000)
    try:
        path = write(tmp_path / "a.csv", "text\nen\n" + "x" * 200_000 + '\n"to\ntre"\n')
        assert count_rows(path) == 3
        assert csv.field_size_limit() == 1_000
    finally:
        csv.field_size_limit(before)
    path = write(tmp_path / "a.tsv", 'id\ttext\n1\t"en\nto"\n')
    assert count_rows(path) == 1
    path = write(tmp_path / "b.csv", 'id;beskrivelse\n1;"en\nto"\n')
    assert count_rows(path) == 1
