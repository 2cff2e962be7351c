"""Which optimizer and rate learn most in the same minutes on this machine: what the defaults are chosen by.

    .venv/bin/python benchmarks/default_optimizer.py FOLDER --corpus ../shared/corpora/norec-train.jsonl.xz

Two sizes, the minutes of --minutes, each optimizer with three rates, and the best two with three seeds. First
the seconds per step of all optimizers are measured, taking turns; then each trial takes as many steps as fit
into the minutes at that speed, so other work on the machine does not change its result. Each trial is a line
of FOLDER/results.jsonl and is not done again; at the end the table is printed. Without arguments the table is
of the trials kept beside this script.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import t5smith
from t5smith.cli.environment import MALLOC, TUNABLES
from t5smith.objective.batches import EvaluationBatches, prefetched
from t5smith.recipe.recipe import Recipe
from t5smith.training.compile import compiled
from t5smith.training.eval_step import create_scorer, token_classes, total
from t5smith.training.setup import Run
from t5smith.training.step import create_step

SIZES = {
    "3M": {"d_model": 128, "d_kv": 64, "d_ff": 256, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 2},
    "10M": {
        "d_model": 256,
        "d_kv": 64,
        "d_ff": 512,
        "num_layers": 4,
        "num_decoder_layers": 4,
        "num_heads": 4,
    },
}
RATES = {
    "adafactor": (0.02, 0.04, 0.08),
    "muon_adafactor": (0.02, 0.04, 0.08),
    "adamwscale": (0.025, 0.05, 0.1),
    "muon": (0.002, 0.004, 0.008),
}
SCHEDULE = {"adamwscale": "cosine"}
"""The others have wsd."""
SEEDS = (0, 1, 2)
WINDOWS = 512
KEPT = Path(__file__).with_suffix(".results.jsonl")


class Study:
    """The trials done so far, and the means to do more."""

    def __init__(self, file: Path, folder: Path | None = None, corpus: Path | None = None) -> None:
        self.file, self.folder, self.corpus = file, folder, corpus
        self.done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @cached_property
    def base(self) -> Recipe:
        """The run that all trials share; its vocabulary and store are made."""
        recipe = Recipe.model_validate(
            {
                "name": "default-optimizer",
                "run_dir": self.folder / "run" if self.folder else None,
                "corpus": {"train": (str(self.corpus),)},
                "vocab": {"size": 8_000, "sample_bytes": 20_000_000},
                "objective": {"input_length": 128},
                "model": SIZES["10M"],
                "train": {"batch_size": 32, "precision": "bfloat16", "steps": 1_000},
            }
        )
        t5smith.vocab(recipe)
        t5smith.prepare(recipe)
        return recipe

    def recipe(self, size: str, optimizer: str, rate: float, steps: int, seed: int) -> Recipe:
        """The recipe of one trial."""
        return self.base.replace(
            **{
                "seed": seed,
                "train.steps": steps,
                "train.optimizer.name": optimizer,
                "train.optimizer.learning_rate": rate,
                "train.schedule.name": SCHEDULE.get(optimizer, "wsd"),
                **{f"model.{name}": value for name, value in SIZES[size].items()},
            }
        )

    def seconds(self, size: str) -> dict[str, float]:
        """Seconds per step by optimizer, medians of several turns."""
        for row in self.done:
            if row["size"] == size and "seconds_per_step" in row:
                return row["seconds_per_step"]
        taken: dict[str, list[float]] = {name: [] for name in RATES}
        trials = {name: Trial(self.recipe(size, name, RATES[name][0], 1_000, 0)) for name in RATES}
        for trial in trials.values():
            trial.run(10)
        for _ in range(7):
            for name, trial in trials.items():
                begun = time.perf_counter()
                trial.run(20)
                taken[name].append((time.perf_counter() - begun) / 20)
        medians = {name: round(statistics.median(values), 5) for name, values in taken.items()}
        self.keep({"size": size, "seconds_per_step": medians})
        return medians

    def trial(self, size: str, minutes: float, optimizer: str, rate: float, seed: int = 0) -> dict[str, Any]:
        """One training, unless it was done before."""
        what = {"size": size, "minutes": minutes, "optimizer": optimizer, "rate": rate, "seed": seed}
        for row in self.done:
            if all(row.get(name) == value for name, value in what.items()):
                return row
        steps = round(60 * minutes / self.seconds(size)[optimizer])
        trial = Trial(self.recipe(size, optimizer, rate, steps, seed))
        trial.run(steps)
        return self.keep(what | {"steps": steps, "nll": round(trial.nll(), 4)})

    def keep(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add a line to the file."""
        self.done.append(row)
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        return row

    def run(self, sizes: list[str], minutes: list[float], optimizers: list[str]) -> None:
        """All trials."""
        for length in minutes:
            for size in sizes:
                for optimizer in optimizers:
                    for rate in RATES[optimizer]:
                        self.trial(size, length, optimizer, rate)
                best = sorted(optimizers, key=lambda name: self.best(size, length, name)["nll"])
                for optimizer in best[:2]:
                    for seed in SEEDS[1:]:
                        self.trial(size, length, optimizer, self.best(size, length, optimizer)["rate"], seed)

    def best(self, size: str, minutes: float, optimizer: str) -> dict[str, Any]:
        """The trial of the lowest loss with the first seed."""
        what = {"size": size, "minutes": minutes, "optimizer": optimizer, "seed": 0}
        rows = [row for row in self.done if all(row.get(name) == value for name, value in what.items())]
        return min(rows, key=lambda row: row["nll"])


class Trial:
    """A model in training."""

    def __init__(self, recipe: Recipe) -> None:
        self.setup = setup = Run(recipe).setup
        step = create_step(setup.config, setup.optimizer, setup.schedule, setup.step_settings)
        self.step = compiled(step.lower(setup.abstract_state(), setup.abstract_batch()))
        self.state = setup.fresh_program()()
        steps = recipe.train.steps
        self.batches = prefetched(setup.batches(), 0, max(steps, 1_000), ahead=2, workers=0)

    def run(self, steps: int) -> None:
        """Take some steps."""
        for _ in range(steps):
            self.state, _ = self.step(self.state, next(self.batches))
        self.state.step.block_until_ready()

    def nll(self) -> float:
        """The held-out NLL of text tokens, in nats."""
        setup = self.setup
        score = create_scorer(setup.config, token_classes(setup.vocabulary), setup.compute)
        fixed = EvaluationBatches(setup.store.valid, setup.objective, 64, 1, np.arange(WINDOWS))
        return float(total(score(self.state.eval_params, fixed)).text.per_token()["nll"])


def report(study: Study) -> None:
    """The table of docs/optimizers.md."""
    cells = sorted({(row["size"], row["minutes"]) for row in study.done if "nll" in row})
    print(
        "| size, minutes | optimizer | s/step | steps | NLL by rate, first seed | other seeds at the best |"
    )
    print("|---|---|---|---|---|---|")
    for size, minutes in cells:
        for optimizer in RATES:
            rows = [
                row
                for row in study.done
                if (row["size"], row.get("minutes"), row.get("optimizer")) == (size, minutes, optimizer)
            ]
            if not rows:
                continue
            best = study.best(size, minutes, optimizer)
            each = ", ".join(
                f"{row['rate']:g}: " + (f"**{row['nll']:.3f}**" if row is best else f"{row['nll']:.3f}")
                for row in sorted(rows, key=lambda row: row["rate"])
                if row["seed"] == 0
            )
            others = ", ".join(f"{row['nll']:.3f}" for row in rows if row["seed"])
            seconds, steps = study.seconds(size)[optimizer], best["steps"]
            print(f"| {size}, {minutes:g} | {optimizer} | {seconds:.3f} | {steps:,} | {each} | {others} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where trials are kept")
    parser.add_argument("--corpus", type=Path, help="text to train on")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 15])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--optimizers", nargs="+", choices=RATES, default=list(RATES))
    arguments = parser.parse_args()
    if arguments.folder is None:
        report(Study(KEPT))
        return
    if arguments.corpus is None:
        parser.error("--corpus is needed to train")
    if TUNABLES not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {TUNABLES: MALLOC})
    arguments.folder.mkdir(parents=True, exist_ok=True)
    study = Study(arguments.folder / "results.jsonl", arguments.folder, arguments.corpus)
    study.run(arguments.sizes, arguments.minutes, arguments.optimizers)
    report(study)


if __name__ == "__main__":
    main()
