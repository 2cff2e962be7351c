"""Which optimizer and schedule reach the lowest held-out loss: a small T5 on Norwegian law.

    .venv/bin/python benchmarks/optimizers.py FOLDER --corpus ../shared/corpora/law-nb.jsonl.xz

Four stages: a learning rate for each optimizer, with the same number of tries; the warm-up-stable-decay
schedule at the best of them; three seeds of the finalists; and the finalists in 60 % of the steps. All runs
have the same model, batches, steps and warm-up. Each is a line of FOLDER/results.jsonl with its curve, and is
not done again; at the end the tables are printed and FOLDER/curves.png is drawn. Without arguments the tables
are those of the trials kept beside this script.

It needs a corpus that is not bundled with t5smith (`--corpus`, JSON lines or plain text) and some hours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import t5smith
from t5smith.objective.batches import EvaluationBatches, prefetched
from t5smith.recipe.recipe import Recipe
from t5smith.training.eval_step import create_scorer, token_classes, total
from t5smith.training.setup import Run
from t5smith.training.step import create_step

STEPS, WARMUP, EVERY, WINDOWS = 1_000, 50, 50, 256
SHORT = 0.6
PEER = ("adamwscale", "cosine")
"""What nanoT5 found best: the one to beat."""
SWEEP = {
    ("adafactor", "inverse_sqrt"): (0.01, 0.02, 0.04, 0.08),
    ("adamw", "cosine"): (0.001, 0.002, 0.004, 0.008),
    PEER: (0.01, 0.02, 0.04, 0.08),
    ("muon", "cosine"): (0.002, 0.004, 0.008, 0.016),
    ("muon_adafactor", "cosine"): (0.02, 0.04, 0.06),
}
WSD_RATE = {"muon_adafactor": 0.04}
"""Where not the best of the sweep: this one was tried first, at Adafactor's best."""
SEEDS = (0, 1, 2)
KEPT = Path(__file__).parent


def recipe(folder: Path, corpus: Path) -> Recipe:
    """The run that all trials share."""
    return Recipe.model_validate(
        {
            "name": "optimizers",
            "run_dir": folder / "run",
            "corpus": {"train": (str(corpus),)},
            "vocab": {"size": 4_000, "sample_bytes": 20_000_000},
            "objective": {"input_length": 64},
            "model": {
                "d_model": 128,
                "d_kv": 64,
                "d_ff": 256,
                "num_layers": 3,
                "num_decoder_layers": 3,
                "num_heads": 2,
            },
            "train": {"batch_size": 32, "precision": "float32", "steps": STEPS},
        }
    )


class Study:
    """The trials done so far, and the means to do more."""

    def __init__(self, folder: Path, corpus: Path, file: Path) -> None:
        self.file = file
        self.done = (
            [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []
        )
        self.base = recipe(folder, corpus)

    def trial(
        self, optimizer: str, schedule: str, rate: float, seed: int = 0, steps: int = STEPS
    ) -> dict[str, Any]:
        """One training, unless it was done before."""
        what = {"optimizer": optimizer, "schedule": schedule, "rate": rate, "seed": seed, "steps": steps}
        for row in self.done:
            if all(row[name] == value for name, value in what.items()):
                return row
        row = what | trained(self.base, what)
        self.done.append(row)
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{optimizer} {schedule} {rate:g} seed {seed} steps {steps}: {row['nll']:.4f}", flush=True)
        return row

    def best(self, optimizer: str, schedule: str) -> dict[str, Any]:
        """The trial of the lowest loss with the first seed and all steps."""
        rows = [
            row
            for row in self.done
            if (row["optimizer"], row["schedule"], row["seed"], row["steps"])
            == (optimizer, schedule, 0, STEPS)
        ]
        return min(rows, key=lambda row: row["nll"])

    def run(self) -> None:
        """All stages."""
        for (optimizer, schedule), rates in SWEEP.items():
            for rate in rates:
                self.trial(optimizer, schedule, rate)
        for optimizer, schedule in SWEEP:
            self.trial(optimizer, "wsd", WSD_RATE.get(optimizer) or self.best(optimizer, schedule)["rate"])
        for optimizer, schedule in self.finalists():
            for seed in SEEDS:
                self.trial(optimizer, schedule, self.best(optimizer, schedule)["rate"], seed)
        for optimizer, schedule in self.finalists():
            for seed in SEEDS:
                self.trial(
                    optimizer, schedule, self.best(optimizer, schedule)["rate"], seed, round(SHORT * STEPS)
                )

    def finalists(self) -> list[tuple[str, str]]:
        """The two best optimizers with their best schedules, and what the peers use."""
        pairs = {(row["optimizer"], row["schedule"]) for row in self.done}
        ranked = sorted(pairs, key=lambda pair: self.best(*pair)["nll"])
        best = {optimizer: (optimizer, schedule) for optimizer, schedule in reversed(ranked)}
        others = [pair for pair in ranked if pair in best.values() and pair[0] != PEER[0]]
        return [*others[:2], PEER]


def trained(base: Recipe, what: dict[str, Any]) -> dict[str, Any]:
    """Train as asked; held-out NLL of text tokens at the end and on the way."""
    changed = base.replace(
        **{
            "seed": what["seed"],
            "train.steps": what["steps"],
            "train.optimizer.name": what["optimizer"],
            "train.optimizer.learning_rate": what["rate"],
            "train.schedule.name": what["schedule"],
            "train.schedule.warmup_steps": WARMUP,
            # T5 holds its plateau for 2 % of its steps; here for twice the warm-up.
            "train.schedule.plateau_steps": 2 * WARMUP,
        }
    )
    setup = Run(changed).setup
    step = create_step(setup.config, setup.optimizer, setup.schedule, setup.step_settings)
    score = create_scorer(setup.config, token_classes(setup.vocabulary), setup.compute)
    fixed = EvaluationBatches(setup.store.valid, setup.objective, 64, 1, np.arange(WINDOWS))
    state = setup.fresh_program()()
    curve: list[tuple[int, float]] = []
    begun = time.perf_counter()
    for number, batch in enumerate(prefetched(setup.batches(), 0, what["steps"], ahead=2, workers=0), 1):
        state, _ = step(state, batch)
        if number % EVERY == 0:
            nll = total(score(state.parameters, fixed)).text.per_token()["nll"]
            curve.append((number, round(nll, 5) if np.isfinite(nll) else 99.0))
    seconds = time.perf_counter() - begun
    return {"nll": curve[-1][1], "seconds": round(seconds, 1), "curve": curve}


def report(study: Study) -> None:
    """The tables of docs/optimizers.md."""
    print(f"| optimizer, schedule | {' | '.join(['rate: NLL'] * 4)} |\n|---|---|---|---|---|")
    for (optimizer, schedule), rates in SWEEP.items():
        cells = [f"{rate:g}: {study.trial(optimizer, schedule, rate)['nll']:.4f}" for rate in rates]
        print(f"| {optimizer}, {schedule} | {' | '.join(cells)} |")
    print("\n| optimizer, schedule | rate | NLL |\n|---|---|---|")
    for optimizer, _ in SWEEP:
        row = study.best(optimizer, "wsd")
        print(f"| {optimizer}, wsd | {row['rate']:g} | {row['nll']:.4f} |")
    print(
        f"\n| finalist | rate | NLL of {len(SEEDS)} seeds, {STEPS:,} steps | {round(SHORT * STEPS)} steps |"
        "\n|---|---|---|---|"
    )
    for optimizer, schedule in study.finalists():
        rate = study.best(optimizer, schedule)["rate"]
        cells = []
        for steps in (STEPS, round(SHORT * STEPS)):
            values = [study.trial(optimizer, schedule, rate, seed, steps)["nll"] for seed in SEEDS]
            each = ", ".join(f"{value:.3f}" for value in values)
            cells.append(f"{statistics.mean(values):.4f} ({each})")
        print(f"| {optimizer}, {schedule} | {rate:g} | {' | '.join(cells)} |")


def draw(study: Study, file: Path) -> None:
    """The curves of the best trial of each pair."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    pairs = sorted({(row["optimizer"], row["schedule"]) for row in study.done})
    for optimizer, schedule in pairs:
        row = study.best(optimizer, schedule)
        steps, nll = zip(*row["curve"], strict=True)
        axes.plot(steps, nll, label=f"{optimizer}, {schedule}, {row['rate']:g}: {row['nll']:.3f}")
    axes.set(xlabel="step", ylabel="held-out NLL of text tokens, nats")
    low = min(row["nll"] for row in study.done)
    axes.set_ylim(low - 0.1, low + 2.0)
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(file, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where trials are kept")
    parser.add_argument("--corpus", type=Path, help="text to train on")
    arguments = parser.parse_args()
    if arguments.folder is None:
        report(Study(KEPT, Path(), KEPT / "optimizers.results.jsonl"))
        return
    if arguments.corpus is None:
        parser.error("--corpus is needed to train")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    study = Study(arguments.folder, arguments.corpus, arguments.folder / "results.jsonl")
    t5smith.vocab(study.base)
    t5smith.prepare(study.base)
    study.run()
    report(study)
    draw(study, arguments.folder / "curves.png")


if __name__ == "__main__":
    main()
