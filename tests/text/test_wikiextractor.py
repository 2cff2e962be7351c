"""WikiExtractor's `<doc>` files: one document per article, at whichever byte reading starts."""

from __future__ import annotations

import bz2
import gzip
import html
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read, write

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.document import BlockSelection
from t5smith.text.documents import positioned_documents, read_documents
from t5smith.text.recognition import file_format, is_splittable
from t5smith.text.skipped_records import SkippedRecords


def doc(number: int, text: str, title: str | None = None, more: str = "") -> str:
    """An article as `Extractor.extract` of WikiExtractor 3 writes it; `title`: as it is in the dump."""
    title = f"Tittel {number}" if title is None else title
    address = f"https://no.wikipedia.org/wiki?curid={number}"
    head = f'<doc id="{number}"{more} url="{address}" title="{title}">\n{title}\n\n'
    return f"{head}{html.escape(text, quote=False)}\n\n</doc>\n"


@pytest.mark.parametrize("name", ["wiki_00", "wiki_00.bz2", "a.txt", "a.xml"])
def test_each_doc_is_a_document(tmp_path: Path, name: str) -> None:
    texts = ["Første avsnitt.\nAndre avsnitt.", "En tekst\n\nmed en tom linje."]
    data = "".join(doc(i, text) for i, text in enumerate(texts)).encode()
    path = write(tmp_path / name, bz2.compress(data) if name.endswith(".bz2") else data)
    assert file_format(CorpusSettings(), str(path)) == "wikiextractor"
    assert is_splittable(CorpusSettings(), str(path)) == (not name.endswith(".bz2"))
    found = list(read_documents(CorpusSettings(strict=True), [path]))
    assert [one.text for one in found] == [f"Tittel {i}\n\n{text}" for i, text in enumerate(texts)]
    assert [one.where for one in found] == [f"{path}:1", f"{path}:8"]
    placed = positioned_documents(CorpusSettings(), str(path), BlockSelection(1), SkippedRecords())
    begin = len(doc(0, texts[0]).encode())
    assert [place for place, document in placed if document is None] == [0, begin, len(data) - 1]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_of_other_versions_and_joined_files(tmp_path: Path, ends: str, mark: str) -> None:
    """Version 2 writes the revision, `cirrus-extract.py` language and revision; titles may have quotes."""
    docs = [
        doc(1, "en", more=' revid="7"'),
        doc(2, "to").replace('2">', '2" language="no" revision="7">'),
        doc(3, "tre", title='"Fire" og fem'),
    ]
    path = write(tmp_path / "wiki_00", "".join(mark + one for one in docs).replace("\n", ends))
    assert read(path, strict=True)[0] == ["Tittel 1\n\nen", "Tittel 2\n\nto", '"Fire" og fem\n\ntre']


@pytest.mark.parametrize("text", ["a < b & c > d", "&lt;br&gt; er en linje", "&amp;nbsp; og &eacute;", "R&D"])
def test_entities_are_those_that_the_tool_wrote(tmp_path: Path, text: str) -> None:
    """Version 3 escapes three characters. Version 2 escapes nothing: `&` is then a character of the text."""
    path = write(tmp_path / "wiki_00", doc(1, text))
    assert read(path)[0] == [f"Tittel 1\n\n{text}"]
    escaped = html.escape(text, quote=False)
    raw = f"{text} <3 R&D"
    path = write(tmp_path / "wiki_00", doc(1, text).replace(escaped, raw))
    assert read(path)[0] == [f"Tittel 1\n\n{raw}"]


def test_the_title_is_escaped_as_in_the_dump(tmp_path: Path) -> None:
    data = doc(1, "en", "AT&amp;T") + doc(2, "to", "&quot;Hei&quot; &#039;du&#039;")
    assert read(write(tmp_path / "wiki_00", data))[0] == ["AT&T\n\nen", "\"Hei\" 'du'\n\nto"]


def test_irregular_documents_are_counted_and_those_beside_them_used(tmp_path: Path) -> None:
    rest = "ikke i noe dokument\nog ikke denne linjen\n"
    long = doc(8, "x" * 90 + "\n" + "y\n" * 90)
    cirrus = doc(9, "").replace('9">', '9" language="no" revision="7">')
    unfinished = doc(4, "fire").removesuffix("</doc>\n")
    bad = doc(6, "seks").encode().replace(b"seks", b"se\xffks")
    parts = [doc(1, "en"), doc(2, ""), rest, doc(3, "tre"), unfinished, doc(5, "fem"), "</doc>\n", doc(7, "")]
    data = "".join(parts).encode() + bad + rest.encode() + (long + rest + cirrus + unfinished).encode()
    path = write(tmp_path / "wiki_00", data)
    texts, skipped = read(path, longest_document=200)
    assert texts == ["Tittel 1\n\nen", "Tittel 3\n\ntre", "Tittel 5\n\nfem"]
    assert skipped.counts == {
        "empty pages": 3,
        "text between documents": 4,
        "without </doc>": 2,
        "not UTF-8": 1,
        "too long": 1,
    }
    lines = {kind: str(data[: data.index(found)].count(b"\n") + 1) for kind, found in (
        ("text between documents", b"ikke i noe"), ("without </doc>", b'<doc id="4'), ("not UTF-8", b"se\xff")
    )}  # fmt: skip
    for kind, line in lines.items():
        assert skipped.kinds[kind].startswith(f"{path}:{line}: ")
    with pytest.raises(T5smithError, match=rf"wiki_00:{lines['text between documents']}: text outside"):
        read_strictly(path)


def read_strictly(path: Path) -> None:
    list(read_documents(CorpusSettings(strict=True), [path]))


def test_a_file_of_empty_articles_is_no_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "wiki_00", "".join(doc(i, "") for i in range(30)))
    assert read(path, strict=True)[0] == []
    assert read(path)[1].counts == {"empty pages": 30}


def test_a_truncated_archive_loses_its_last_document_alone(tmp_path: Path) -> None:
    pieces = [doc(i, f"tekst nummer {i}") for i in range(40)]
    whole = gzip.compress("".join(pieces).encode(), 0)
    for size in range(len(whole) // 2, len(whole) // 2 + 120, 10):
        texts, skipped = read(write(tmp_path / "wiki_00.gz", whole[:size]))
        assert texts == [f"Tittel {i}\n\ntekst nummer {i}" for i in range(len(texts))]
        assert 15 < len(texts) < 25
        assert skipped.counts == {"damaged archive": 1}


def test_other_tags_are_text(tmp_path: Path) -> None:
    for text in ('<doc id="1">\nen\n</doc>\n', "<doc>\nen\n", '<doc title="x">\n', "en <doc> i en tekst"):
        assert file_format(CorpusSettings(), str(write(tmp_path / "a", text))) == "text"
    path = write(tmp_path / "b", "en tekst uten dokumenter\nog en linje\n")
    with pytest.raises(T5smithError, match="b:1: text outside of <doc> and </doc>"):
        read(path, format="wikiextractor")


LINES = [
    '<doc id="1" url="a" title="b">', '<doc id="2" url="a" title="æ">', "</doc>", "", "b", "en dag", "æøå" * 5
]  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(lines=st.lists(st.sampled_from(LINES), max_size=40), unit=st.integers(1, 60), last=st.booleans())
def test_a_file_may_be_split_at_any_byte(
    lines: list[str], unit: int, last: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same documents and the same counts, also of what is irregular, however blocks are shared out."""
    data = "\n".join([LINES[0], "en", "</doc>", *lines]) + "\n" * last
    path = write(tmp_path_factory.mktemp("cut") / "a", data)
    corpus = CorpusSettings(format="wikiextractor")

    def parts(*selections: BlockSelection) -> tuple[list[tuple[str, str]], dict[str, int]]:
        skipped = SkippedRecords()
        placed = [
            (place, document)
            for part in selections
            for place, document in positioned_documents(corpus, str(path), part, skipped)
            if document is not None
        ]
        placed.sort(key=lambda entry: entry[0])
        return [(document.text, document.where) for _, document in placed], dict(skipped.counts)

    whole = parts(BlockSelection())
    size = len(data.encode())
    assert parts(*(BlockSelection(unit, start, start + unit) for start in range(0, size, unit))) == whole
    assert parts(*(BlockSelection(unit, reader=turn, readers=3) for turn in range(3))) == whole
    # In = out + counted: every opening line is a document or counted, and so is every stretch beside them.
    opened = data.count("<doc ")
    counts = whole[1]
    assert len(whole[0]) + counts.get("empty pages", 0) + counts.get("without </doc>", 0) == opened
