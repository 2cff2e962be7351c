"""A vocabulary by `t5smith vocab` and one by sentencepiece's own trainer, on the same text.

    .venv/bin/python benchmarks/vocab_vs_sentencepiece.py law-nb.jsonl.xz law-nn.jsonl.xz norec-train.jsonl.xz

Needs text of your own; docs/corpora.md names the corpora that its figures are of. Each trainer runs in
a process of its own. Printed: seconds, most memory, and on held-out text bytes per token, tokens per
word and the share of unknown pieces. Without arguments: the figures that are kept with it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from t5smith.benchmarking.preparing import process_tree_memory
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import dump
from t5smith.text.corpus import CorpusFiles
from t5smith.text.documents import split_documents
from t5smith.vocabulary.sample import chunks
from t5smith.vocabulary.vocabulary import Vocabulary

SENTENCEPIECE = """
import sentencepiece, sys
sentencepiece.SentencePieceTrainer.train(
    input=sys.argv[1], model_prefix=sys.argv[2], vocab_size=int(sys.argv[3]), model_type="unigram",
    normalization_rule_name="nfkc", character_coverage=1.0, max_sentencepiece_length=16, num_threads=2,
    pad_id=0, eos_id=1, unk_id=2, bos_id=-1, max_sentence_length=100_000, train_extremely_large_corpus=False,
    minloglevel=2,
)
"""


def watched(command: list[str]) -> tuple[float, int]:
    """Seconds and the most bytes of memory of a command."""
    begun, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, process_tree_memory(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{command[:3]} failed with {process.returncode}")
    return time.perf_counter() - begun, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpora", nargs="*")
    parser.add_argument("--size", type=int, default=32_000)
    parser.add_argument("--sample-bytes", type=int, default=1_000_000_000)
    arguments = parser.parse_args()
    if not arguments.corpora:
        print(Path(__file__).with_suffix(".results.json").read_text())
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        recipe = Recipe.model_validate(
            {
                "name": "bench",
                "run_dir": folder / "run",
                "corpus": {"train": [str(Path(name).absolute()) for name in arguments.corpora]},
                "vocab": {"size": arguments.size, "sample_bytes": arguments.sample_bytes},
            }
        )
        files = CorpusFiles.find(recipe.corpus)
        (folder / "bench.toml").write_text(dump(recipe))
        with (folder / "text").open("w", encoding="utf-8") as file:
            for document in split_documents(files, "train"):
                for chunk in chunks(document.text):
                    file.write(" ".join(chunk.split()) + "\n")
        ours = watched([sys.executable, "-m", "t5smith", "vocab", str(folder / "bench.toml")])
        theirs = watched(
            [
                sys.executable,
                "-c",
                SENTENCEPIECE,
                str(folder / "text"),
                str(folder / "sp"),
                str(arguments.size),
            ]
        )
        import sentencepiece

        # sentencepiece has no piece for a line break and would call each unknown.
        held = [" ".join(document.text.split()) for document in split_documents(files, "valid")]
        size, words = sum(len(text.encode()) for text in held), sum(len(text.split()) for text in held)
        vocabulary = Vocabulary.load(folder / "run")
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sp.model"))
        found = {}
        for name, (seconds, memory), ids, unk in (
            ("t5smith", ours, vocabulary.encode_batch(held), vocabulary.unk_id),
            ("sentencepiece", theirs, processor.encode(held), processor.unk_id()),
        ):
            tokens = sum(map(len, ids))
            found[name] = {
                "seconds": round(seconds, 1),
                "peak_memory_bytes": memory,
                "bytes_per_token": round(size / tokens, 4),
                "tokens_per_word": round(tokens / words, 4),
                "unknown_rate": round(sum(row.count(unk) for row in ids) / tokens, 7),
            }
        found["ratio_bytes_per_token"] = round(
            found["t5smith"]["bytes_per_token"] / found["sentencepiece"]["bytes_per_token"], 4
        )
        found["held_out_bytes"] = size
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
