"""Web archives: what is whole is used, what is lost is told, and what is none is refused."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import replace_trafilatura

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan
from t5smith.store.prepare import prepare
from t5smith.text.document import BlockSelection
from t5smith.text.documents import positioned_documents, read_documents
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.train import vocab


def record(text: str, kind: str = "conversion", more: str = "") -> bytes:
    """As Common Crawl writes them."""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\n{more}WARC-Date: 2020-01-01T00:00:00Z\r\n"
        f"Content-Type: text/plain\r\nContent-Length: {len(text.encode())}\r\n\r\n"
    )
    return head.encode() + text.encode() + b"\r\n\r\n"


def read(path: Path, **more: object) -> tuple[list[str], SkippedRecords]:
    skipped = SkippedRecords()
    skipped.strict = bool(more.get("strict"))
    corpus = CorpusSettings.model_validate(more)
    return [document.text for document in read_documents(corpus, [path], skipped=skipped)], skipped


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


TEXTS = [f"dag {i * 7919 % 10_007} og natt {i * 104_729 % 1_000_003}" for i in range(2_000)]


@pytest.mark.parametrize("name", ["a.wet.gz", "a.warc.wet.gz", "a.wet"])
@pytest.mark.parametrize(
    "squeeze",
    [
        lambda records: gzip.compress(b"".join(records)),
        lambda records: b"".join(gzip.compress(one) for one in records),
    ],
    ids=["one stream", "a stream a record"],
)
def test_half_of_an_archive(tmp_path: Path, name: str, squeeze: Callable[[list[bytes]], bytes]) -> None:
    """Also of one whose name does not say that it is compressed."""
    whole = squeeze([record(text) for text in TEXTS])
    assert read(write(tmp_path / name, whole)) == (TEXTS, SkippedRecords())
    path = write(tmp_path / name, whole[: len(whole) // 2])
    texts, skipped = read(path)
    assert 500 < len(texts) < 1_500
    assert texts == TEXTS[: len(texts)]
    assert skipped.counts == {"damaged archive": 1}
    assert f"{path}:{len(texts) + 1}: the archive is cut short or damaged" in skipped.first[0]
    with pytest.raises(T5smithError, match=rf":{len(texts) + 1}: the archive is cut short"):
        read_strictly(path)


def read_strictly(path: Path) -> list[str]:
    return [document.text for document in read_documents(CorpusSettings(strict=True), [path])]


def test_all_that_can_be_unpacked_is_used(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(map(record, TEXTS)))
    path = write(tmp_path / "a.wet.gz", whole[: len(whole) // 2])
    there = zlib.decompressobj(31).decompress(path.read_bytes())
    ends = [len(b"".join(map(record, TEXTS[: i + 1]))) - 4 for i in range(len(TEXTS))]
    assert len(read(path)[0]) == sum(end <= len(there) for end in ends)


def test_a_plain_archive_that_is_cut_anywhere(tmp_path: Path) -> None:
    """Also within the head of a record, and within one that holds no text."""
    texts = ["en dag", "to\r\n\r\nnetter", "tre år"]
    records = [record(texts[0]), record("a: b", "metadata"), *map(record, texts[1:])]
    whole = b"".join(records)
    ends, place = [0], 0
    for one in records:
        place += len(one)
        ends.append(place)
    # Nothing is lost with the line ends behind a record.
    complete = {end - left for end in ends for left in range(5)} | {0}
    for size in range(1, len(whole) + 1):
        path = write(tmp_path / "a.wet", whole[:size])
        number = sum(end - 4 <= size for end in ends[1:])
        expected = [text for text in [texts[0], "", *texts[1:]][:number] if text]
        if not expected:
            with pytest.raises(T5smithError, match=r"a\.wet"):
                read(path)
            continue
        found, skipped = read(path)
        assert found == expected
        counts = {"records without a page": 1} if number > 1 else {}
        assert skipped.counts == counts | ({} if size in complete else {"damaged archive": 1})
        if skipped.faults:
            assert f"a.wet:{number + 1}: the archive is cut short" in skipped.first[0]
            with pytest.raises(T5smithError, match=rf"a\.wet:{number + 1}: "):
                read_strictly(path)


@pytest.mark.parametrize(
    "text",
    ["hei", "Det var en gang en konge\nsom bodde på et slott\n" * 30, "\n\nhei\n", "a b c d 5\nhei\n"],
)
@pytest.mark.parametrize("name", ["a.wet", "a.warc", "a.wet.gz"])
def test_plain_text_is_no_archive(tmp_path: Path, name: str, text: str) -> None:
    data = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    path = write(tmp_path / name, data)
    for reader in (read, read_strictly):
        with pytest.raises(T5smithError) as caught:
            reader(path)
        assert str(caught.value) == (
            f"{path}: damaged, or not what its name says; expected a web archive, which begins with WARC/1.0"
        )


def test_pages_and_other_records(tmp_path: Path) -> None:
    """What is no text is passed over, also where it is cut."""
    picture = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n..."
    address = "WARC-Target-URI: http://a/\r\n"
    records = [
        record("isPartOf: a", "warcinfo"),
        record("GET / HTTP/1.1\r\n\r\n", "request", address),
        record(picture, "response", address),
        record(picture, "response"),
        record("", "response", address),
        record("en dag", more=address),
    ]
    path = write(tmp_path / "a.warc", b"".join(records))
    texts, skipped = read(path, strict=True)
    assert (texts, skipped.counts, skipped.first) == (["en dag"], {"records without a page": 5}, [])
    for left in (0, 9, 40):
        page = records[2][: left - len(picture) - 4]
        texts, skipped = read(write(path, b"".join([*records[:2], records[5], page])))
        assert texts == ["en dag"]
        assert skipped.counts == {"records without a page": 2, "damaged archive": 1}
        assert "a.warc:4: the archive is cut short" in skipped.first[0]


def response(body: bytes, more: str = "", kind: str = "text/html") -> bytes:
    body = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{more}\r\n".encode() + body
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a/\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("meta", "kind"),
    [
        ("", "text/html; charset=ISO-8859-1"),
        ('<meta charset="windows-1252">', "text/html"),
        ('<meta charset="koi8-r">', 'text/html;charset="latin1"'),
        ('<meta charset="latin1">', "text/html; charset=unknown"),
    ],
)
def test_a_page_is_read_in_the_encoding_that_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meta: str, kind: str
) -> None:
    """By the headers of HTTP or by the page, as a page in a file of its own."""
    replace_trafilatura(monkeypatch)
    page = f"<html><head>{meta}</head><body><p>en blå dag</p></body></html>".encode("latin-1")
    undeclared = response(b"<html><body><p>bl\xe5</p></body></html>")
    texts, skipped = read(write(tmp_path / "a.warc", response(page, kind=kind) + undeclared))
    assert (texts, skipped.counts) == (["en blå dag"], {"not UTF-8": 1})


@pytest.mark.parametrize("squeezed", [False, True])
@pytest.mark.parametrize("kind", ["conversion", "response", "encoded"])
def test_a_long_record_takes_no_memory(tmp_path: Path, kind: str, squeezed: bool) -> None:
    # warcio decodes 16 KiB at a time, which may become 16 MiB, and copies them.
    size, most = (80 << 20, 60 << 20) if kind == "encoded" else (20 << 20, 18 << 20)
    body = b"<html><p>" + b"a" * size
    long = {
        "conversion": record("a" * (20 << 20)),
        "response": response(body),
        "encoded": response(gzip.compress(body, 1), "Content-Encoding: gzip\r\n"),
    }[kind]
    data = long + record("en dag")
    path = write(tmp_path / "a.warc", gzip.compress(data) if squeezed else data)
    tracemalloc.start()
    try:
        texts, skipped = read(path, longest_document=1_000)
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
    assert (texts, skipped.counts) == (["en dag"], {"too long": 1})
    assert "a.warc:1: a record is longer than allowed; expected at most 1,000 bytes" in skipped.first[0]


@pytest.mark.parametrize("before", ["", "record", "header", "page"])
def test_a_line_without_end_is_not_read_whole(tmp_path: Path, before: str) -> None:
    """warcio takes time that grows with the square of its length."""
    line = b"x" * (6 << 20)
    head = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a/\r\n"
    data = {
        "": line,
        "record": record("en dag") + line,
        "header": record("en dag") + head + line,
        "page": record("en dag") + head + b"Content-Length: %d\r\n\r\n" % len(line) + line,
    }[before]
    path = write(tmp_path / "a.warc", data)
    tracemalloc.start()
    try:
        if before:
            texts, skipped = read(path)
            assert (texts, skipped.counts.total()) == (["en dag"], 1)
            assert all(len(message) < 500 for message in skipped.first)
        else:
            with pytest.raises(T5smithError, match=r"expected a web archive, which begins with WARC/1.0"):
                read(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_the_damage_belongs_to_one_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tasks read the file, and also where it comes first in its block."""
    monkeypatch.setattr(plan, "MIN_BLOCK_BYTES", 3_000)
    monkeypatch.setattr(plan, "MAX_BLOCK_BYTES", 3_000)
    for number in (30, 31, 32):
        data = b"".join(map(record, TEXTS[:number]))
        path = write(tmp_path / "a.wet", data[:-9])
        for tasks in (1, 5):
            recipe = Recipe.model_validate(
                {
                    "run_dir": tmp_path / f"run{number}-{tasks}",
                    "corpus": {"train": (str(path),), "held_out_fraction": 0.2},
                    "vocab": {"size": 40},
                    "prepare": {"tasks": tasks},
                }
            )
            vocab(recipe)
            left_out = read_manifest(prepare(recipe), "store").facts["skipped_records"]
            assert left_out["counts"] == {"damaged archive": 1}
            assert f"a.wet:{number}: " in left_out["first"][0]
        ends = set()
        for turn in range(5):
            part = BlockSelection(3_000, reader=turn, readers=5)
            *_, (last, _) = positioned_documents(CorpusSettings(), str(path), part, SkippedRecords())
            ends.add(part.block_of(last))
        assert len(ends) == 1


_RECORDS = b"".join(record(text) for text in TEXTS[:30])


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    squeezed=st.booleans(),
    cut=st.integers(0, 3_000),
    flips=st.lists(st.integers(0, 3_000), max_size=3),
)
def test_no_damage_is_a_traceback(
    data: st.DataObject,
    squeezed: bool,
    cut: int,
    flips: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    whole = gzip.compress(_RECORDS, mtime=0) if squeezed else _RECORDS
    damaged = bytearray(whole[: max(len(whole) - cut, 0)])
    for place in flips:
        if place < len(damaged):
            damaged[place] ^= data.draw(st.integers(1, 255))
    name = "a.wet.gz" if squeezed else "a.wet"
    path = write(tmp_path_factory.mktemp("damaged") / name, bytes(damaged))
    try:
        texts, skipped = read(path)
    except T5smithError as error:
        if str(path) in str(error):
            return
        raise
    if squeezed and damaged and len(texts) < 30:
        assert skipped.counts
