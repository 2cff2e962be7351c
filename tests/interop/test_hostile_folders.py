"""Folders that are damaged, cut short, foreign or malicious are refused in one line, and do nothing."""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
import tracemalloc
from pathlib import Path

import hostile
import jax
import pytest

from programs import init
from t5smith.base.errors import T5smithError
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_names import from_huggingface
from t5smith.interop.huggingface_save import write_model
from t5smith.interop.model import Model
from t5smith.interop.source import Source
from t5smith.interop.spiece.model_file import write_spiece
from t5smith.model.config import ModelConfig
from t5smith.vocabulary.import_tokenizer import import_tokenizer
from t5smith.vocabulary.vocabulary import Vocabulary

ROOM = 400_000_000
"""Bytes of addresses that reading a folder of some kilobytes may take."""
MOST = 50_000_000
"""Bytes that it may take in Python and numpy."""
ACTIONS = (
    *("exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove"),
    *("os.rename", "os.mkdir", "subprocess.Popen", "socket.connect", "socket.getaddrinfo", "shutil.rmtree"),
)
watched: list[str] | None = None


def watch(event: str, arguments: tuple) -> None:
    if watched is None:
        return
    place = {"compile": arguments[-1:], "exec": arguments[:1]}.get(event, [None])[0]
    if os.path.isfile(getattr(place, "co_filename", place) or ""):
        return  # a module of Python or of t5smith, which is needed for the first time
    if event in ACTIONS or (event == "open" and any(mark in str(arguments[1] or "") for mark in "wax+")):
        watched.append(f"{event} {str(arguments)[:200]}")


sys.addaudithook(watch)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A small folder that can be read."""
    folder = tmp_path_factory.mktemp("good") / "model"
    folder.mkdir()
    vocabulary = import_tokenizer("bytes").vocabulary
    config = ModelConfig(vocabulary.size, vocabulary.size, 8, 4, 16, 1, 1, 2)
    write_model(folder, Model(init(config, jax.random.key(0)), config, vocabulary), model_max_length=64)
    pieces = tmp_path_factory.mktemp("pieces")
    write_spiece(pieces, Vocabulary.bundled())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hostile, "PIECES", (pieces / "spiece.model").read_bytes())
        yield folder


def read(folder: Path) -> None:
    """All that is read of a model to continue from it."""
    source = Source.find(str(folder))
    if source.is_t5x:
        from_huggingface(source.tensors, source.config(ModelConfig(1, 384, 1, 1, 1, 1, 1, 1)))
    else:
        load_model(folder)


def watched_read(folder: Path) -> tuple[str, list[str], int]:
    """Read a folder with little memory: the error, what else was done, and the most bytes at a time."""
    global watched
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, hard))
    tracemalloc.start()
    watched = done = []
    try:
        read(folder)
        message = ""
    except T5smithError as error:
        message = str(error)
    finally:
        watched = None
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return message, done, peak


def test_there_are_more_than_forty():
    assert len(hostile.CASES) > 100


def test_the_folder_itself_is_read(good):
    assert watched_read(good)[0] == ""


@pytest.mark.parametrize("name", hostile.CASES)
def test_it_is_refused_with_the_reason_and_does_nothing(good, tmp_path, monkeypatch, name):
    change, reason = hostile.CASES[name]
    folder = shutil.copytree(good, tmp_path / "folder")
    change(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    message, done, peak = watched_read(folder)
    assert re.search(reason, message), message
    assert "\n" not in message
    assert len(message) < 600
    assert done == []
    assert peak < MOST
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
