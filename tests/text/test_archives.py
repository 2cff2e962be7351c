"""Zip and tar: their documents are those of the unpacked files, and every other member is counted."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from reading import read, write

from archives import PACK, TAR_FORMATS, ZIP_METHODS, tarred, zipped
from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text import decompression
from t5smith.text.archives.tar_members import MAX_EXTENDED
from t5smith.text.corpus import CorpusFiles
from t5smith.text.document import WHOLE_FILE
from t5smith.text.documents import positioned_documents, read_documents
from t5smith.text.skipped_records import SkippedRecords


def table(texts: list[str]) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pa.table({"text": texts}), out)
    return out.getvalue()


LONG = "lang/" * 40 + "navn.txt"
MEMBERS = {
    "b/z.txt": b"en dag\n\nto\nlinjer\n",
    "a.jsonl": b'{"text": "tre"}\n{"text": "fire"}\n',
    "tabell.csv": b'id,verdi\n1,"fem, seks"\n2,sju\n',
    "kolonner.parquet": table(["\u00e5tte", "ni"]),
    "pakket/c.jsonl.gz": gzip.compress(b'{"content": "ti"}\n'),
    "part-00000": b'{"body": "elleve"}\n',
    "\u00e6\u00f8 \u540d.tsv": b"id\ttext\n1\ttolv\n",
    LONG: b"tretten",
    "kolonner.parquet.xz": PACK[".xz"](table(["fjorten"])),
}
"""Files in an order that is not that of their names."""
KINDS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    **{f"{method}.zip": lambda m, k=method: zipped(m, k) for method in ZIP_METHODS},
    "streamed.zip": lambda m: zipped(m, streamed=True),
    "unknown": zipped,
    "a.zip.gz": lambda m: gzip.compress(zipped(m)),
    **{f"{kind}.tar": lambda m, k=kind: tarred(m, k) for kind in TAR_FORMATS},
    **{f"a.tar{ending}": lambda m, p=pack: p(tarred(m)) for ending, pack in PACK.items() if ending},
    "a.tgz": lambda m: gzip.compress(tarred(m)),
    "a.txt": lambda m: gzip.compress(tarred(m)),
}


def unpacked(folder: Path, members: dict[str, bytes]) -> list[Path]:
    """The members as files, in their order."""
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return [folder / name for name in members]


def places(files: list[Path], root: Path, **more: object) -> list[tuple[str, str]]:
    """Text and place of each document."""
    corpus = CorpusSettings.model_validate(more)
    documents = read_documents(corpus, files, None, SkippedRecords(strict=True))
    return [(document.text, document.where.removeprefix(f"{root}/")) for document in documents]


@pytest.mark.parametrize("document", ["block", "line", "file"])
@pytest.mark.parametrize("name", KINDS)
def test_the_documents_are_those_of_the_files_in_it(tmp_path: Path, name: str, document: str) -> None:
    expected = places(unpacked(tmp_path / "files", MEMBERS), tmp_path / "files", document=document)
    path = write(tmp_path / name, KINDS[name](MEMBERS))
    found = places([path], path, document=document)
    long = [place for _, place in found if "\u2026" in place]
    assert len(long) == 1  # a name too long for a message
    assert [(t, p if p not in long else f"{LONG}:1") for t, p in found] == expected


def test_settings_are_those_of_the_members(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", zipped({"a.txt": b'{"b": {"c": "en"}}', "d": b'{"b": {"c": "to"}}'}))
    assert read(path, format="jsonl", text_field="b.c")[0] == ["en", "to"]
    assert read(path, format="text")[0] == ['{"b": {"c": "en"}}', '{"b": {"c": "to"}}']


OTHERS = {
    "LICENSE": b"fri",
    "data/README.md": b"les",
    "__MACOSX/._b.txt": b"\0\1\2",
    ".gitignore": b"*",
    ".git/a.txt": b"x",
    "sha256sums.txt": b"x",
    "tom.txt": b"",
    "blank.txt": b"\n\n",
    "indre.zip": zipped({"a.txt": b"x"}),
    "indre.tgz": gzip.compress(tarred({"a.txt": b"x"})),
    "data.pdf": b"%PDF-1.4\n",
    "data.bin": bytes(range(256)) * 9,
    "peker.jsonl": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "uten.csv": b"id,dato\n1,2\n",
    "liste.json": b'[\n{"text": "a"}]\n',
}


@pytest.mark.parametrize("name", ["deflated.zip", "gnu.tar", "a.tar.xz"])
def test_members_that_are_not_read_are_counted_and_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, KINDS[name]({**OTHERS, **MEMBERS}))
    texts, skipped = read(path)
    assert texts == read(write(tmp_path / f"x{name}", KINDS[name](MEMBERS)))[0]
    assert skipped.counts == {
        "side members": 6,
        "empty members": 2,
        "nested archives": 2,
        "unreadable members": 5,
    }
    assert skipped.members == [f"{path}/{name}" for name in list(OTHERS)[:8]]
    assert f"{path}/indre.zip: this member is a zip archive" in skipped.first[0]
    assert f"{path}/data.pdf: this is a PDF file" in skipped.first[2]
    assert "git lfs pull" in skipped.first[4]
    with pytest.raises(T5smithError, match=r"indre\.zip: this member is a zip archive"):
        places([path], path)


def encrypted(archive: bytes) -> bytes:
    """With the flag that says so, in both headers."""
    for sign, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = archive.index(sign) + place
        archive = archive[:at] + b"\1\0" + archive[at + 2 :]
    return archive


def test_an_encrypted_member_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    texts, skipped = read(write(tmp_path / "a.zip", encrypted(zipped({"a.txt": b"x", "b.txt": b"en"}))))
    assert (texts, skipped.counts) == (["en"], {"encrypted members": 1})
    with pytest.raises(T5smithError, match=r"b\.zip/a\.txt: this member is encrypted.*password"):
        read(write(tmp_path / "b.zip", encrypted(zipped({"a.txt": b"x"}))))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.zip": zipped({"a.txt": b"x"})}, "x/a.zip: this member is a zip archive. Unpack"),
        ({"a.bin": bytes(range(256)) * 9}, "x/a.bin: this is a binary file"),
        (
            {"README.md": b"x", "LICENSE": b"y"},
            "x: nothing in it but 2 members without text (README.md, LICENSE)",
        ),
        ({"a.csv": b"id,dato\n1,2\n"}, "x/a.csv:1: no field holds text"),
    ],
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_without_anything_to_read_is_refused(
    tmp_path: Path, members: dict[str, bytes], message: str, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    path = write(tmp_path / "x", pack(members))
    with pytest.raises(T5smithError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_beside_other_files_its_members_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.zip", encrypted(zipped({"a.txt": b"x"})))
    write(tmp_path / "b.zip", zipped({"README.md": b"x"}))
    write(tmp_path / "c.tar", tarred({"a.bin": bytes(range(256)) * 9}))
    write(tmp_path / "d.txt", "en")
    skipped = SkippedRecords()
    corpus = CorpusSettings(train=(str(tmp_path),))
    documents = read_documents(corpus, CorpusFiles.find(corpus).files("train"), None, skipped)
    assert [document.text for document in documents] == ["en"]
    assert skipped.counts == {"encrypted members": 1, "side members": 1, "unreadable members": 1}


OFFICE = {
    "a Word document": {"[Content_Types].xml": b"<x/>", "word/document.xml": b"<x/>"},
    "an Excel workbook": {
        "docProps/app.xml": b"<x/>",
        "xl/workbook.xml": b"<x/>",
        "[Content_Types].xml": b"",
    },
    "a PowerPoint presentation": {"[Content_Types].xml": b"<x/>", "ppt/slides/slide1.xml": b"<x/>"},
    "an EPUB book": {"mimetype": b"application/epub+zip", "OEBPS/a.xhtml": b"<html>"},
    "an OpenDocument text": {"mimetype": b"application/vnd.oasis.opendocument.text", "content.xml": b"<x/>"},
    "a PyTorch file": {"archive/data.pkl": b"\x80\x02", "archive/version": b"3\n"},
}


@pytest.mark.parametrize("what", OFFICE)
@pytest.mark.parametrize("method", ["stored", "deflated"])
def test_documents_of_programs_are_refused_by_name(tmp_path: Path, what: str, method: str) -> None:
    data = zipped(OFFICE[what], "stored" if "mimetype" in OFFICE[what] else method)
    for name in ("a.docx", "a.zip", "b"):
        with pytest.raises(T5smithError, match=f"this is {what}"):
            read(write(tmp_path / name, data))
    folder = zipped({"a.txt": b"en", "b.docx": data})
    texts, skipped = read(write(tmp_path / "c.zip", folder))
    assert (texts, skipped.counts) == (["en"], {"unreadable members": 1})
    assert f"this is {what}" in skipped.first[0]


def test_a_missing_package_is_no_fault_of_a_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "warcio.archiveiterator", None)
    path = write(tmp_path / "a.zip", zipped({"a.txt": b"en", "b.warc": b"WARC/1.0\r\n\r\n"}))
    with pytest.raises(T5smithError, match="warcio is not installed"):
        read(path)


def test_nothing_is_written_where_names_point(tmp_path: Path) -> None:
    names = [
        "../ut.txt",
        "/tmp/ut.txt",
        "a/../../ut.txt",
        "ny\nlinje.txt",
        "C:\\ut.txt",
        "\x1b[31m.txt",
        "..",
        ".",
    ]
    for number, pack in enumerate((zipped, tarred)):
        folder = tmp_path / f"x{number}"
        folder.mkdir()
        path = write(folder / "x", pack(dict.fromkeys(names, b"en")))
        corpus = CorpusSettings()
        wheres = [document.where for document in read_documents(corpus, [path])]
        assert len(wheres) == len(names)
        assert all(where.isprintable() and "x//" not in where for where in wheres)
        assert list(tmp_path.rglob("*.txt")) == []


def test_folders_links_and_devices(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for number, kind in enumerate((tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE)):
            info = tarfile.TarInfo(f"m{number}")
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
        info = tarfile.TarInfo("a.txt")
        info.size = 2
        file.addfile(info, io.BytesIO(b"en"))
    texts, skipped = read(write(tmp_path / "a.tar", out.getvalue()))
    assert (texts, skipped.members) == (["en"], [f"{tmp_path}/a.tar/m{n}" for n in (1, 2, 3)])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mappe/", b"")
        link = zipfile.ZipInfo("lenke.txt")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.txt", b"en")
    texts, skipped = read(write(tmp_path / "a.zip", out.getvalue()))
    assert (texts, skipped.counts) == (["en"], {"side members": 1})
    assert skipped.members == [f"{tmp_path}/a.zip/lenke.txt"]


def memory(run: Callable[[], object]) -> int:
    """Most bytes allocated while it runs."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def test_a_size_in_an_extended_header(tmp_path: Path) -> None:
    """As of files of more than 8 GiB; one that is too small is that of the bytes there are."""
    record = b"9 size=2\n"
    data = header("x", len(record), tarfile.XHDTYPE) + record.ljust(512, b"\0")
    data += header("a.txt", 0) + b"en".ljust(512, b"\0") + tarred({"b.txt": b"to"})
    texts, skipped = read(write(tmp_path / "a.tar", data))
    assert (texts, skipped.counts) == (["en", "to"], {})


@pytest.mark.parametrize(
    ("digits", "counted"), [("0" * 5_000 + "2", 0), ("9" * 5_000, 1), ("9" * 21, 1)], ids=["zeros", "", "21"]
)
def test_a_size_of_thousands_of_digits(tmp_path: Path, digits: str, counted: int) -> None:
    """Python refuses to read them, and no file is as large."""
    length = len(digits) + (11 if len(digits) > 1_000 else 9)
    record = f"{length} size={digits}\n".encode()
    data = header("x", len(record), tarfile.XHDTYPE) + record + bytes(-len(record) % 512)
    data += header("a.txt", 0) + b"en\n\nto".ljust(512, b"\0") + bytes(1024)
    texts, skipped = read(write(tmp_path / "a.tar", data))
    assert (texts, skipped.counts.total()) == (["en"], counted)


@pytest.mark.parametrize("first", [1, 200])
@pytest.mark.parametrize("second", [1, 200])
def test_zip_archives_that_were_joined(tmp_path: Path, first: int, second: int) -> None:
    """Each has a directory of its own members; a comment belongs to the archive before."""
    parts = [
        {f"{name}{i}.txt": f"{name}{i}".encode() for i in range(n)}
        for name, n in (("a", first), ("b", second))
    ]
    path = write(tmp_path / "a.zip", zipped(parts[0], "stored") + zipped(parts[1], "stored"))
    texts, skipped = read(path)
    assert (texts, skipped.counts) == ([name[:-4] for part in parts for name in part], {})


@pytest.mark.parametrize("name", ["a.tar", "a"])
def test_an_archive_of_old_programs(tmp_path: Path, name: str) -> None:
    """Without the sign of POSIX; the check sum shows what it is."""
    data = bytearray(tarred({"a.txt": b"en"}))
    data[257:265] = bytes(8)
    data[148:156] = b" " * 8
    data[148:155] = b"%06o\0" % sum(data[:512])
    assert read(write(tmp_path / name, bytes(data)))[0] == ["en"]


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, b"?"])
def test_a_tar_header_that_claims_a_terabyte_allocates_nothing(
    tmp_path: Path, ending: str, kind: bytes
) -> None:
    data = tarred({"a.txt": b"en"})[:1024] + header("b.txt", 10**12, kind) + b"to\n\ntre\n"
    path = write(tmp_path / "a.tar", PACK[ending](data))
    found: list[tuple[list[str], SkippedRecords]] = []
    assert memory(lambda: found.append(read(path))) < 16 * MAX_EXTENDED
    texts, skipped = found[0]
    assert texts == (["en", "to"] if kind == tarfile.REGTYPE else ["en"])
    assert skipped.counts["damaged archive"] == 1


def test_sizes_in_a_zip_are_not_believed(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.txt": b"en\n\nto\n", "b.txt": b"tre"}, "stored"))
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<II", data, at + 20, 0xFFFFFFF0, 0xFFFFFFF0)
    found: list[tuple[list[str], SkippedRecords]] = []
    path = write(tmp_path / "a.zip", bytes(data))
    assert memory(lambda: found.append(read(path))) < 8 << 20
    assert found[0][0][0] == "en"
    assert found[0][1].counts["damaged archive"] == 1
    # Positions have blocks, of which each becomes a shard.
    placed = positioned_documents(CorpusSettings(), str(path), WHOLE_FILE, SkippedRecords())
    assert max(place for place, _ in placed) < 2_000 * len(data)


@pytest.mark.parametrize(
    "pack",
    [zipped, *(lambda m, p=p: p(tarred(m)) for e, p in PACK.items() if e)],
    ids=["zip", *list(PACK)[1:]],
)
@pytest.mark.slow
def test_a_bomb_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    monkeypatch.setattr(decompression, "_ZSTD_STEP", 256)  # zstd makes 8 MiB of them
    path = write(tmp_path / "x", pack({"a.txt": bytes(30 << 20), "b": b"a" * (30 << 20), "c.txt": b"en"}))
    assert path.stat().st_size < 1 << 20
    found: list[tuple[list[str], SkippedRecords]] = []
    # Some buffers, and what a format looks at to choose the reader.
    assert memory(lambda: found.append(read(path, longest_document=1 << 16))) < 24 << 20
    texts, skipped = found[0]
    assert texts == ["en"]
    assert skipped.counts == {"too long": 1, "unreadable members": 1}


def test_a_member_that_claims_to_be_empty_is_read(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.txt": b"en\n\nto"}))
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 0)
    texts, skipped = read(write(tmp_path / "a.zip", bytes(data)))
    assert (texts, skipped.counts) == (["en"], {"damaged archive": 1})


def test_members_that_share_their_bytes_are_read_once(tmp_path: Path) -> None:
    """As in the bombs of David Fifield: the directory names the same data many times."""
    data = zipped({"a.txt": b"ab" * 50_000})
    start = data.index(b"PK\x01\x02")
    entry = data[start : data.index(b"PK\x05\x06")]
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 900, 900, len(entry) * 900, start, 0)
    path = write(tmp_path / "a.zip", data[:start] + entry * 900 + end)
    texts, skipped = read(path)
    assert len(texts) <= path.stat().st_size // (start - 40)
    assert skipped.counts == {"unreadable members": 900 - len(texts)}


@pytest.mark.slow
def test_a_zip_of_more_members_than_fit_in_memory_at_once(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for number in range(3_000):
            file.writestr(f"{number:05}-{'n' * 900}.md5", b"x")
        file.writestr("a.txt", b"en")
    path = write(tmp_path / "a.zip", out.getvalue())
    found: list[list[str]] = []
    assert memory(lambda: found.append(read(path)[0])) < 5 << 20
    assert found == [["en"]]


def test_large_sizes_and_prefixes(tmp_path: Path) -> None:
    """Zip64 as Python writes it, and an archive behind a program that unpacks it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file, file.open("a.txt", "w", force_zip64=True) as member:
        member.write(b"en")
    data = out.getvalue()
    assert read(write(tmp_path / "a.zip", data))[0] == ["en"]
    large = bytearray(data)
    at = large.index(b"PK\x01\x02")
    offset = struct.pack("<HHQ", 1, 8, 0)
    struct.pack_into("<H", large, at + 30, len(offset))
    struct.pack_into("<I", large, at + 42, 0xFFFFFFFF)
    end = large.index(b"PK\x05\x06")
    large[end:end] = offset
    struct.pack_into("<I", large, large.index(b"PK\x05\x06") + 12, end + len(offset) - at)
    assert read(write(tmp_path / "b.zip", bytes(large)))[0] == ["en"]
    prefixed = write(tmp_path / "c.zip", b"MZ\x90\0" + bytes(60) + data)
    assert read(prefixed)[0] == ["en"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_zip_that_is_cut_anywhere_gives_all_that_is_whole(tmp_path: Path, streamed: bool) -> None:
    members = {f"{n}.txt": f"dag {n} og natt".encode() for n in range(6)}
    data = zipped(members, streamed=streamed)
    starts = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x03\x04"]
    directory = data.index(b"PK\x01\x02")
    for cut in range(60, len(data), 7):
        texts, skipped = read(write(tmp_path / "a.zip", data[:cut]), document="line")
        ends = [*starts[1:], directory]
        whole = sum(end - (16 if streamed else 0) <= cut for end in ends)
        assert texts[:whole] == [text.decode() for text in members.values()][:whole], cut
        assert skipped.counts["damaged archive"] >= 1


@pytest.mark.parametrize("ending", PACK)
def test_a_tar_that_is_cut_anywhere_gives_all_that_is_whole(tmp_path: Path, ending: str) -> None:
    members = {f"{n}.txt": b"\n".join(b"dag %d %d" % (n, i) for i in range(60)) for n in range(4)}
    data = tarred(members)[: 4 * 1536 + 1024]
    lines = [line.decode() for text in members.values() for line in text.splitlines()]
    for cut in range(600, len(data) - 520, 101):
        texts, skipped = read(write(tmp_path / "a.tar", PACK[ending](data[:cut])), document="line")
        assert texts == lines[: len(texts)]
        assert len(texts) >= sum(cut >= 1536 * n + 1536 for n in range(4)) * 60
        assert skipped.counts["damaged archive"] == 1, cut


def test_damage_within_an_archive(tmp_path: Path) -> None:
    """A header of a tar, a member of a zip, an entry of its directory: what is behind is read."""
    members = {f"{n}.txt": f"dag {n}".encode() for n in range(5)}
    expected = [f"dag {n}" for n in (0, 1, 3, 4)]
    data = bytearray(tarred(members))
    data[2 * 1024 + 7] ^= 1
    texts, skipped = read(write(tmp_path / "a.tar", bytes(data)))
    assert (texts, skipped.counts) == (expected, {"damaged archive": 1})
    data = bytearray(zipped(members, "stored"))
    data[data.index(b"dag 2")] ^= 1
    texts, skipped = read(write(tmp_path / "a.zip", bytes(data)))
    assert (texts, skipped.counts) == (expected, {"damaged archive": 1})
    assert "a.zip/2.txt:1: the archive is cut short or damaged (its check sum is wrong)" in skipped.first[0]
    data = bytearray(zipped(members))
    at = [i for i in range(len(data)) if data.startswith(b"PK\x01\x02", i)][2]
    data[at] ^= 1
    texts, skipped = read(write(tmp_path / "b.zip", bytes(data)))
    assert (texts, skipped.counts) == ([f"dag {n}" for n in range(5)], {"damaged archive": 1})


def test_a_cut_zip_is_not_the_zip_within_it(tmp_path: Path) -> None:
    """The directory that is found at the end is that of a member."""
    data = zipped({"a.txt": b"en", "indre.zip": zipped({"b.txt": b"to"}), "c.txt": b"tre"}, "stored")
    texts, skipped = read(write(tmp_path / "a.zip", data[: data.index(b"c.txt")]))
    assert (texts, skipped.counts) == (["en"], {"damaged archive": 1, "nested archives": 1})


def test_no_text_before_the_damage_of_a_compressed_member_is_lost(tmp_path: Path) -> None:
    """In a compressed archive too, where a decoder cannot go back."""
    member = bytearray(gzip.compress(b"".join(b"dag %d\n" % n for n in range(3_000)), mtime=0))
    member[-3] ^= 1  # the check sum
    data = tarred({"a.txt.gz": bytes(member), "b.txt": b"siste"})
    for packed in (data, gzip.compress(data), zipped({"a.txt.gz": bytes(member), "b.txt": b"siste"})):
        texts, skipped = read(write(tmp_path / "a", packed), document="line")
        assert len(texts) >= 3_000
        assert texts[-1] == "siste"
        assert skipped.counts == {"damaged archive": 1}


def test_joined_archives_and_what_follows_them(tmp_path: Path) -> None:
    one, two = tarred({"a.txt": b"en"}), tarred({"b.txt": b"to"})
    texts, skipped = read(write(tmp_path / "a.tar", one + two))
    assert (texts, skipped.counts) == (["en", "to"], {})
    texts, skipped = read(write(tmp_path / "b.tar", one + b"junk" * 400))
    assert (texts, skipped.counts) == (["en"], {"damaged archive": 1})


def test_empty_archives_have_no_text(tmp_path: Path) -> None:
    for name, data in (("a.zip", zipped({})), ("b.tar", bytes(10_240)), ("c.tgz", gzip.compress(tarred({})))):
        assert read(write(tmp_path / name, data)) == ([], SkippedRecords())


def test_the_programs_archives(tmp_path: Path) -> None:
    """Those of Info-ZIP and GNU tar, also a sparse file and an archive of more than one volume's names."""
    unpacked(tmp_path / "files", MEMBERS)
    with (tmp_path / "files" / "hull.txt").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"hull")
    names = [*MEMBERS, "hull.txt"]
    subprocess.run(["tar", "-Scf", tmp_path / "a.tar", *names], cwd=tmp_path / "files", check=True)
    texts, skipped = read(tmp_path / "a.tar")
    assert len(texts) == 13
    assert skipped.counts == {"unreadable members": 1}
    assert "a file with holes" in skipped.first[0]
    del names[-1]
    subprocess.run(["zip", "-qr", tmp_path / "a.zip", *names], cwd=tmp_path / "files", check=True)
    assert read(tmp_path / "a.zip")[0] == texts


def test_archives_in_folders_and_data_sets(tmp_path: Path) -> None:
    data = zipped({"train.jsonl": b'{"text": "en"}\n{"text": "to"}\n'})
    write(tmp_path / "data.zip", data)
    write(tmp_path / "README.md", "---\nlicense: mit\n---\n")
    for pattern in (str(tmp_path), f"hf:{tmp_path}:train"):
        corpus = CorpusSettings(train=(pattern,))
        files = CorpusFiles.find(corpus).files("train")
        assert [document.text for document in read_documents(corpus, files)] == ["en", "to"]
    with pytest.raises(T5smithError, match="a zip archive has no rows to count"):
        CorpusFiles.find(CorpusSettings(train=(f"hf:{tmp_path}:train[:1]",)))
    (tmp_path / "data.zip").unlink()
    write(tmp_path / "data.docx", zipped(OFFICE["a Word document"]))
    corpus = CorpusSettings(train=(str(tmp_path),))
    with pytest.raises(T5smithError, match=r"data\.docx: this is a Word document"):
        list(read_documents(corpus, CorpusFiles.find(corpus).files("train")))


def test_what_is_left_out_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skipped = read(write(tmp_path / "a.zip", zipped({**OTHERS, **MEMBERS})))[1]
    again = SkippedRecords()
    again.merge(json.loads(json.dumps(skipped.facts())))
    again.report()
    text = capsys.readouterr().err
    assert "dropped: side members 6, empty members 2; members: LICENSE, README.md," in text
