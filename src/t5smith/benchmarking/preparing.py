"""The speed of `prepare`, beside that of the tokenizers library on the same documents."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.base.progress import info
from t5smith.benchmarking.checks import check_at_least_one
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import dump
from t5smith.text.corpus import find_files
from t5smith.text.documents import read_documents
from t5smith.text.files import SAMPLES
from t5smith.vocabulary.train import vocab
from t5smith.vocabulary.vocabulary import Vocabulary

BYTES = 50_000_000
"""The bundled text is repeated up to this size."""
PIECES = 8_000
HELD_OUT = 0.1
"""Large enough that a few documents of the bundled text are held out."""
POLL_SECONDS = 0.02


def bench_prepare(
    input: Sequence[str] = (),  # noqa: A002  # what the flag is called
    tokenizer: Path | None = None,
    tasks: int = 0,
    repeats: int = 3,
) -> dict[str, Any]:
    """UTF-8 bytes of text per second of `t5smith prepare` and of `encode_batch_fast`, in alternation.

    The command is timed from start to end, with the start of Python: reading, splitting, tokenizing, writing,
    hashing. The library is timed on a list of texts in memory, on all cores; its ids are thrown away.

    Args:
      input: files, folders or globs. Default: the bundled Norwegian text, repeated. Repetition favours a
        tokenizer with a cache of words: use your own text for meaningful figures.
      tokenizer: folder with a tokenizer.json. Default: 8,000 pieces are trained on the text.
      tasks: `prepare.tasks`; 0: one per core.
      repeats: the number of measurements of each.

    Raises:
      T5smithError: no text, or settings out of range.
    """
    check_at_least_one(repeats=repeats)
    with tempfile.TemporaryDirectory(prefix="t5smith-bench-") as place:
        folder = Path(place)
        names = tuple(str(Path(name).absolute()) if os.path.exists(name) else name for name in input)
        corpus = CorpusSettings(train=names or (_bundled(folder),), held_out_fraction=HELD_OUT)
        vocabulary = _set_up(folder, corpus, tokenizer, tasks)
        texts = [document.text for document in read_documents(corpus, find_files(corpus.train, "--input"))]
        size = sum(len(text.encode()) for text in texts)
        ours: list[float] = []
        theirs: list[float] = []
        peak = 0
        for turn in range(repeats):
            begun = time.perf_counter()
            vocabulary.encode_batch_with_library(texts)
            theirs.append(time.perf_counter() - begun)
            seconds, memory = _prepare(folder)
            ours.append(seconds)
            peak = max(peak, memory)
            info(f"bench     {turn + 1}/{repeats}: prepare {seconds:.2f} s, tokenizers {theirs[-1]:.2f} s")
    return {
        "bytes_per_second": round(size / statistics.median(ours)),
        "tokenizer_bytes_per_second": round(size / statistics.median(theirs)),
        "ratio": round(statistics.median(theirs) / statistics.median(ours), 3),
        "peak_memory_bytes": peak,
        "text_bytes": size,
        "documents": len(texts),
        "repeats": repeats,
    }


def _set_up(folder: Path, corpus: CorpusSettings, tokenizer: Path | None, tasks: int) -> Vocabulary:
    """Write `bench.toml` and make or link its vocabulary."""
    recipe = Recipe.model_validate(
        {
            "name": "bench",
            "run_dir": folder / "run",
            "corpus": corpus.model_dump(),
            "vocab": {"size": PIECES, "sample_bytes": 10_000_000},
            "prepare": {"tasks": tasks},
        }
    )
    if tokenizer is None:
        info(f"bench     training {PIECES:,} pieces")
        vocab(recipe)
    else:
        (folder / "run").mkdir()
        (folder / "run" / "vocab").symlink_to(tokenizer.absolute())
    (folder / "bench.toml").write_text(dump(recipe), encoding="utf-8")
    return Vocabulary.load(folder / "run" / "vocab")


def _bundled(folder: Path) -> str:
    """A file of JSON lines with the bundled text, repeated."""
    lines: list[str] = []
    for path in sorted((SAMPLES / "norwegian").glob("*.txt.xz")):
        for block in lzma.decompress(path.read_bytes()).decode().split("\n\n"):
            lines.append(json.dumps({"text": block}, ensure_ascii=False) + "\n")
    data = "".join(lines).encode()
    file = folder / "bundled.jsonl"
    with file.open("wb") as out:
        for _ in range(-(-BYTES // len(data))):
            out.write(data)
    return str(file)


def _prepare(folder: Path) -> tuple[float, int]:
    """The seconds of one run of the command, and the peak memory of it and its tasks in bytes."""
    command = [sys.executable, "-m", "t5smith", "prepare", str(folder / "bench.toml")]
    with tempfile.TemporaryFile() as errors:
        shutil.rmtree(folder / "run" / "store", ignore_errors=True)
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        peak = [0]
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(POLL_SECONDS):
                peak[0] = max(peak[0], process_tree_memory(process.pid))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        code = process.wait()
        seconds = time.perf_counter() - begun
        ended.set()
        thread.join()
        if code:
            errors.seek(0)
            raise T5smithError(f"prepare failed: {errors.read().decode(errors='replace')[-500:]}")
    return seconds, peak[0]


def process_tree_memory(root: int) -> int:
    """Memory of a process and its descendants in bytes, shared pages counted once; 0 if it is unknown."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for pid in family:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
