"""Text to training windows: t5smith, a `datasets.map` pipeline, the tokenizers library alone.

    .venv/bin/python benchmarks/prepare_vs_datasets.py law-nb.jsonl.xz --tokenizer runs/NAME/vocab

Needs text of your own, in JSON lines with a field `text`; docs/corpora.md names the corpus that its
figures are of. All take turns, each whole in a process of its own but for the bare library, whose texts
are in memory already. All have the same tokenizer and all cores. The pipeline with `datasets` tokenises
in batches, then concatenates the ids and cuts them into windows of 568, as the Flax script for T5 does;
its cache is empty at each turn. Without arguments: the figures that are kept with it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from t5smith.benchmarking.preparing import process_tree_memory
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import dump
from t5smith.text.corpus import find_files
from t5smith.text.documents import read_documents
from t5smith.vocabulary.vocabulary import Vocabulary

DATASETS = """
import sys
from datasets import load_dataset
from transformers import AutoTokenizer
file, tokenizer, cache, cores = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(tokenizer)
data = load_dataset("json", data_files=file, split="train", cache_dir=cache)
def tokenize(examples):
    return tokenizer(examples["text"], return_attention_mask=False)
data = data.map(tokenize, batched=True, num_proc=int(cores), remove_columns=data.column_names)
def group(examples):
    joined = [i for ids in examples["input_ids"] for i in ids]
    length = len(joined) // 568 * 568
    return {"input_ids": [joined[i : i + 568] for i in range(0, length, 568)]}
data = data.map(group, batched=True, num_proc=int(cores), remove_columns=data.column_names)
print(len(data))
"""


def watched(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, int]:
    """Seconds and the most bytes of memory of a command."""
    begun, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=os.environ | (environment or {})
    )
    while process.poll() is None:
        peak = max(peak, process_tree_memory(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(process.stderr.read().decode()[-2000:])  # type: ignore[union-attr]
    return time.perf_counter() - begun, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.file is None:
        print(Path(__file__).with_suffix(".results.json").read_text())
        return
    cores = str(os.cpu_count())
    file, tokenizer = str(arguments.file.absolute()), str(arguments.tokenizer.absolute())
    texts = [d.text for d in read_documents(CorpusSettings(), find_files([file], "file"))]
    size = sum(len(text.encode()) for text in texts)
    vocabulary = Vocabulary.load(arguments.tokenizer)
    seconds: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    for _ in range(arguments.turns):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "run").mkdir()
            (folder / "run" / "vocab").symlink_to(tokenizer)
            recipe = Recipe.model_validate(
                {"name": "bench", "run_dir": folder / "run", "corpus": {"train": [file]}}
            )
            (folder / "bench.toml").write_text(dump(recipe))
            begun = time.perf_counter()
            vocabulary.encode_batch_with_library(texts)
            seconds.setdefault("tokenizers", []).append(time.perf_counter() - begun)
            for name, command in {
                "t5smith": ["-m", "t5smith", "prepare", str(folder / "bench.toml")],
                "datasets": ["-c", DATASETS, file, tokenizer, str(folder / "cache"), cores],
            }.items():
                took, most = watched([sys.executable, *command], {"HF_HOME": str(folder / "home")})
                seconds.setdefault(name, []).append(took)
                memory[name] = max(memory.get(name, 0), most)
                print(f"{name} {took:.2f} s, {most / 1e6:,.0f} MB", file=sys.stderr)
            shutil.rmtree(folder / "cache", ignore_errors=True)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    found = {
        "text_bytes": size,
        "turns": arguments.turns,
        "bytes_per_second": {name: round(size / each) for name, each in medians.items()},
        "times_as_fast": {
            name: round(each / medians["t5smith"], 2) for name, each in medians.items() if name != "t5smith"
        },
        "peak_memory_bytes": memory,
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
