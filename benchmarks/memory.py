"""Memory of training in fresh processes, beside PyTorch's, and whether a step is ever much slower.

    python benchmarks/memory.py --processes 20 --steps 20

Each process builds the model, compiles its step and trains on random tokens; see benchmarks/contenders.py.
`expected_bytes` is the state, XLA's temporaries and what the process held before the model was built; `peak`
is the largest peak of all processes over that. `slowest_step` is the longest step after the second of a
process over its median, the largest of all processes; `slow_processes` counts those where it is over 1.5.
PyTorch's peaks are of as many steps in one process each. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from typing import Any

from contenders import Contender, Spec
from t5smith.benchmarking.training import SIZES
from train_vs_transformers import CONTENDERS, ENVIRONMENT, install_peers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="t5-v1.1-small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", default="float32,bfloat16")
    parser.add_argument("--optimizer", default="adamw", help="ours")
    arguments = parser.parse_args()
    install_peers()
    result: dict[str, Any] = {"size": arguments.size, "batch": arguments.batch, "steps": arguments.steps}
    for precision in arguments.precision.split(","):
        result[precision] = measured(arguments, precision)
        print(json.dumps(result), file=sys.stderr)
    print(json.dumps(result))


def measured(arguments: argparse.Namespace, precision: str) -> dict[str, Any]:
    """The figures of all processes at one precision."""
    settings = {
        "shape": SIZES[arguments.size].shape(),
        "batch": arguments.batch,
        "precision": precision,
    }
    ours = Spec(**settings, name="ours", optimizer=arguments.optimizer)
    runs = []
    for number in range(arguments.processes):
        runs.append(trained(ours, arguments.steps))
        shown = {name: round(runs[-1][name], 3) for name in ("peak", "slowest_step", "median_step")}
        print(f"{precision} process {number + 1}: {shown}", file=sys.stderr)
    peers = {
        name: trained(Spec(**settings, **options), arguments.steps)["peak_bytes"]
        for name, options in CONTENDERS.items()
        if name != "ours"
    }
    peaks = [run["peak_bytes"] for run in runs]
    return {
        "processes": arguments.processes,
        "expected_bytes": round(statistics.median(run["expected_bytes"] for run in runs)),
        "peak_bytes": {"median": round(statistics.median(peaks)), "largest": max(peaks)},
        "peak": round(max(run["peak"] for run in runs), 3),
        "peak_over_pytorch": round(max(peaks) / min(peers.values()), 3),
        "pytorch_peak_bytes": peers,
        "slowest_step": round(max(run["slowest_step"] for run in runs), 3),
        "slow_processes": sum(run["slowest_step"] > 1.5 for run in runs),
        "median_step": round(statistics.median(run["median_step"] for run in runs), 4),
    }


def trained(spec: Spec, steps: int) -> dict[str, float]:
    """The figures of one process that takes some steps and ends."""
    with contextlib.closing(Contender(spec, ENVIRONMENT)) as process:
        facts = process.ready()
        # The first step was taken when the process was ready; the second is the first of these.
        seconds = [process.seconds() for _ in range(steps - 1)][1:]
        peak = process.peak_bytes()
    expected = sum(facts.get(name, 0) for name in ("start_bytes", "state_bytes", "temporary_bytes"))
    median = statistics.median(seconds)
    return {
        "peak_bytes": peak,
        "expected_bytes": expected,
        "peak": peak / expected if expected else 0.0,
        "slowest_step": max(seconds) / median,
        "median_step": median,
    }


if __name__ == "__main__":
    main()
