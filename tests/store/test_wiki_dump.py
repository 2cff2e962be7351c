"""A MediaWiki dump becomes the same store for any number of tasks, and after a kill."""

from __future__ import annotations

import bz2
import json
import signal
import subprocess
from pathlib import Path

import pytest

from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan as module
from t5smith.store import prepare as prepare_module
from t5smith.store.prepare import prepare
from t5smith.store.tasks import executors
from t5smith.vocabulary.train import vocab


def dump() -> bytes:
    """400 pages, of which every fourth is a redirect and every tenth broken."""
    pages: list[str] = []
    for i in range(400):
        redirect = "<redirect />" if i % 4 == 1 else ""
        end = "</revision>" if i % 10 else ""
        text = f"'''Nr {i * 7919}''' er [[tall|tallet]] {i * 104_729}.{{{{stubb}}}}"
        head = f"<title>Side {i}</title>\n<ns>0</ns>{redirect}\n"
        pages.append(f"<page>\n{head}<revision><text>{text}</text>{end}\n</page>\n")
    return f"<mediawiki>\n{''.join(pages)}</mediawiki>\n".encode()


def store_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.mark.parametrize("name", ["nowiki.xml", "nowiki.xml.bz2"])
def test_the_store_is_the_same_for_any_number_of_tasks_and_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    unit = 3_000 if name.endswith(".xml") else 1_000
    monkeypatch.setattr(module, "MIN_BLOCK_BYTES", unit)
    monkeypatch.setattr(module, "MAX_BLOCK_BYTES", unit)
    data = dump()
    pieces = [data[i : i + 4_000] for i in range(0, len(data), 4_000)]
    (tmp_path / name).write_bytes(data if name.endswith(".xml") else b"".join(map(bz2.compress, pieces)))
    start = executors._start

    def start_and_kill(notes: Path, tasks: int, rank: int) -> subprocess.Popen[bytes]:
        process = start(notes, tasks, rank)
        if rank == 1:
            process.send_signal(signal.SIGKILL)
        return process

    made: list[dict[str, bytes]] = []
    for tasks, kill in ((1, False), (8, False), (3, True)):
        recipe = Recipe.model_validate(
            {
                "run_dir": tmp_path / f"run{tasks}",
                "corpus": {"train": (str(tmp_path / name),), "held_out_fraction": 0.2},
                "vocab": {"size": 60},
                "prepare": {"tasks": tasks},
            }
        )
        vocab(recipe)
        if kill:
            with monkeypatch.context() as patch:
                patch.setattr(prepare_module, "IN_PROCESS_BYTES", 0)
                patch.setattr(executors, "_start", start_and_kill)
                with pytest.raises(T5smithError, match="a task was killed by signal 9"):
                    prepare(recipe)
        store = prepare(recipe)
        facts = json.loads((store / "manifest.json").read_text())["facts"]
        # Pages in = documents + counted.
        assert facts["skipped_records"]["counts"] == {"broken XML": 40, "redirects": 100}
        assert sum(facts[split]["documents"] for split in ("train", "valid")) == 260
        made.append(store_files(store))
    assert made[0] == made[1] == made[2]
    assert len(json.loads(made[0]["shards.json"])["train"]) > 5
