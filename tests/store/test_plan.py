"""The plan, and that the store does not depend on how the work is distributed, for all kinds of files."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan as module
from t5smith.store.plan import Plan
from t5smith.store.prepare import prepare
from t5smith.text.compression import compression_suffix
from t5smith.text.corpus import CorpusFiles
from t5smith.text.document import WHOLE_FILE, BlockSelection
from t5smith.text.documents import positioned_documents, read_documents
from t5smith.text.recognition import RANDOM_ACCESS, file_format, is_splittable
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.train import vocab

SQUEEZE: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: zstandard.compress(data[:99]) + zstandard.compress(data[99:]),
}


def rows(texts: list[str]) -> bytes:
    return "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)).encode()


def table(texts: list[str], delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([["id", "text"], *([i, text] for i, text in enumerate(texts))])
    return out.getvalue().encode()


def columns(texts: list[str]) -> pa.Table:
    return pa.table({"id": range(len(texts)), "text": texts})


def parquet_file(texts: list[str]) -> bytes:
    out = io.BytesIO()
    parquet.write_table(columns(texts), out, row_group_size=7)
    return out.getvalue()


def arrow_file(texts: list[str]) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_file(out, columns(texts).schema) as writer:
        writer.write_table(columns(texts), max_chunksize=5)
    return out.getvalue()


def arrow_stream(texts: list[str]) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, columns(texts).schema) as writer:
        writer.write_table(columns(texts), max_chunksize=5)
    return out.getvalue()


def wet(texts: list[str]) -> bytes:
    """As in Common Crawl: each record is compressed separately."""
    records: list[bytes] = []
    for i, text in enumerate(texts):
        head = (
            f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://a/{i}\r\n"
            f"WARC-Record-ID: <urn:uuid:{i}>\r\nWARC-Date: 2020-01-01T00:00:00Z\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(text.encode())}\r\n\r\n"
        )
        records.append(gzip.compress(head.encode() + text.encode() + b"\r\n\r\n"))
    return b"".join(records)


def wiki(texts: list[str]) -> bytes:
    """A dump as MediaWiki exports it, whose pages have no title."""
    pages = "".join(
        f"  <page>\n    <title />\n    <ns>0</ns>\n    <revision>\n"
        f"      <text>{escape(text)}</text>\n    </revision>\n  </page>\n"
        for text in texts
    )
    return f"<mediawiki>\n{pages}</mediawiki>\n".encode()


def packed(texts: list[str], kind: str) -> bytes:
    """An archive of files of several formats, whose documents are the texts in order; some are compressed."""
    makers = (
        ("a.txt", lambda t: "\n\n".join(t).encode()),
        ("deep/b.jsonl", rows),
        ("c.csv", table),
        ("d.parquet", parquet_file),
        ("e.arrow", arrow_stream),
        ("f.jsonl.gz", lambda t: gzip.compress(rows(t))),
        ("wiki", wiki),
        ("g.warc.wet.gz", wet),
        ("h.tsv.xz", lambda t: lzma.compress(table(t, "\t"))),
        ("AA/wiki_00", wiki_docs),
        ("part-0", rows),
    )
    size = -(-len(texts) // len(makers))
    members = [
        ("README.md", b"no text"),
        *((name, make(texts[i * size : (i + 1) * size])) for i, (name, make) in enumerate(makers)),
    ]
    out = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    else:
        method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(out, "w", method) as file:
            for name, data in members:
                file.writestr(name, data)
    return out.getvalue()


def wiki_docs(texts: list[str]) -> bytes:
    """As WikiExtractor writes them, without titles."""
    docs = (
        f'<doc id="{i}" url="http://a/{i}" title="">\n\n\n{escape(t)}\n\n</doc>\n'
        for i, t in enumerate(texts)
    )
    return "".join(docs).encode()


def kinds() -> list[tuple[str, Callable[[list[str]], bytes], dict[str, str]]]:
    lines: list[tuple[str, Callable[[list[str]], bytes], dict[str, str]]] = []
    for ending, squeeze in SQUEEZE.items():
        lines += [
            (f"a.txt{ending}", lambda t, s=squeeze: s("\n\n".join(t).encode()), {}),
            (f"b.txt{ending}", lambda t, s=squeeze: s("\n".join(t).encode()), {"document": "line"}),
            (f"c.jsonl{ending}", lambda t, s=squeeze: s(rows(t)), {}),
            (f"d.csv{ending}", lambda t, s=squeeze: s(table(t)), {}),
            (f"j.xml{ending}", lambda t, s=squeeze: s(wiki(t)), {}),
            (f"k_00{ending}", lambda t, s=squeeze: s(wiki_docs(t)), {}),
            (f"f.parquet{ending}", lambda t, s=squeeze: s(parquet_file(t)), {}),
            (f"g.arrow{ending}", lambda t, s=squeeze: s(arrow_file(t)), {}),
            (f"h.arrow{ending}", lambda t, s=squeeze: s(arrow_stream(t)), {}),
            (f"k.tar{ending}", lambda t, s=squeeze: s(packed(t, "tar")), {}),
        ]
    lines += [
        ("e.tsv", lambda t: table(t, "\t"), {}),
        ("i.warc.wet.gz", wet, {}),
        ("l.zip", lambda t: packed(t, "deflated"), {}),
        ("m.zip", lambda t: packed(t, "stored"), {}),
        ("n.zip.gz", lambda t: gzip.compress(packed(t, "deflated")), {}),
    ]
    return lines


def texts(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    return [
        " ".join(
            draw.choice(["det", "er", "en", "dag", "natt", "år", "1,5", '"ja"'])
            for _ in range(draw.randint(1, 30))
        )
        + f" nr {i}"
        for i in range(count)
    ]


@pytest.mark.parametrize(("name", "make", "more"), kinds(), ids=[name for name, *_ in kinds()])
def test_every_block_is_read_by_one_task(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    make: Callable[[list[str]], bytes],
    more: dict[str, str],
) -> None:
    monkeypatch.setattr(module, "MIN_BLOCK_BYTES", 256)
    monkeypatch.setattr(module, "MAX_BLOCK_BYTES", 256)
    # Incompressible text, so that there are several blocks on disk.
    written = [*texts(1, 60), *(f"{random.Random(i).getrandbits(900):x}" for i in range(40))]
    file = tmp_path / name
    file.write_bytes(make(written))
    corpus = CorpusSettings.model_validate({"train": (str(file),), **more})
    assert [document.text for document in read_documents(corpus, [file])] == written
    plan = Plan.create(CorpusFiles.find(corpus))
    (unit,) = plan.units
    # A compressed table must be decompressed before it is read.
    unpacked = file_format(corpus, name) in RANDOM_ACCESS and bool(compression_suffix(name))
    assert (unit.blocks is None) is not (
        is_splittable(corpus, name) or file_format(corpus, name) == "parquet" or unpacked
    )
    for tasks in (1, 2, 3, 8):
        found: list[tuple[int, str, str]] = []
        skipped = SkippedRecords(strict=True)
        for rank in range(tasks):
            for work in plan.assignments(tasks, rank):
                for place, document in positioned_documents(corpus, str(file), work.part, skipped):
                    if document is not None:
                        assert work.part.includes(work.part.block_of(place))
                        found.append((work.part.block_of(place), document.text, document.where))
        # Blocks follow each other, and documents are in order within each.
        found.sort(key=lambda entry: entry[0])
        assert [text for _, text, _ in found] == written
        assert (
            len({block for block, *_ in found}) == 1 if unpacked else len({block for block, *_ in found}) > 3
        )
        if tasks == 1:
            one = found
        assert found == one


@settings(deadline=None)
@given(
    lines=st.lists(st.sampled_from(["", " ", "\t\u00a0", "a", "bc", "d e f", "æøå" * 5]), min_size=1),
    ends=st.sampled_from(["\n", "\r\n"]),
    unit=st.integers(1, 30),
    kind=st.sampled_from(["block", "line"]),
)
def test_a_text_may_be_split_at_any_byte(
    lines: list[str], ends: str, unit: int, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("cut") / "a.txt"
    file.write_bytes(ends.join(lines).encode())
    corpus = CorpusSettings.model_validate({"document": kind})

    def read(part: BlockSelection) -> list[tuple[str, str]]:
        placed = positioned_documents(corpus, str(file), part, SkippedRecords(strict=True))
        return [(document.text, document.where) for _, document in placed if document is not None]

    size = file.stat().st_size
    parted = [read(BlockSelection(unit, start, start + unit)) for start in range(0, size, unit)]
    assert [entry for part in parted for entry in part] == read(WHOLE_FILE)
    turns = [read(BlockSelection(unit, reader=turn, readers=3)) for turn in range(3)]
    assert sorted(entry for part in turns for entry in part) == sorted(read(WHOLE_FILE))


def store_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("squeezed", [False, True])
def test_the_store_is_the_same_for_any_number_of_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, squeezed: bool
) -> None:
    monkeypatch.setattr(module, "MIN_BLOCK_BYTES", 1_000)
    monkeypatch.setattr(module, "MAX_BLOCK_BYTES", 1_000)
    one = tmp_path / ("a.jsonl.xz" if squeezed else "a.jsonl")
    one.write_bytes(SQUEEZE[".xz" if squeezed else ""](rows(texts(1, 300))))
    (tmp_path / "small").mkdir()
    for i, text in enumerate(texts(2, 40)):
        (tmp_path / "small" / f"{i:02}.txt").write_text(text)
    made: list[dict[str, bytes]] = []
    for tasks in (1, 8):
        recipe = Recipe.model_validate(
            {
                "run_dir": tmp_path / f"run{tasks}",
                "corpus": {
                    "train": (f"x={one}", f"y={tmp_path}/small"),
                    "held_out_fraction": 0.2,
                },
                "vocab": {"size": 60},
                "prepare": {"tasks": tasks},
            }
        )
        vocab(recipe)
        made.append(store_files(prepare(recipe)))
    assert made[0].keys() == made[1].keys()
    assert made[0] == made[1]
    assert len(json.loads(made[0]["shards.json"])["train"]) > 5


def test_small_files_are_grouped(tmp_path: Path) -> None:
    for i in range(2_000):
        (tmp_path / f"{i}.txt").write_text("en dag")
    plan = Plan.create(CorpusFiles.find(CorpusSettings(train=(str(tmp_path),))))
    assert [len(unit.files) for unit in plan.units] == [2_000]
    assert Plan.read(_saved(tmp_path, plan)) == plan


@pytest.mark.parametrize(("total", "block"), [(400, 100), (401, 200), (1_700, 800), (90_000, 800)])
def test_blocks_grow_with_the_corpus_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, block: int
) -> None:
    monkeypatch.setattr(module, "MIN_BLOCK_BYTES", 100)
    monkeypatch.setattr(module, "MAX_BLOCK_BYTES", 800)
    monkeypatch.setattr(module, "TARGET_BLOCKS", 4)
    (tmp_path / "a.txt").write_bytes(b"x" * total)
    plan = Plan.create(CorpusFiles.find(CorpusSettings(train=(str(tmp_path / "a.txt"),))))
    assert [(unit.block_bytes, unit.blocks) for unit in plan.units] == [(block, -(-total // block))]


def test_blocks_depend_only_on_the_text_before_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_BLOCK_BYTES", 100)
    monkeypatch.setattr(module, "MAX_BLOCK_BYTES", 800)
    monkeypatch.setattr(module, "TARGET_BLOCKS", 4)
    for name, size in (("a", 300), ("b", 60), ("c", 60), ("d", 500), ("e", 5_000), ("f", 90), ("g", 900)):
        (tmp_path / f"{name}.txt").write_bytes(b"x" * size)
    files = sorted(str(file) for file in tmp_path.iterdir())
    plans = [Plan.create(CorpusFiles.find(CorpusSettings(train=tuple(files[:n])))) for n in (1, 4, 5, 6, 7)]
    for before, after in itertools.pairwise(plans):
        assert after.units[: len(before.units)] == before.units
    assert [unit.block_bytes for unit in plans[-1].units] == [100, 0, 400, 800, 0, 800]


@pytest.mark.parametrize("tasks", [1, 2, 3, 7])
def test_work_is_distributed_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: int) -> None:
    """Also beside a compressed file, which counts as more text than it has bytes."""
    monkeypatch.setattr(module, "MIN_BLOCK_BYTES", 1_000)
    monkeypatch.setattr(module, "MAX_BLOCK_BYTES", 1_000)
    (tmp_path / "a.txt").write_bytes(b"x" * 60_000)
    (tmp_path / "b.txt.gz").write_bytes(b"\x1f\x8b\x08" + b"x" * 1_997)
    plan = Plan.create(CorpusFiles.find(CorpusSettings(train=(str(tmp_path),))))
    loads: list[int] = []
    for rank in range(tasks):
        load = 0
        for one in plan.assignments(tasks, rank):
            compressed = one.unit.blocks is None
            load += 8_000 // one.part.readers if compressed else one.unit.bytes // (one.unit.blocks or 1)
        loads.append(load)
    assert max(loads) - min(loads) <= 1_000
    assert sum(loads) == pytest.approx(68_000, abs=tasks)


def _saved(folder: Path, plan: Plan) -> Path:
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    return folder / "plan.json"


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt.xz", "a.csv.gz"])
def test_skipped_records_are_counted_in_their_own_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Otherwise a resumed run would count them twice."""
    monkeypatch.setattr(module, "MIN_BLOCK_BYTES", 300)
    monkeypatch.setattr(module, "MAX_BLOCK_BYTES", 300)
    lines: list[bytes] = []
    for i in range(400):
        good = b'{"text": "dag %d"}' % (i * 7919) if "jsonl" in name else b"dag %d, %d" % (i, i * 7919)
        lines += [good, b"\xff bad"] if i % 3 else [good]
    between = b"\n\n" if "txt" in name else b"\n"
    data = between.join([b"id,text", *lines] if "csv" in name else lines)
    file = tmp_path / name
    file.write_bytes(SQUEEZE["." + name.rpartition(".")[2]](data) if name != "a.jsonl" else data)
    notes: list[dict[str, str]] = []
    for tasks in (1, 5):
        recipe = Recipe.model_validate(
            {
                "run_dir": tmp_path / f"run{tasks}",
                "corpus": {"train": (str(file),), "held_out_fraction": 0.2},
                "vocab": {"size": 40},
                "prepare": {"tasks": tasks},
            }
        )
        vocab(recipe)
        folder = prepare(recipe).with_name("store.shards")
        notes.append({note.name: note.read_text() for note in (folder / "shards").glob("*.json")})
    assert notes[0] == notes[1]
    assert (
        sum(sum(json.loads(note)["skipped_records"]["counts"].values()) for note in notes[0].values()) == 266
    )
