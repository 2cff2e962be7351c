"""What is set before JAX starts."""

import os
from pathlib import Path

import pytest

from t5smith.cli.environment import (
    COMPILATION_CACHE_BYTES,
    KEPT_FROM_SECONDS,
    MALLOC,
    TUNABLES,
    restart_with_huge_pages,
    set_compilation_cache,
)


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """The folder for caches, with no cache of programs set."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_MAX_SIZE", raising=False)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "")
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    return tmp_path / "caches"


def test_compiled_programs_are_kept_where_caches_go(caches, monkeypatch):
    set_compilation_cache()
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert folder.is_dir()
    assert folder.parent == caches / "t5smith"
    assert int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) == COMPILATION_CACHE_BYTES
    # A program that takes half a second is kept too.
    assert float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]) == KEPT_FROM_SECONDS < 0.5
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    set_compilation_cache()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine"


def test_without_a_cache_folder_nothing_is_kept(caches):
    caches.write_text("no folder")
    set_compilation_cache()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@pytest.mark.parametrize(
    ("args", "restarts"),
    [
        (["run", "norwegian-tiny"], True),
        (["train"], True),
        (["bench", "train"], True),
        (["train", "--help"], False),
        (["train", "--help-all"], False),
        (["bench", "input"], False),
        (["prepare"], False),
        (["finetune", "my.toml"], True),
        ([], False),
    ],
)
def test_the_process_restarts_with_huge_pages_only_to_train(args, restarts, monkeypatch):
    started: list[dict[str, str]] = []
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(os, "execve", lambda program, argv, environment: started.append(environment))
    monkeypatch.delenv(TUNABLES, raising=False)
    restart_with_huge_pages(args)
    assert [environment[TUNABLES] for environment in started] == ([MALLOC] if restarts else [])
    monkeypatch.setenv(TUNABLES, "mine")
    restart_with_huge_pages(args)
    assert len(started) == restarts
