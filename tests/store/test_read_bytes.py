"""Progress of reading is a true fraction of the bytes of the files, for all kinds of files and any task."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from test_plan import kinds

from stores import MakeRecipe
from t5smith.base.artifact import read_manifest
from t5smith.base.progress import Bar, progress
from t5smith.recipe.corpus import CorpusSettings
from t5smith.store import plan as plan_module
from t5smith.store import prepare as prepare_module
from t5smith.store.plan import Plan
from t5smith.store.prepare import prepare
from t5smith.text import documents
from t5smith.text.compression import compression_suffix
from t5smith.text.corpus import CorpusFiles
from t5smith.text.documents import read_documents
from t5smith.text.fingerprints import bytes_to_read
from t5smith.text.read_bytes import ReadBytes


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts that no compression makes small."""
    draw = random.Random(seed)
    return [f"nr {i} {draw.getrandbits(2400):x}" for i in range(count)]


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report every byte, and read from files in small pieces."""
    monkeypatch.setattr(documents, "PROGRESS_BYTES", 1)
    for module in ("compression", "decompression", "archives.member", "archives.reading"):
        monkeypatch.setattr(f"t5smith.text.{module}._BUFFER", 1 << 10)


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize(("name", "make", "more"), kinds(), ids=[name for name, *_ in kinds()])
def test_progress_within_a_file_is_that_of_its_documents(
    tmp_path: Path, name: str, make: Callable[[list[str]], bytes], more: dict[str, str]
) -> None:
    written = texts(400)
    file = tmp_path / name
    file.write_bytes(make(written))
    corpus = CorpusSettings.model_validate({"train": (str(file),), **more})
    amounts: list[int] = []
    seen: list[float] = []
    for _ in read_documents(corpus, [file], amounts.append):
        seen.append(sum(amounts) / file.stat().st_size)
    assert sum(amounts) == file.stat().st_size
    assert min(amounts) > 0
    # Formats and compressed files are read in pieces, bzip2 in very large ones, members of archives whole.
    room = {".bz2": 1.0, ".zst": 0.6}.get(compression_suffix(name), 0.2 if name[0] in "klmn" else 0.1)
    for number, share in enumerate(seen, 1):
        assert abs(share - number / len(written)) <= room, (number, share)


def test_a_range_of_rows_counts_as_what_is_read_of_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "ds"
    folder.mkdir()
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(400)))
    corpus = CorpusSettings(train=(f"hf:{folder}:train[10%:25%]",))
    files = CorpusFiles.find(corpus).files("train")
    assert bytes_to_read(files[0]) == -(-file.stat().st_size // 4)
    amounts: list[int] = []
    assert len(list(read_documents(corpus, files, amounts.append))) == 60
    assert sum(amounts) == bytes_to_read(files[0])
    (unit,) = Plan.create(CorpusFiles.find(corpus)).units
    assert (unit.bytes, unit.read) == (file.stat().st_size, sum(amounts))


def test_a_share_is_reported_once_and_whole() -> None:
    amounts: list[int] = []
    read = ReadBytes(100, amounts.append, 0.5)
    for amount in (50, 10, 300, 7):
        read.add(amount)
    assert amounts == [25, 5, 70]
    read.finish()
    assert sum(amounts) == 100
    early = ReadBytes(100, amounts.append)
    early.add(1)
    early.finish()
    assert amounts[-2:] == [1, 99]
    unknown = ReadBytes(0, amounts.append)
    unknown.add(7)
    unknown.finish()
    assert amounts[-1] == 7


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """The bars of `prepare`."""
    found: list[Bar] = []

    @contextlib.contextmanager
    def noted(title: str, total: int | None, unit: str) -> Generator[Bar]:
        with progress(title, total, unit) as bar:
            found.append(bar)
            yield bar

    monkeypatch.setattr(prepare_module, "progress", noted)
    return found


NAMES = ("a.txt", "a.txt.xz", "c.jsonl.gz", "f.parquet", "g.arrow", "f.parquet.zst")


@pytest.mark.parametrize("tasks", [1, 5])
def test_the_bar_of_prepare_counts_each_file_once(
    recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bars: list[Bar], tasks: int
) -> None:
    monkeypatch.setattr(plan_module, "MIN_BLOCK_BYTES", 1 << 14)
    monkeypatch.setattr(plan_module, "MAX_BLOCK_BYTES", 1 << 14)
    makers = {name: make for name, make, _ in kinds()}
    files = [tmp_path / name for name in NAMES]
    for number, file in enumerate(files):
        file.write_bytes(makers[file.name](texts(150, number)))
    size = sum(file.stat().st_size for file in files)
    settings = recipe().replace(
        **{"corpus.train": tuple(map(str, files)), "corpus.valid": (), "prepare.tasks": tasks}
    )

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(prepare_module, "finish_store", fail)
        with pytest.raises(ZeroDivisionError):
            prepare(settings)
    folder = prepare(settings)
    facts = read_manifest(folder, "store").facts
    first, resumed = bars
    for bar in bars:
        assert bar.total is not None
        assert size - 100 < bar.total <= size
        assert bar.done == bar.total
    assert first.start == 0
    assert resumed.start == resumed.total
    assert first.notes["documents"] == str(facts["train"]["documents"] + facts["valid"]["documents"])
    assert first.notes["rate"].endswith(" MB/s of text")
    assert resumed.notes["rate"] == ""
