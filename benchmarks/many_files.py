"""Whether many shards and many files need many descriptors, much memory or much time.

    .venv/bin/python benchmarks/many_files.py [SHARDS] [FILES] [GB]

Trains a vocabulary, prepares, prepares again, opens the store, computes the order of one epoch and reads its
windows: of one text in SHARDS shards (5,000), and of FILES files (20,000). Descriptors are limited to 256 and
the address space of every process to 4 GB. Prints a JSON object per case: seconds of each step, the largest
resident memory of a process in MB, the number of descriptors that the open store holds, and the counts.

Then the start of GB gigabytes (50) of empty bytes, in files of 64 MiB and in a single one: the seconds until
all files are found and known by their hashes, or times of change, in a first and a second process.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import t5smith
from t5smith.objective.order import WindowOrder
from t5smith.recipe.corpus import CorpusSettings
from t5smith.store import plan
from t5smith.store.shards import Shards
from t5smith.store.token_store import TokenStore
from t5smith.text.corpus import CorpusFiles
from t5smith.text.fingerprints import MAX_HASHED_BYTES, SETTLED_NS

DESCRIPTORS, ADDRESS_SPACE = 256, 4 << 30
BLOCK_BYTES = 8 << 10
"""Size of a block if the number of shards is to be large."""
WINDOW = 128
DOCUMENT = "Dette er dokument {} av mange, og det handler om {} og {}.\n\n"
"""At most 80 bytes, so a block has about a hundred of them."""


def write_text(folder: Path, size: int, files: int) -> None:
    """Write about `size` bytes of different documents to a number of files, a thousand a folder."""
    documents = max(size // len(DOCUMENT.format(1, 2, 3)), files)
    for file in range(files):
        path = folder / f"{file // 1000:03d}" / f"{file:06d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        numbers = range(file * documents // files, (file + 1) * documents // files)
        path.write_text("".join(DOCUMENT.format(i, i * 7919 % 10_007, i * 31 % 97) for i in numbers))


def measure(folder: Path, many_shards: bool) -> dict[str, Any]:
    """Run all steps in this process and its tasks, whose limits are set."""
    if many_shards:
        plan.MIN_BLOCK_BYTES = BLOCK_BYTES
        plan.TARGET_BLOCKS = 1 << 30
    recipe = t5smith.load_recipe("norwegian-tiny").replace(
        **{
            "run_dir": folder / "run",
            "corpus.train": (str(folder / "text"),),
            "corpus.valid": (),
            "corpus.held_out_fraction": 0.05,
            "vocab.size": 500,
            "vocab.sample_bytes": 200_000,
        }
    )
    facts: dict[str, Any] = {}

    def timed(name: str, result: Any) -> Any:
        nonlocal start
        facts[name], start = round(time.perf_counter() - start, 2), time.perf_counter()
        return result

    start = time.perf_counter()
    timed("vocab", t5smith.vocab(recipe))
    store = timed("prepare", t5smith.prepare(recipe))
    timed("prepare_again", t5smith.prepare(recipe))
    train = timed("open", TokenStore.open(store)).train
    order = WindowOrder(train.corpora, [1], WINDOW, seed=0)
    windows = order.windows_per_epoch()
    starts = timed("order", order.starts(np.arange(windows)))
    tokens = sum(train.windows_at(starts[i : i + WINDOW], WINDOW).size for i in range(0, windows, WINDOW))
    timed("read", tokens)
    assert isinstance(train.tokens, Shards)
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return facts | {
        "million_tokens_read_per_second": round(tokens / facts["read"] / 1e6, 1) if facts["read"] else None,
        "peak_mb": max(usage) >> 10,
        "descriptors": len(os.listdir("/proc/self/fd")) if Path("/proc").is_dir() else None,
        "shards": len(train.tokens.files),
        "mapped": train.tokens.mapped,
        "windows": windows,
    }


def run_case(shards: int, files: int) -> dict[str, Any]:
    """Write a text, and measure in a process of its own with small limits."""
    folder = Path(tempfile.mkdtemp())
    try:
        write_text(folder / "text", max(shards * BLOCK_BYTES, files * 2_000), files)
        child = subprocess.run(
            [sys.executable, __file__, "--measure", str(folder), str(shards)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            preexec_fn=_limit,
        )
        return {"case": f"{shards:,} shards" if shards else f"{files:,} files"} | json.loads(child.stdout)
    finally:
        shutil.rmtree(folder)


def start(folder: Path) -> float:
    """Seconds until the files of a folder are known."""
    begun = time.perf_counter()
    CorpusFiles.find(CorpusSettings(train=(str(folder),))).inputs()
    return round(time.perf_counter() - begun, 2)


def run_start(gigabytes: int, file_bytes: int) -> dict[str, Any]:
    """Start twice with sparse files, which take no space."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "text")
        folder.mkdir()
        files = max((gigabytes << 30) // file_bytes, 1)
        for number in range(files):
            with (folder / f"{number:05d}.txt").open("wb") as file:
                file.truncate(file_bytes)
        time.sleep(2 * SETTLED_NS / 1e9)  # the hashes of newer files are not kept
        seconds = [
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--start", str(folder)],
                    env=os.environ | {"XDG_CACHE_HOME": name},
                    stdout=subprocess.PIPE,
                    check=True,
                    preexec_fn=_limit,
                ).stdout
            )
            for _ in range(2)
        ]
    case = f"{gigabytes} GB in {files:,} files"
    return {"case": case, "first_start": seconds[0], "second_start": seconds[1]}


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), sys.argv[3] != "0")))
    elif sys.argv[1:2] == ["--start"]:
        print(start(Path(sys.argv[2])))
    else:
        shards, files, gigabytes = [*map(int, sys.argv[1:]), *(5_000, 20_000, 50)[len(sys.argv) - 1 :]]
        print(json.dumps(run_case(shards, 1)), flush=True)
        print(json.dumps(run_case(0, files)), flush=True)
        print(json.dumps(run_start(gigabytes, MAX_HASHED_BYTES)), flush=True)
        print(json.dumps(run_start(gigabytes, gigabytes << 30)), flush=True)
