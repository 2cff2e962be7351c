"""An optimizer's update alone: t5smith beside PyTorch's fused AdamW and its Muon, on this machine.

    python benchmarks/updates_vs_torch.py --size t5-v1.1-small --repeats 7

T5smith updates all parameters and clips the gradient. PyTorch's AdamW updates all without clipping; its Muon
updates the layers' matrices only. Each is in a process of its own; they alternate, and the figures are the
medians of the seconds. The last line is one JSON object. Its ratios: adamw and adafactor over PyTorch's
AdamW; muon_adafactor, less its Adafactor update of what is no matrix of a layer, over PyTorch's Muon.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys

from contenders import Contender, Spec
from t5smith.benchmarking.training import SIZES
from train_vs_transformers import ENVIRONMENT, install_peers

CONTENDERS = {
    "adamw": {"name": "our_update", "optimizer": "adamw"},
    "adafactor": {"name": "our_update", "optimizer": "adafactor"},
    "muon_adafactor": {"name": "our_update", "optimizer": "muon_adafactor"},
    "its adafactor": {"name": "our_update", "optimizer": "muon_adafactor", "rest": True},
    "torch adamw": {"name": "pytorch_update", "optimizer": "adamw"},
    "torch muon": {"name": "pytorch_update", "optimizer": "muon"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="t5-v1.1-small")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="updates per turn")
    arguments = parser.parse_args()
    install_peers()
    shape = SIZES[arguments.size].shape()
    specs = {
        name: Spec(shape=shape, steps=arguments.steps, **options) for name, options in CONTENDERS.items()
    }
    children = {name: Contender(spec, ENVIRONMENT) for name, spec in specs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    try:
        for child in children.values():
            child.ready()
            child.seconds()
        for turn in range(arguments.repeats):
            for name, child in children.items():
                seconds[name].append(child.seconds())
            print(
                f"turn {turn + 1}:", {name: round(s[-1], 4) for name, s in seconds.items()}, file=sys.stderr
            )
    finally:
        for child in children.values():
            child.close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        "adamw": medians["adamw"] / medians["torch adamw"],
        "adafactor": medians["adafactor"] / medians["torch adamw"],
        "muon_adafactor": (medians["muon_adafactor"] - medians["its adafactor"]) / medians["torch muon"],
    }
    print(
        json.dumps(
            {
                "size": arguments.size,
                "seconds": {name: round(value, 4) for name, value in medians.items()},
                "ratios": {name: round(value, 3) for name, value in ratios.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
