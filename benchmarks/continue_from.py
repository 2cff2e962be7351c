"""A model continued with another vocabulary: the held-out loss by what the rows of its pieces begin with.

    .venv/bin/python benchmarks/continue_from.py FOLDER

A model is trained on one of the bundled texts, as `norwegian-tiny`. It is continued on another one, the
examples of a dictionary, with a vocabulary of its own, and then from copies of it whose pieces begin with
other rows: the mean row for each new piece, random ones for these, random ones for all, and with all
parameters random. Vocabulary, store and held-out windows are the same. What is finished in FOLDER is not done
again. The table has the NLL of text tokens at step 0 and after --steps steps.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import t5smith
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_save import write_model
from t5smith.interop.model import Model
from t5smith.interop.source import with_rows
from t5smith.model.params import Parameters
from t5smith.recipe.recipe import Recipe
from t5smith.training.setup import Run
from t5smith.vocabulary.carry_over import CarriedRows, carried_rows

WAYS = {
    "own": "new pieces: mean of the old pieces that spell them (t5smith)",
    "mean": "new pieces: mean of all old rows",
    "random": "new pieces: random",
    "rows": "all pieces: random",
    "all": "all parameters: random",
}


def recipe_of(folder: Path, source: Path, steps: int, rate: float) -> Recipe:
    """The continued training, with a vocabulary of its own."""
    changes = {
        "train.init_from": str(source),
        "train.steps": steps,
        "train.evaluate_every": steps,
        "train.checkpoint_every": steps,
        "train.optimizer.learning_rate": rate,
        "corpus.train": ("bundled:norwegian/ordbok-nb-examples.txt.xz",),
        "corpus.valid": (),
        "corpus.document": "line",
        "vocab.size": 2_001,  # any size of its own: the vocabulary is trained, not imported
    }
    return t5smith.load_recipe("norwegian-tiny").replace(run_dir=folder, **changes)


def reduced(rows: CarriedRows, way: str) -> tuple[CarriedRows, np.ndarray]:
    """Only the rows that are taken over as they are, the others random; and which new ids these are."""
    counts = np.diff(rows.ends, prepend=0)
    kept = np.zeros(len(counts), bool) if way == "rows" else counts == 1
    old = rows.old[(rows.ends - counts)[kept]]
    number = int(kept.sum())
    return CarriedRows(old, np.cumsum(kept), number, 0, len(counts) - number), kept


def begun(run: Run, base: Model, rows: CarriedRows, way: str) -> Parameters:
    """The parameters that a copy of the model begins with."""
    setup = run.setup
    if way == "all":
        return setup.fresh_program()().parameters
    fewer, kept = reduced(rows, way)

    def table(old: np.ndarray, seed: int) -> np.ndarray:
        found = fewer.rows(old[: base.vocabulary.size], seed)
        if way == "mean":
            found[~kept] = old[: base.vocabulary.size].mean(0)
        return found

    seed = run.recipe.seed
    embedding = table(np.asarray(base.parameters.embedding), seed)
    head = table(np.asarray(base.parameters.head).T, seed + 1).T
    new = replace(base.parameters, embedding=jnp.asarray(embedding), head=jnp.asarray(head))
    return with_rows(new, setup.config)


def held_out(folder: Path) -> dict[int, float]:
    """The NLL of text tokens by step."""
    lines = (folder / "train" / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["step"]: row["text"]["nll"] for row in map(json.loads, lines)}


def main() -> None:
    """Train what is not trained yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base-steps", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=0.01)
    args = parser.parse_args()
    first = t5smith.load_recipe("norwegian-tiny").replace(
        run_dir=args.folder / "base", **{"train.steps": args.base_steps}
    )
    source = Path(t5smith.run(first)["model"])
    own = recipe_of(args.folder / "own", source, args.steps, args.rate)
    t5smith.vocab(own)
    t5smith.prepare(own)
    run, base = Run(own), load_model(source)
    rows = carried_rows(base.vocabulary, run.vocabulary)
    t5smith.train(own)
    found = {"own": held_out(own.folder)}
    for way in ("mean", "random", "rows", "all"):
        folder, start = args.folder / way, args.folder / f"start-{way}"
        if not (folder / "vocab").is_dir():
            for part in ("vocab", "store"):
                shutil.copytree(own.folder / part, folder / part)
            start.mkdir(exist_ok=True)
            model = Model(begun(run, base, rows, way), run.setup.config, run.vocabulary)
            write_model(start, model, model_max_length=512)
        t5smith.train(recipe_of(folder, start, args.steps, args.rate))
        found[way] = held_out(folder)
    baseline = json.loads(next((own.folder / "train" / "heldout.jsonl").open(encoding="utf-8")))
    print(
        f"of {run.vocabulary.size:,} ids {rows.carried:,} are carried over, {rows.composed:,} composed, "
        f"{rows.random:,} random; the unigram baseline is {baseline.get('unigram_nll', float('nan')):.3f}\n"
    )
    print(f"| rows | NLL at step 0 | after {args.steps} steps |\n| --- | ---: | ---: |")
    for way, title in WAYS.items():
        print(f"| {title} | {found[way][0]:.3f} | {found[way][args.steps]:.3f} |")


if __name__ == "__main__":
    main()
