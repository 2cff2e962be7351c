"""MediaWiki dumps: every page is a document or counted, whatever is damaged."""

from __future__ import annotations

import bz2
import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.document import BlockSelection
from t5smith.text.documents import positioned_documents, read_documents
from t5smith.text.formats import wiki_dump
from t5smith.text.recognition import file_format, is_splittable
from t5smith.text.skipped_records import SkippedRecords

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="nb">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <namespaces>
      <namespace key="-2" case="first-letter">Medium</namespace>
      <namespace key="0" case="first-letter" />
      <namespace key="1" case="first-letter">Diskusjon</namespace>
      <namespace key="6" case="first-letter">Fil</namespace>
      <namespace key="10" case="first-letter">Mal</namespace>
      <namespace key="14" case="first-letter">Kategori</namespace>
    </namespaces>
  </siteinfo>
"""
LAST = "</mediawiki>\n"


def page(title: str, text: str, space: int | None = 0, more: str = "", model: str = "wikitext") -> str:
    """As MediaWiki exports it."""
    ns = "" if space is None else f"    <ns>{space}</ns>\n"
    return (
        f"  <page>\n    <title>{escape(title)}</title>\n{ns}    <id>7</id>\n{more}"
        f"    <revision>\n      <id>9</id>\n      <timestamp>2024-01-01T00:00:00Z</timestamp>\n"
        f"      <contributor>\n        <username>text</username>\n        <id>1</id>\n      </contributor>\n"
        f"      <comment>/* a */ b</comment>\n      <model>{model}</model>\n"
        f'      <text bytes="{len(text)}" xml:space="preserve">{escape(text)}</text>\n'
        f"      <sha1>0</sha1>\n    </revision>\n  </page>\n"
    )


def dump(*pages: str) -> bytes:
    return (HEAD + "".join(pages) + LAST).encode()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def read(path: Path, **more: object) -> tuple[list[str], SkippedRecords]:
    corpus = CorpusSettings.model_validate(more)
    skipped = SkippedRecords(corpus.strict)
    return [document.text for document in read_documents(corpus, [path], skipped=skipped)], skipped


def multistream(data: bytes) -> bytes:
    """Several pages to a stream, as in pages-articles-multistream.xml.bz2."""
    head, *pages = data.split(b"  <page>")
    pages = [b"  <page>" + one for one in pages]
    return b"".join(map(bz2.compress, [head, *(b"".join(pages[i : i + 3]) for i in range(0, len(pages), 3))]))


REDIRECT = '    <redirect title="Dag" />\n'
MIXED = dump(
    page("Dag", "'''Dag''' er [[lys]] & [[Fil:a.png|thumb|bilde]]varm.\n\n== Ord ==\n* en\n[[Kategori:Tid]]"),
    page("Døgn", "#OMDIRIGERING [[Dag]]", more=REDIRECT),
    page("Diskusjon:Dag", "Er det sant?", 1),
    page("Bruker:Ola", "Hei.", 2),
    page("Spesial:Alt", "Hei.", -1),
    page("Tom", "{{Stubb}}\n[[Kategori:Tid]]"),
    page("Kart", '{"a": 1}', model="json"),
    page(
        "<Natt> & 'mer'",
        "&lt;b&gt; &amp;amp; <b>fet</b> \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    ),
)
ARTICLES = ["Dag\n\nDag er lys & varm.\nOrd\nen", "<Natt> & 'mer'\n\n<b> &amp; fet \U0001f600"]
LEFT_OUT = {
    "redirects": 1,
    "talk pages": 1,
    "pages of other namespaces": 2,
    "empty pages": 1,
    "pages that are not wikitext": 1,
}


@pytest.mark.parametrize(
    "name", ["nowiki-pages-articles.xml.bz2", "a.xml", "part-00000", "a.txt.gz", "b.xml.bz2"]
)
def test_articles_are_read_and_the_rest_is_counted(tmp_path: Path, name: str) -> None:
    squeeze: dict[str, Callable[[bytes], bytes]] = {
        "n": bz2.compress,
        "b": multistream,
        "a.txt.gz": gzip.compress,
    }
    data = squeeze.get(name, squeeze.get(name[0], bytes))(MIXED)
    path = write(tmp_path / name, data)
    assert file_format(CorpusSettings(), str(path)) == "mediawiki"
    assert is_splittable(CorpusSettings(), str(path)) == (name in ("a.xml", "part-00000"))
    for strict in (False, True):  # what is dropped as it should be is no fault
        texts, skipped = read(path, strict=strict)
        assert (texts, skipped.counts) == (ARTICLES, LEFT_OUT)
        assert (skipped.first, skipped.kinds, skipped.faults) == ([], {}, {})


@pytest.mark.parametrize("begin", ["", '\ufeff<?xml version="1.0" encoding="utf-8"?>\n', "\n "])
def test_a_dump_is_known_by_its_root_element(tmp_path: Path, begin: str) -> None:
    assert read(write(tmp_path / "a", begin.encode() + MIXED))[0] == ARTICLES


def test_redirects_alone_are_no_reason_to_reject_a_dump(tmp_path: Path) -> None:
    many = [page(f"{i}", "#REDIRECT", more=REDIRECT) for i in range(50)]
    texts, skipped = read(write(tmp_path / "a.xml", dump(*many, page("Dag", "lys"))))
    assert texts == ["Dag\n\nlys"]
    assert skipped.counts == {"redirects": 50}


def test_old_dumps_show_the_namespace_in_the_title(tmp_path: Path) -> None:
    pages = [
        page("Dag", "a", None),
        page("Diskusjon:Dag", "b", None),
        page("Mal:X", "c", None),
        page("A: B", "d", None),
    ]
    texts, skipped = read(write(tmp_path / "a.xml", dump(*pages)))
    assert texts == ["Dag\n\na", "A: B\n\nd"]
    assert skipped.counts == {"talk pages": 1, "pages of other namespaces": 1}


def test_the_last_revision_counts(tmp_path: Path) -> None:
    def history(*texts: str | None) -> str:
        revisions = "".join(
            "<revision><text /></revision>" if text is None else f"<revision><text>{text}</text></revision>"
            for text in texts
        )
        return f"<page><title>Dag</title><ns>0</ns>{revisions}</page>"

    slot = "<revision><text>main</text><content><role>x</role><text>slot</text></content></revision>"
    pages = [history("a", "b" * 200, "c"), history("a", None), history("a", "b" * 200)]
    pages += [
        f"<page><title>Dag</title>{slot}</page>",
        "<page><title>Dag</title><revision><text>a</text></revision><revision /></page>",
    ]
    path = write(tmp_path / "a.xml", dump(*pages))
    texts, skipped = read(path, longest_document=100)
    assert texts == ["Dag\n\nc", "Dag\n\nmain"]
    assert skipped.counts == {"empty pages": 2, "too long": 1}
    assert "the page 'Dag' has more than 100 characters" in skipped.first[0]


BROKEN = {
    "an entity of its own": "<page><title>a</title><revision><text>&bomb;</text></revision></page>",
    "a declaration": '<page><!DOCTYPE a [<!ENTITY b "c">]><title>a</title></page>',
    "tags that do not match": "<page><title>a</revision></page>",
    "no end": "<page><title>a</title><revision><text>b</text></revision>\n",
    "an attribute twice": "<page a='1'><title b='1' b='2'>a</title></page>".replace("<page a='1'>", "<page>"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_page_costs_that_page(tmp_path: Path, broken: str) -> None:
    path = write(tmp_path / "a.xml", dump(page("En", "a"), broken, page("To", "b")))
    texts, skipped = read(path)
    assert texts == ["En\n\na", "To\n\nb"]
    assert skipped.counts == {"broken XML": 1}
    line = path.read_text().partition(broken)[0].count("\n") + 1
    assert f"a.xml:{line}: a page that is " in skipped.first[0]
    with pytest.raises(T5smithError, match=rf"a\.xml:{line}: a page that is "):
        read(path, strict=True)


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    data = dump(page("En", "a"), page("To", "XX"), page("Tre", "c")).replace(b"XX", b"\xff")
    texts, skipped = read(write(tmp_path / "a.xml", data))
    assert texts == ["En\n\na", "Tre\n\nc"]
    assert skipped.counts == {"broken XML": 1}


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    """A billion laughs: declarations before the first page are never read."""
    laughs = "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))
    declared = f'<?xml version="1.0"?>\n<!DOCTYPE mediawiki [<!ENTITY l0 "ha">{laughs}]>\n'
    data = declared.encode() + dump(page("En", "a"), "<page><title>To</title>&l9;</page>", page("Tre", "c"))
    texts, skipped = read(write(tmp_path / "a.xml", data), format="mediawiki")
    assert texts == ["En\n\na", "Tre\n\nc"]
    assert skipped.counts == {"broken XML": 1}


def test_too_much_markup_is_given_up(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", dump(page("En", "a"), page("To", "<b " * 3_000), page("Tre", "c")))
    texts, skipped = read(path)
    assert texts == ["En\n\na", "Tre\n\nc"]
    assert skipped.counts == {"too much markup": 1}


def test_a_dump_that_is_cut_anywhere(tmp_path: Path) -> None:
    """All complete pages are used, and what is missing is reported once."""
    pages = [page("En", "a"), page("To", "", more=REDIRECT), page("Tre", "c")]
    whole = dump(*pages).rstrip()
    ends = [len((HEAD + "".join(pages[: i + 1])).encode()) - 1 for i in range(3)]
    for size in range(20, len(whole) + 1, 7):
        texts, skipped = [], SkippedRecords()
        path = write(tmp_path / "a.xml", whole[:size])
        expected = [
            text for text, end in zip(["En\n\na", "", "Tre\n\nc"], ends, strict=True) if text and end <= size
        ]
        if size < ends[0]:
            with pytest.raises(T5smithError, match=r"a\.xml"):
                read(path)
            continue
        texts, skipped = read(path)
        assert texts == expected
        assert skipped.faults == {"damaged archive": 1}
        assert "the dump is cut short" in skipped.first[0]
    assert not read(write(path, whole))[1].faults


@pytest.mark.parametrize("squeeze", [lambda data: bz2.compress(data, 1), multistream, gzip.compress])
def test_all_complete_pages_of_a_damaged_archive_are_used(
    tmp_path: Path, squeeze: Callable[[bytes], bytes]
) -> None:
    pages = [page(f"Dag {i}", f"lys {i * 7919 % 10_007} {i * 104_729 % 1_000_003}") for i in range(2_000)]
    whole = squeeze(dump(*pages))
    path = write(tmp_path / "a.xml.bz2", whole)
    assert len(read(path)[0]) == 2_000
    texts, skipped = read(write(path, whole[: len(whole) * 3 // 4]))
    assert skipped.counts == {"damaged archive": 1}
    assert "the archive is cut short or damaged" in skipped.first[0]
    assert texts == [
        f"Dag {i}\n\nlys {i * 7919 % 10_007} {i * 104_729 % 1_000_003}" for i in range(len(texts))
    ]
    assert 1_200 < len(texts) < 1_800


@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_pages_lie_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(wiki_dump, "CHUNK_BYTES", chunk)
    texts, skipped = read(write(tmp_path / "a.xml", MIXED))
    assert (texts, skipped.counts) == (ARTICLES, LEFT_OUT)


@pytest.mark.parametrize("cut", [0, 300])
def test_a_plain_dump_may_be_split_at_any_byte(tmp_path: Path, cut: int) -> None:
    """Each part of it has the documents and the counts of its own pages, and the places of all."""
    broken = "<page><title>a</revision></page>\n"
    data = MIXED[: -len(LAST)] + broken.encode() + dump(page("Sist", "b"))[len(HEAD.encode()) :]
    path = write(tmp_path / "a.xml", data[: len(data) - cut])

    def parted(part: BlockSelection, skipped: SkippedRecords) -> list[tuple[str, str]]:
        placed = positioned_documents(CorpusSettings(), str(path), part, skipped)
        return [(document.text, document.where) for _, document in placed if document is not None]

    expected = SkippedRecords()
    whole = parted(BlockSelection(), expected)
    assert len(whole) == 3 - bool(cut)
    assert expected.counts["damaged archive"] == bool(cut)
    for unit in (*range(5, 40), 100, 999, len(data) - 1):
        skipped = SkippedRecords()
        found = [
            entry
            for start in range(0, path.stat().st_size, unit)
            for entry in parted(BlockSelection(unit, start, start + unit), skipped)
        ]
        assert found == whole
        assert skipped.counts == expected.counts
        assert sorted(skipped.first) == sorted(expected.first)
    turns = SkippedRecords()
    found = [
        entry for turn in range(3) for entry in parted(BlockSelection(300, reader=turn, readers=3), turns)
    ]
    assert sorted(found) == sorted(whole)
    assert turns.counts == expected.counts


def test_text_is_no_dump(tmp_path: Path) -> None:
    with pytest.raises(T5smithError) as caught:
        read(write(tmp_path / "a.txt", b"hei <b>\n"), format="mediawiki")
    expected = f"{tmp_path}/a.txt: not a MediaWiki dump; expected XML that begins with <mediawiki"
    assert str(caught.value) == expected


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mwparserfromhell", None)
    monkeypatch.delitem(sys.modules, "t5smith.text.formats.wikitext", raising=False)
    with pytest.raises(T5smithError) as caught:
        read(write(tmp_path / "a.xml", MIXED))
    assert "\n" not in str(caught.value)
    assert "mwparserfromhell, which parses the pages of MediaWiki dumps, is not installed" in str(
        caught.value
    )
    assert "Run `pip install 't5smith[web]'`" in str(caught.value)


def test_what_is_left_out_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(write(tmp_path / "a.xml", MIXED))[1].report()
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith("text dropped: pages of other namespaces 2, redirects 1, talk pages 1,")
    assert "warning" not in told


def test_numbers_of_thousands_of_digits_are_none(tmp_path: Path) -> None:
    """Python refuses to read them. Such a namespace is that of the title."""
    digits = "1" * 5_000
    data = dump(page("En dag", "Vinter"), page("Diskusjon:En dag", "Sommer")).decode()
    data = data.replace("<ns>0</ns>", f"<ns>{digits}</ns>").replace('key="10"', f'key="{digits}"')
    texts, skipped = read(write(tmp_path / "a.xml", data.encode()))
    assert texts == ["En dag\n\nVinter"]
    assert skipped.counts == {"talk pages": 1}
