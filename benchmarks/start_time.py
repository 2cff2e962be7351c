"""Seconds from nothing to the first training step, cold and warm, for a 1.9 M model and T5-v1.1-small.

    .venv/bin/python benchmarks/start_time.py [--before PATH] [--repeats 3] [--models 1.9M t5-v1.1-small]

The command `t5smith train` in processes of their own, on a prepared run folder, with the machine otherwise
calm. A start is cold with an empty folder for compiled programs, and warm with the one that the cold start
filled. The time ends when the first step is done: when its loss is on the host. `--before` names another
source tree, whose starts alternate with those of this one. The last line is a JSON object: all seconds, and
their medians.
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

HERE = Path(__file__).resolve().parents[1]
MODELS = {
    "1.9M": {
        "objective.input_length": 64,
        "train.batch_size": 16,
        "model.d_model": 128,
        "model.d_kv": 64,
        "model.d_ff": 352,
        "model.num_layers": 3,
        "model.num_decoder_layers": 3,
        "model.num_heads": 2,
    },
    "t5-v1.1-small": {
        "objective.input_length": 512,
        "train.batch_size": 8,
        "train.precision": "bfloat16",
        "model.vocab_multiple": 32_128,
        "model.d_model": 512,
        "model.d_kv": 64,
        "model.d_ff": 1024,
        "model.num_layers": 8,
        "model.num_decoder_layers": 8,
        "model.num_heads": 6,
    },
}
"""Settings on top of norwegian-tiny. The second has the 32,128 rows of T5's vocabulary for 2,100 pieces."""
CHILD = """
import os, sys
from t5smith.cli import main
from t5smith.cli.environment import restart_with_huge_pages

# As the command does: before anything large is imported.
restart_with_huge_pages(sys.argv[1:])

from t5smith.training.loop import Loop

record = Loop.record

def first(loop, metrics):
    import jax, time
    jax.block_until_ready(metrics)
    os.write(int(os.environ["FIRST_STEP"]), repr(time.time()).encode())
    os._exit(0)

Loop.record = first
sys.exit(main.main())
"""


def started(tree: Path, run: Path, cache: Path, changes: dict[str, object]) -> float:
    """Seconds from the start of a process to the end of its first step."""
    shutil.rmtree(run / "train", ignore_errors=True)
    (run / "decided.json").unlink(missing_ok=True)
    flags = [f"--{name}={value}" for name, value in changes.items()]
    reading, writing = os.pipe()
    child = run.parent / "child.py"
    child.write_text(CHILD)
    environment = os.environ | {
        "PYTHONPATH": str(tree / "src"),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "FIRST_STEP": str(writing),
    }
    command = [
        sys.executable,
        str(child),
        "train",
        "norwegian-tiny",
        f"--run-dir={run}",
        "--train.steps=1000",
    ]
    begun = time.time()
    finished = subprocess.run(
        [*command, *flags], env=environment, pass_fds=[writing], check=False, capture_output=True, text=True
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        ended = pipe.read()
    if not ended:
        raise SystemExit(finished.stderr)
    return float(ended) - begun


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, help="another source tree")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    trees = {"now": HERE} | ({"before": options.before.resolve()} if options.before else {})
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        for stage in ("vocab", "prepare"):
            command = [sys.executable, "-m", "t5smith", stage, "norwegian-tiny", f"--run-dir={run}"]
            subprocess.run(command, env=os.environ | {"PYTHONPATH": str(HERE / "src")}, check=True)
        for repeat in range(options.repeats):
            for model in options.models:
                for tree, path in trees.items():
                    cache = Path(folder) / f"programs-{repeat}-{model}-{tree}"
                    for kind in ("cold", "warm"):
                        took = started(path, run, cache, MODELS[model])
                        print(f"{model} {tree} {kind} {took:.2f} s", file=sys.stderr, flush=True)
                        seconds.setdefault(f"{model} {tree} {kind}", []).append(round(took, 2))
                    shutil.rmtree(cache, ignore_errors=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(json.dumps({"seconds": seconds, "medians": medians}))


if __name__ == "__main__":
    main()
