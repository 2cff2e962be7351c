"""Training a T5 1.1: t5smith beside transformers' PyTorch T5, eager and compiled, on this machine.

    python benchmarks/train_vs_transformers.py --size t5-v1.1-small --batch 8 --repeats 7

Same shapes and precision (float32, then bfloat16); see benchmarks/contenders.py. The contenders alternate,
and the figures are medians. The last line is one JSON object, in which `ratio_float32` and `ratio_bfloat16`
are our tokens per second over those of the faster of the two, and `mfu` is the speed of our step, counted in
operations of its products, over the speed of large products of that precision in the same turn.

What it needs besides t5smith (torch, transformers) is installed from requirements/test.lock.txt if missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from pathlib import Path

from contenders import Contender, Spec
from t5smith.benchmarking.training import SIZES
from t5smith.cli.environment import MALLOC, TUNABLES

ROOT = Path(__file__).resolve().parent.parent
CONTENDERS = {
    "ours": {"name": "ours"},
    "eager": {"name": "pytorch"},
    "compiled": {"name": "pytorch", "compiled": True},
}
# What t5smith's command line sets for itself; the peers get it too, where it helps them as well. Three
# processes share a card: none may take all of its memory.
ENVIRONMENT = {TUNABLES: MALLOC, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def main() -> None:
    arguments = parsed()
    install_peers()
    result: dict[str, object] = {
        "size": arguments.size,
        "batch": arguments.batch,
        "repeats": arguments.repeats,
    }
    for precision in arguments.precision.split(","):
        result |= compared(arguments, precision)
        print(json.dumps(result), file=sys.stderr)
    print(json.dumps(result))


def install_peers() -> None:
    """Install torch and transformers if one is missing."""
    for module in ("torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            lock = ROOT / "requirements" / "test.lock.txt"
            subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", str(lock)], check=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="t5-v1.1-small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="steps per turn")
    parser.add_argument("--precision", default="float32,bfloat16")
    parser.add_argument("--remat", default="none", help="ours")
    return parser.parse_args()


def compared(arguments: argparse.Namespace, precision: str) -> dict[str, object]:
    """Figures of all contenders at one precision, taking turns."""
    settings = {
        "shape": SIZES[arguments.size].shape(),
        "batch": arguments.batch,
        "precision": precision,
        "remat": arguments.remat,
        "steps": arguments.steps,
    }
    specs = {name: Spec(**settings, **options) for name, options in CONTENDERS.items()}
    children = {name: Contender(spec, ENVIRONMENT) for name, spec in specs.items()}
    try:
        facts = {name: child.ready() for name, child in children.items()}
        counts = {name: fact["parameters"] for name, fact in facts.items()}
        assert len(set(counts.values())) == 1, counts
        for child in children.values():
            child.seconds()
        seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        product_speeds = []
        for turn in range(arguments.repeats):
            for name, child in children.items():
                seconds[name].append(child.seconds())
            product_speeds.append(children["ours"].product_speed())
            turn_seconds = ", ".join(f"{name} {seconds[name][-1]:.3f} s" for name in CONTENDERS)
            products = f"products {product_speeds[-1] / 1e9:.0f} GFLOP/s"
            print(f"{precision} turn {turn + 1}: {turn_seconds}; {products}", file=sys.stderr)
        memory = {name: child.peak_bytes() for name, child in children.items()}
    finally:
        for child in children.values():
            child.close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    tokens = specs["ours"].tokens
    flops = facts["ours"]["step_flops"]
    used = [flops / taken / speed for taken, speed in zip(seconds["ours"], product_speeds, strict=True)]
    return {
        "parameters": counts["ours"],
        f"ratio_{precision}": round(min(medians["eager"], medians["compiled"]) / medians["ours"], 3),
        f"mfu_{precision}": round(statistics.median(used), 3),
        f"product_gflops_{precision}": round(statistics.median(product_speeds) / 1e9),
        precision: {
            name: {
                "tokens_per_second": round(tokens / medians[name]),
                "seconds_per_step": round(medians[name], 4),
                "fastest_step": round(min(seconds[name]), 4),
                "start_seconds": round(facts[name]["start_seconds"], 1),
                "peak_memory_bytes": memory[name],
            }
            for name in CONTENDERS
        },
    }


if __name__ == "__main__":
    main()
