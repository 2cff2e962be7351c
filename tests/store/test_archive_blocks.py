"""The store of an archive: the same for any number of tasks and after a stop, and that of its files."""

from __future__ import annotations

import gzip
import json
import lzma
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_agreement import blocks as _blocks
from test_agreement import files, lines
from test_agreement import make as _make
from test_plan import packed, table, texts

from archives import tarred, zipped
from t5smith.base.artifact import read_manifest
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.store import prepare as module
from t5smith.store.prepare import prepare
from t5smith.text.document import BlockSelection
from t5smith.text.documents import positioned_documents
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.compare import compare_vocabularies

Make = Callable[..., Recipe]
blocks, make = _blocks, _make


def irregular() -> dict[str, bytes]:
    """Members of several blocks with unusable records, and members that are not read between them."""
    rows: list[dict[str, object]] = [{"text": t} if i % 3 else {"id": i} for i, t in enumerate(texts(1, 90))]
    return {
        "README.md": b"x" * 1_500,
        "a.jsonl": lines(rows),
        "inner.zip": zipped({"a.txt": b"x" * 2_000}),
        "b.txt": b"\n\n".join(t.encode() if i % 4 else b"bl\xe5" for i, t in enumerate(texts(2, 60))),
        "c.pdf": b"%PDF-1.7" + b"x" * 3_000,
        "d.csv": table(texts(3, 60)) + b"1,2,3\n" * 20,
        "empty.txt": b"",
        "e.jsonl.gz": lines([{"text": t} for t in texts(4, 60)], compressed=True),
    }


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def flipped(data: bytes) -> bytes:
    place = len(data) * 2 // 3
    return data[:place] + bytes([data[place] ^ 8]) + data[place + 1 :]


LEFT = {"f.csv": b"id,dato\n" + b"1,2\n" * 2_000}
"""A table of several blocks that is left after its first line."""


def left_tar() -> bytes:
    data = tarred(irregular() | LEFT)
    return data[: data.rindex(b"1,2\n") - 999]


def left_zip() -> bytes:
    return zipped({**LEFT, **irregular()}, "stored").replace(b"1,2\n1", b"1,2\n7", 1)


def cut_behind_a_member() -> bytes:
    """A compressed tar that ends between the data of a member and the next block of 512 bytes."""
    data = tarred({**irregular(), "g.txt": b"en\n\n" * 1_100})
    return gzip.compress(data, 0, mtime=0)[: 15 + data.rindex(b"en\n\n") + 4 + 20]


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "a.zip": lambda: zipped(irregular()),
    "a.tar": lambda: tarred(irregular()),
    "file.zip": lambda: zipped(irregular()),
    "a.tar.xz": lambda: lzma.compress(tarred(irregular())),
    "behind.tgz": cut_behind_a_member,
    "left.tar": left_tar,
    "left.zip": left_zip,
    "cut.zip": lambda: cut(zipped(irregular(), "stored")),
    "cut-deflated.zip": lambda: cut(zipped(irregular())),
    "cut.tar": lambda: cut(tarred(irregular())),
    "cut.tar.gz": lambda: cut(gzip.compress(tarred(irregular()), 0, mtime=0)),
    "flipped.zip": lambda: flipped(zipped(irregular())),
    "flipped.tgz": lambda: flipped(gzip.compress(tarred(irregular()), mtime=0)),
}


def stop_with_every_third_block(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave an unfinished store of which every third block is done."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "finish_store", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe)
    (notes,) = (recipe.folder / "store.notes").iterdir()
    for number, note in enumerate(sorted((notes / "shards").glob("*.json"))):
        if number % 3:
            note.unlink()
    (notes / "ends" / "00000").unlink(missing_ok=True)
    for done in (notes / "completed").iterdir():
        done.unlink()


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", ARCHIVES)
def test_the_store_is_the_same_for_any_number_of_tasks_and_after_a_stop(
    tmp_path: Path,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(module, "IN_PROCESS_BYTES", 1 << 20)
    file = tmp_path / name
    file.write_bytes(ARCHIVES[name]())
    document = "file" if name.startswith("file") else "block"
    one = make(file, name="one", **{"prepare.tasks": 1, "corpus.document": document})
    store = files(prepare(one))
    assert len(json.loads(store["shards.json"])["train"]) > 5
    eight = one.replace(**{"run_dir": str(tmp_path / "eight"), "prepare.tasks": 8})
    (tmp_path / "eight").mkdir()
    (tmp_path / "eight" / "vocab").symlink_to(one.folder / "vocab")
    stopped = one.replace(**{"run_dir": str(tmp_path / "stopped"), "prepare.tasks": 3})
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "vocab").symlink_to(one.folder / "vocab")
    assert files(prepare(eight)) == store
    stop_with_every_third_block(stopped, monkeypatch)
    assert files(prepare(stopped)) == store


@pytest.mark.parametrize("name", ARCHIVES)
def test_all_readers_agree_on_the_end(tmp_path: Path, name: str) -> None:
    """Otherwise they would write different numbers of shards."""
    file = tmp_path / name
    file.write_bytes(ARCHIVES[name]())
    ends: set[int] = set()
    for reader in range(20):
        part = BlockSelection(500, reader=reader, readers=20)
        placed = positioned_documents(CorpusSettings(), str(file), part, SkippedRecords())
        ends.add(max(part.block_of(place) for place, _ in placed))
    assert len(ends) == 1


def ids(store: Path, split: str) -> bytes:
    return b"".join(file.read_bytes() for file in sorted((store / split).glob("*.bin")))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("kind", ["deflated", "tar"])
def test_the_store_is_that_of_the_files_in_the_archive(tmp_path: Path, make: Make, kind: str) -> None:
    file = tmp_path / f"a.{kind}"
    file.write_bytes(packed(texts(1, 200), kind))
    names = [f"{tmp_path}/x/{name}" for name in unpack(file, tmp_path / "x") if name != "README.md"]
    recipe = make(*names, name="files")
    folder = prepare(recipe)
    other = recipe.replace(**{"run_dir": str(tmp_path / "archive"), "corpus.train": (str(file),)})
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "vocab").symlink_to(recipe.folder / "vocab")
    archive = prepare(other)
    for split in ("train", "valid"):
        assert ids(archive, split) == ids(folder, split) != b""


def unpack(file: Path, into: Path) -> list[str]:
    if file.suffix == ".tar":
        with tarfile.open(file) as tar:
            tar.extractall(into, filter="data")
            return tar.getnames()
    with zipfile.ZipFile(file) as archive:
        archive.extractall(into)
        return archive.namelist()


def test_a_compressed_member_is_of_several_blocks(tmp_path: Path) -> None:
    """Its headers state its stored size, but its documents have positions in what is unpacked."""
    file = tmp_path / "a.tar"
    file.write_bytes(tarred({"a.txt.xz": lzma.compress("\n\n".join(texts(1, 2_000)).encode())}))
    whole = BlockSelection(2_000)
    placed = positioned_documents(CorpusSettings(), str(file), whole, SkippedRecords(strict=True))
    found = Counter(whole.block_of(place) for place, document in placed if document is not None)
    assert found.total() == 2_000
    assert len(found) > 4
    assert max(found.values()) < 1_000


def test_the_manifest_counts_every_member(tmp_path: Path, make: Make) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.zip").write_bytes(zipped(irregular()))
    (folder / "b.txt").write_text("en\n\nto")
    facts: dict[str, Any] = read_manifest(prepare(make(folder)), "store").facts
    found = {Path(file).name: own for file, own in facts["input_files"]["records"].items()}
    assert found == {
        "a.zip": {
            "documents": 60 + 45 + 60 + 60,
            "skipped": {
                "empty members": 1,
                "nested archives": 1,
                "no text": 30,
                "not UTF-8": 15,
                "side members": 1,
                "unreadable members": 1,
                "wrong number of fields": 20,
            },
        },
        "b.txt": {"documents": 2, "skipped": {}},
    }
    assert facts["skipped_records"]["members"] == [
        f"{folder}/a.zip/{name}" for name in ("README.md", "empty.txt")
    ]
    assert facts["input_files"]["formats"] == {"text": 1, "zip": 1}


def test_dropped_documents_are_shown_with_their_member(tmp_path: Path, make: Make) -> None:
    """In the examples of cleaning and of duplicates, which know documents by their place alone."""
    members = {f"{n}.txt": b"\n\n".join([b"en dag %d" % n, b"samme tekst", b"no %d" % n]) for n in range(9)}
    file = tmp_path / "a.zip"
    file.write_bytes(zipped(members))
    steps = {"cleaning.steps": ("length", "exact_duplicates"), "cleaning.length.min_characters": 6}
    facts: dict[str, Any] = read_manifest(prepare(make(file, **steps)), "store").facts
    places = [{one["place"] for one in step["examples"]} for step in facts["cleaning"]]
    assert places[0] == {f"{file}/{n}.txt:5" for n in range(9)}
    assert places[1] == {f"{file}/1.txt:3"}


def test_vocabularies_are_compared_on_archives(tmp_path: Path, make: Make) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(zipped({"a.txt": b"\n\n".join(t.encode() for t in texts(1, 60))}))
    found = compare_vocabularies(make(file), ("bytes",))
    assert found.words > 0
