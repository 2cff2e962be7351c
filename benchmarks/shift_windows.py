"""What cutting the text into windows at another place in every epoch is worth on a small text.

    .venv/bin/python benchmarks/shift_windows.py [STEPS]

Trains the demo's model for STEPS steps (2,500) with and without `objective.shift_windows`, same seed, and
prints the held-out NLL of text tokens of both. It needs nothing but the bundled text.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import t5smith
from t5smith.base.artifact import read_manifest


def main(steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        recipe = t5smith.load_recipe("norwegian-tiny").replace(
            **{"train.steps": steps, "train.evaluate_every": 0, "evaluate.examples": 0}
        )
        first = recipe.replace(run_dir=Path(folder) / "shifted")
        t5smith.vocab(first)
        t5smith.prepare(first)
        second = recipe.replace(
            **{"run_dir": Path(folder) / "fixed", "objective.shift_windows": False},
        )
        shutil.copytree(first.folder, second.folder)
        result: dict[str, float] = {"steps": steps}
        for name, one in (("shifted", first), ("fixed", second)):
            t5smith.train(one)
            facts = read_manifest(t5smith.evaluate(one), "evaluation").facts
            result[f"{name}_nll"] = round(facts["text"]["nll"], 4)
            result["unigram_nll"] = round(facts["unigram_nll"], 4)
        print(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_500)
