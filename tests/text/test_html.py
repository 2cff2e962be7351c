"""Web pages as files, and XML that is refused by the name of its root element."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest
from reading import read, replace_trafilatura, write

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.store.plan import Plan
from t5smith.text.corpus import CorpusFiles
from t5smith.text.documents import read_documents
from t5smith.text.recognition import file_format
from t5smith.text.skipped_records import SkippedRecords

TEXTS = [f"Dette er avsnitt nummer {i}, og det er langt nok til å være tekst på en side." for i in range(4)]
MENU = "<nav><ul><li><a href='/'>Hjem</a></li><li><a href='/om'>Om oss</a></li></ul></nav>"


def page(texts: list[str], head: str = "") -> str:
    paragraphs = "\n\n".join(f"<p>{text}</p>" for text in texts)
    style = "<style>p{color:red}</style><script>var a = 1;</script>"
    return (
        f"<html><head><title>En side</title>{head}{style}</head><body>{MENU}"
        f"<article>{paragraphs}</article><footer>Kontakt</footer></body></html>"
    )


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pages that were given to trafilatura, which is replaced."""
    return replace_trafilatura(monkeypatch)


@pytest.mark.parametrize("name", ["a.html", "a.htm.gz", "side", "a.txt"])
def test_the_text_of_a_page_by_trafilatura_itself(tmp_path: Path, name: str) -> None:
    pytest.importorskip("trafilatura")
    data = f"<!DOCTYPE html>\n{page(TEXTS)}".encode()
    path = write(tmp_path / name, gzip.compress(data) if name.endswith(".gz") else data)
    assert read(path, strict=True)[0] == ["\n".join(TEXTS)]
    texts, skipped = read(write(tmp_path / "b.html", "<html><body><script>1</script></body></html>"))
    assert (texts, skipped.counts) == ([], {"pages without text": 1})


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("a.html", ""),
        ("a.HTM", "\n\n"),
        ("a.xhtml", '<?xml version="1.0"?>\n'),
        ("side", "<!doctype HTML>"),
        ("side", "\ufeff <!-- lagret fra http://a.no -->\n<!DOCTYPE html PUBLIC '-//W3C//DTD XHTML 1.0'>\n"),
        ("a.txt", ""),
        ("a.xml", '<?xml version="1.0" encoding="utf-8"?>'),
    ],
)
def test_a_page_is_one_document(tmp_path: Path, extracted: list[str], name: str, before: str) -> None:
    path = write(tmp_path / name, before + page(TEXTS))
    assert file_format(CorpusSettings(), str(path)) == "html"
    (document,) = read_documents(CorpusSettings(strict=True), [path])
    assert (document.text, document.where) == ("\n".join(TEXTS), f"{path}:1")
    assert extracted == [(before + page(TEXTS)).removeprefix("\ufeff")]


@pytest.mark.parametrize("encoding", ["iso-8859-1", "windows-1252", "utf-16", "koi8-r"])
def test_a_page_in_the_encoding_that_it_declares(tmp_path: Path, extracted: list[str], encoding: str) -> None:
    """The standard of HTML reads iso-8859-1 as windows-1252, which has dashes."""
    text = "это текст" if encoding == "koi8-r" else "blå dag – og natt"
    data = page([text], f'<meta http-equiv="Content-Type" content="text/html; charset={encoding}">')
    written = encoding.replace("iso-8859-1", "windows-1252")
    assert read(write(tmp_path / "a.html", data.encode(written)), strict=True)[0] == [text]
    if encoding != "utf-16":
        unnamed = write(tmp_path / "b.html", page([text], '<meta charset="no-such-one">').encode(written))
        with pytest.raises(T5smithError, match=r"b.html:1: invalid UTF-8, .*`iconv -f latin1"):
            read(unnamed)
    assert extracted


def test_every_page_is_a_document_or_counted(tmp_path: Path, extracted: list[str]) -> None:
    folder = tmp_path / "sider"
    folder.mkdir()
    pages = {
        "a.html": page(TEXTS).encode(),
        "b.html": page([]).encode(),
        "c.html": page(["bl\xe5 dag"]).encode("latin-1"),
        "d.html": page(TEXTS * 100).encode(),
        "e.html.gz": gzip.compress(page(TEXTS).encode())[:-20],
        "f.html": b"",
        "g.html": b"\n \n",
    }
    for name, data in pages.items():
        write(folder / name, data)
    skipped = SkippedRecords()
    corpus = CorpusSettings(train=(str(folder),), longest_document=5_000)
    files = CorpusFiles.find(corpus).files("train")
    texts = [document.text for document in read_documents(corpus, files, None, skipped)]
    assert texts == ["\n".join(TEXTS)]
    assert skipped.counts == {
        "pages without text": 1, "not UTF-8": 1, "too long": 1, "damaged archive": 1
    }  # fmt: skip
    assert len(extracted) == 2


def test_a_large_page_is_read_by_one_task(tmp_path: Path, extracted: list[str]) -> None:
    """Whatever its size: no part of it is a page."""
    for name, data in (
        ("a.html", b"<html>" + b" " * (5 << 20)),
        ("a.html.gz", gzip.compress(bytes(5 << 20), 0)),
    ):
        path = write(tmp_path / name, data)
        (unit,) = Plan.create(CorpusFiles.find(CorpusSettings(train=(str(path),)))).units
        assert unit.blocks == 1
    assert not extracted


def test_without_trafilatura_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    path = write(tmp_path / "a.html", page(TEXTS))
    with pytest.raises(T5smithError, match=r"a.html: trafilatura.* is not installed.*'t5smith\[web\]'"):
        read(path)
    assert page(TEXTS).startswith(read(path, format="text")[0][0])


@pytest.mark.parametrize("name", ["a.xml", "a.txt", "part-00000"])
@pytest.mark.parametrize(
    ("data", "root"),
    [
        (
            '<?xml version="1.0"?>\n<TEI xmlns="http://www.tei-c.org/ns/1.0">\n<text>en dag</text>\n</TEI>',
            "TEI",
        ),
        ("<?xml version='1.0'?><!DOCTYPE tei.2 [<!ENTITY a 'b'>]><!-- c --><tei.2/>", "tei.2"),
        ('\ufeff<rss version="2.0"><channel><title>x</title></channel></rss>', "rss"),
        ("<feed>\n<doc>\n<title>Wikipedia: Oslo</title>\n</doc>\n</feed>", "feed"),
        ('<cesDoc xmlns="x"><p>' + "a" * 100_000, "cesDoc"),
        ('<?xml version="1.0"?>\n<liste>en dag</liste>', "liste"),
        ('<!DOCTYPE liste SYSTEM "liste.dtd">\n<liste>en dag</liste>', "liste"),
    ],
)
def test_other_xml_is_refused_by_its_root_element(tmp_path: Path, name: str, data: str, root: str) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(T5smithError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path}: this is XML with the root element <{root}>. Convert it to text or JSON lines, or set "
        'corpus.format = "text" to read it as it is'
    )
    assert read(path, format="text", document="file")[0] == [data.removeprefix("\ufeff")]


def test_the_ending_xml_says_it_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml.gz", gzip.compress(b"<s> en dag </s>\n"))
    with pytest.raises(T5smithError, match="the root element <s>"):
        read(path)


@pytest.mark.parametrize(
    "text",
    [
        "<s> en dag </s>\n<s> to dager </s>\n",
        "<s> en dag </s>\n",
        "<unk> er en hval\n",
        "<kari> Hei!\n<ola> Hei <3\n",
        "<p>en</p>\n<p>to</p>",
        "<|endoftext|>en",
        "< 5 og > 3",
        "<https://a.no> er en adresse",
        "<b>Overskrift</b> og <i>tekst</i>",
        "<!-- en merknad -->\nen tekst",
        "en <html> i en tekst",
    ],
)
def test_text_may_begin_with_a_bracket(tmp_path: Path, text: str) -> None:
    assert file_format(CorpusSettings(), str(write(tmp_path / "a", text))) == "text"
    assert read(tmp_path / "a", document="file")[0] == [text.rstrip("\n")]


@pytest.mark.parametrize("before", ["", '<?xml version="1.0"?>', "<?xml version='1.0'?>\n<!-- dump -->\n"])
def test_a_dump_with_declarations_before_it_is_a_dump(tmp_path: Path, before: str) -> None:
    path = write(tmp_path / "a.xml", f"{before}<mediawiki>\n</mediawiki>")
    assert file_format(CorpusSettings(), str(path)) == "mediawiki"


def test_a_page_in_a_web_archive_has_the_same_text(tmp_path: Path, extracted: list[str]) -> None:
    body = page(TEXTS).encode()
    content = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a/\r\nWARC-Date: 2020-01-01T00:00:00Z\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    archive = write(tmp_path / "a.warc", head.encode() + content + b"\r\n\r\n")
    assert read(archive, strict=True)[0] == read(write(tmp_path / "a.html", body))[0] == ["\n".join(TEXTS)]
    assert extracted == [body.decode()] * 2
