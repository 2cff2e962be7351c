"""The forecast of training's time beside the truth: four model sizes × steps, hours and epochs.

    .venv/bin/python benchmarks/forecasts.py [--minutes 4] [--busy 2] [--sizes 1M 77M] [--out FILE]

Each training is a process whose lines are read through a pipe, as a log file would get them: the estimate
before the first step, and the time left once a minute of training has passed. Truth is the moment at which it
ends. The training in hours comes first and decides how long the other two are, so all take about `--minutes`.
`--busy N`: N other processes multiply matrices all the while. Prints a table, and each row as JSON to FILE.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t5smith.base.artifact import read_manifest
from t5smith.base.run_folder import saved_steps
from t5smith.recipe.toml import load_recipe
from t5smith.training.resume.checkpoints import checkpoint_folder
from t5smith.training.setup import Run

RECIPE = "norwegian-tiny"
BATCH = 16
SIZES = {
    "1M": {},
    "8M": {"d_model": 256, "d_ff": 640, "num_layers": 4, "num_decoder_layers": 4, "num_heads": 4},
    "23M": {"d_model": 384, "d_ff": 1024, "num_layers": 6, "num_decoder_layers": 6, "num_heads": 6},
    "77M": {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6},
}
"""The last has the layers of T5-v1.1-small, with the recipe's small vocabulary."""
UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86400}
BUSY = "import numpy as np\na = np.ones((1024, 1024), np.float32)\nwhile True: a = a @ a * 1e-3"


def seconds_of(text: str) -> float | None:
    """The forecast in a line, such as `about 2.4 min on cpu` or `12 s left`; None without one."""
    found = re.search(r"about ([\d.,]+) (s|min|h|days) on |  ([\d.,]+) (s|min|h|days) left", text)
    if not found:
        return None
    number, unit = (group for group in found.groups() if group)
    return float(number.replace(",", "")) * UNITS[unit]


def watch(command: list[str], after: float) -> dict[str, float]:
    """Run a training; the forecasts of its time, in seconds from the first of them, and the truth."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    begun, first, later = time.monotonic(), None, None
    for line in process.stderr:
        now, left = time.monotonic(), seconds_of(line)
        if left is None:
            print(end=line)
        elif first is None:
            begun, first = now, left
        elif later is None and now - begun >= after:
            later = now - begun + left
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed")
    truth = time.monotonic() - begun
    return {"start": first or 0.0, "after_a_minute": later or truth, "truth": truth}


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other processes that compute meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def lengths(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The length of the training in hours, as steps and as epochs."""
    step = saved_steps(folder / "train" / "checkpoints")[-1]
    read_manifest(checkpoint_folder(folder / "train" / "checkpoints", step), "checkpoint")
    setup = Run(load_recipe(RECIPE).replace(**settings | {"train.steps": step})).setup
    windows = setup.store.train.window_count(setup.objective.window)
    return {"steps": step, "epochs": round(step * BATCH / windows, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument(
        "--after", type=float, default=60.0, help="seconds of training before the second forecast"
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        base = Path(place) / "base"
        t5smith = [sys.executable, "-m", "t5smith"]
        for verb in ("vocab", "prepare"):
            subprocess.run([*t5smith, verb, RECIPE, "--run-dir", base], check=True, stdout=subprocess.DEVNULL)
        with busy(args.busy):
            for size in args.sizes:
                wanted: dict[str, Any] = {"hours": round(args.minutes / 60, 4)}
                for name in ("hours", "steps", "epochs"):
                    folder = Path(place) / f"{size}-{name}"
                    shutil.copytree(base, folder)
                    settings = {"run_dir": str(folder), "train.batch_size": BATCH}
                    settings["train.schedule.warmup_steps"] = 1  # also of a training of few steps
                    settings |= {f"model.{key}": value for key, value in SIZES[size].items()}
                    given = settings | {f"train.{name}": wanted[name]}
                    flags = [f"--{key.replace('_', '-')}={value}" for key, value in given.items()]
                    row = {"size": size, "length": f"{wanted[name]} {name}", "busy": args.busy}
                    row |= watch([*t5smith, "train", RECIPE, *flags], args.after)
                    rows.append(row)
                    if name == "hours":
                        wanted |= lengths(folder, settings)
                    if args.out:
                        with args.out.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(row) + "\n")
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown; in brackets, how far a forecast is from the truth."""
    lines = [
        "| size | length | at the start, s | after a minute, s | truth, s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        shown = [f"{row[at]:.0f} ({row[at] / row['truth'] - 1:+.0%})" for at in ("start", "after_a_minute")]
        lines.append(f"| {row['size']} | {row['length']} | {' | '.join(shown)} | {row['truth']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
