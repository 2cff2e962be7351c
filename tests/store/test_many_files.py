"""Many shards and many files: few descriptors, few opens, and one line if a limit is reached."""

from __future__ import annotations

import collections
import errno
import os
import resource
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from t5smith.base.disk import disk_errors, limit_error
from t5smith.base.errors import T5smithError
from t5smith.cli.main import main
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan
from t5smith.store.prepare import prepare
from t5smith.store.shards import Shards
from t5smith.store.token_store import TokenStore
from t5smith.store.workspace import Workspace
from t5smith.text.corpus import CorpusFiles
from t5smith.text.documents import MOST_ENDINGS, check_first_documents

MakeRecipe = Callable[..., Recipe]

_counted: collections.Counter[str] | None = None


def _count(event: str, arguments: tuple[object, ...]) -> None:
    if _counted is not None and event in ("open", "os.listdir", "os.scandir"):
        _counted[f"{event} {arguments[0]}"] += 1


sys.addaudithook(_count)


@contextmanager
def counted() -> Generator[collections.Counter[str]]:
    """Counts how often each file is opened and each folder is listed."""
    global _counted
    _counted = collections.Counter()
    try:
        yield _counted
    finally:
        _counted = None


@contextmanager
def descriptors(more: int) -> Generator[None]:
    """Limits this process to the descriptors that are open and some more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/dev/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def many(tmp_path: Path, recipe: MakeRecipe) -> Recipe:
    """A recipe of sixty small files."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(60):
        text = "\n\n".join(f"det er dag {number} og natt {i}" for i in range(8))
        (folder / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    return recipe(train=(str(folder),))


def test_more_shards_than_descriptors(many: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MIN_BLOCK_BYTES", 100)
    monkeypatch.setattr(plan, "TARGET_BLOCKS", 1 << 20)
    with counted() as opened, descriptors(more=24):
        store = TokenStore.open(prepare(many))
        tokens = store.train.tokens
        assert isinstance(tokens, Shards)
        assert len(tokens.files) > 60 > tokens.mapped
        ids = np.concatenate([np.fromfile(file, tokens.dtype) for file, _ in tokens.files])
        assert tokens.tolist() == ids.tolist()
    notes = str(Workspace.beside(many.folder / "store").notes)
    listed = sum(number for name, number in opened.items() if notes in name and name.endswith("/shards"))
    assert listed == 1, "the folder of notes is listed once per task, not once per shard"


def test_maps_leave_room_beside_descriptors_in_use(tmp_path: Path) -> None:
    """As with a loader that holds hundreds of files: a quarter of the limit may be more than is left."""
    for number in range(20):
        np.full(3, number, "<u2").tofile(tmp_path / f"{number}.bin")
    files = [(str(tmp_path / f"{number}.bin"), 3) for number in range(20)]
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(open(tmp_path / "0.bin", "rb"))
        stack.enter_context(descriptors(more=13))
        shards = Shards(files, np.dtype("<u2"))
        assert shards.mapped == 4
        assert shards.tolist() == [number for number in range(20) for _ in range(3)]


def test_a_file_is_opened_to_hash_to_recognize_and_to_read_it(many: Recipe) -> None:
    with counted() as opened:
        prepare(many)
    for file in (many.folder.parent / "texts").iterdir():
        assert opened[f"open {file}"] <= 3
    with counted() as opened:
        prepare(many)
    for file in (many.folder.parent / "texts").iterdir():
        assert opened[f"open {file}"] <= 1


def test_the_check_before_the_start_reads_few_of_many_parts(tmp_path: Path, recipe: MakeRecipe) -> None:
    for number in range(MOST_ENDINGS + 20):
        (tmp_path / "parts").mkdir(exist_ok=True)
        (tmp_path / "parts" / f"part.{number:05d}").write_text("en tekst", encoding="utf-8")
    files = CorpusFiles.find(recipe().corpus.model_copy(update={"train": (str(tmp_path / "parts"),)}))
    with counted() as opened:
        check_first_documents(files)
    assert sum("part." in name for name in opened) == MOST_ENDINGS


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/a/b"), "/a/b: this process has opened"),
        (OSError(errno.ENFILE, "Too many open files"), "this system has opened as many files as it may"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory ran out"),
        (MemoryError(), "memory ran out"),
    ],
)
def test_a_limit_is_one_line(error: Exception, words: str) -> None:
    assert words in str(limit_error(error))
    with pytest.raises(T5smithError, match=words), disk_errors(Path("/c")):
        raise error
    assert limit_error(OSError(errno.EIO, "Input/output error")) is None


def test_the_command_line_says_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files", "a.txt")

    monkeypatch.setattr("t5smith.cli.verbs.run_verb", fail)
    assert main(["prepare"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(
        "t5smith: error: a.txt: this process has opened as many files as it may. Raise"
    )
