"""Everything about t5smith on one GPU, in at most thirty minutes, with one command.

    python benchmarks/gpu.py                       # all parts, the most valuable first
    python benchmarks/gpu.py correct train peer    # some of them
    python benchmarks/gpu.py --rehearse            # all of them on CPU with tiny shapes
    python benchmarks/gpu.py --requirements        # the packages that this environment lacks

It needs Python 3.11 or newer, JAX with CUDA, and for the part `peer` PyTorch and transformers; what else
t5smith's engine needs is listed by --requirements, one package per line. No network is used. Each part runs
in a process of its own and has a time limit; its rows are in OUT/PART.json as soon as they are measured, so
that a part which is cut off has left what it measured. OUT/README.md has all tables.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "src")]

PARTS = {
    "facts": (1.5, "the card, its products and bandwidth"),
    "correct": (6.0, "losses, gradients, training, repeats and resuming beside CPU"),
    "train": (8.0, "tokens/s, MFU and memory by batch, recomputation, optimizer"),
    "peer": (7.0, "transformers' T5 in PyTorch on the same card, taking turns"),
    "attention": (3.5, "backends of attention with a learned bias"),
    "input": (2.0, "whether the input pipeline keeps up"),
    "profile": (2.0, "where the time of a step goes"),
}
"""Minutes at most, in the order in which they run."""
REHEARSAL_MINUTES = 1.5
MFU_GOAL, RATIO_GOAL = 0.5, 1.2
MODULES = {"profile": "profile", "input": "inputs"}
"""The module of a part in `gpu_parts`, where it has another name."""

ENGINE = {
    "jax": "jax",
    "jaxlib": "jaxlib",
    "numpy": "numpy",
    "scipy": "scipy",
    "ml_dtypes": "ml-dtypes",
    "opt_einsum": "opt-einsum",
    "optax": "optax",
    "absl": "absl-py",
    "jaxtyping": "jaxtyping",
    "wadler_lindig": "wadler-lindig",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection",
    "typing_extensions": "typing-extensions",
    "rich": "rich",
    "pygments": "pygments",
    "markdown_it": "markdown-it-py",
    "mdurl": "mdurl",
    "orbax.checkpoint": "orbax-checkpoint",
    "tensorstore": "tensorstore",
    "aiofiles": "aiofiles",
    "humanize": "humanize",
    "msgpack": "msgpack",
    "prometheus_client": "prometheus-client",
    "psutil": "psutil",
    "simplejson": "simplejson",
    "uvloop": "uvloop",
    "yaml": "pyyaml",
    "grain": "grain",
    "array_record": "array-record",
    "etils": "etils",
    "portpicker": "portpicker",
    "cloudpickle": "cloudpickle",
    "google.protobuf": "protobuf",
    "tokenizers": "tokenizers",
    "sentencepiece": "sentencepiece",
    "filelock": "filelock",
    "zstandard": "zstandard",
}
"""Module -> package: what the parts import, and what those packages import."""
PEER = {"torch": "torch", "transformers": "transformers"}


def main() -> int:
    """Run the parts; 0 if each ended by itself, 1 if one was cut off or failed, 2 if a package is missing."""
    arguments = parsed()
    if arguments.requirements:
        print("\n".join(missing({**ENGINE, **PEER})))
        return 0
    if arguments.cpu_reference or arguments.repeats_only or arguments.inside:
        return child(arguments)
    if lacking := missing(ENGINE):
        print("these packages are missing; carry them as wheels or install them:", file=sys.stderr)
        print("\n".join(lacking), file=sys.stderr)
        return 2
    unknown = set(arguments.parts) - PARTS.keys()
    if unknown:
        print(f"unknown part {', '.join(sorted(unknown))}; expected {', '.join(PARTS)}", file=sys.stderr)
        return 2
    name = f"gpu-{card(arguments)}-{datetime.now(UTC):%Y-%m-%d}"
    # A rehearsal is no result.
    out = arguments.out or (ROOT / "build" if arguments.rehearse else HERE / "results") / name
    out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * arguments.minutes
    code = 0
    for part, (minutes, what) in PARTS.items():
        if arguments.parts and part not in arguments.parts:
            continue
        left = ends - time.monotonic()
        minutes = arguments.patience * (REHEARSAL_MINUTES if arguments.rehearse else minutes)
        limit = min(60 * minutes, left)
        if limit <= 0:
            print(f"== {part}: no time left", flush=True)
            code = 1
            continue
        print(f"== {part}: {what}; at most {limit / 60:.1f} minutes", flush=True)
        code |= 0 if run_part(part, out, limit, arguments) else 1
        write_page(out)
    if out.parent == HERE / "results" and not arguments.rehearse:
        write_index(out.parent)
    print(f"results: {out}")
    return code


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS) + "; default: all")
    parser.add_argument("--minutes", type=float, default=30.0, help="for all parts together")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes, on CPU")
    parser.add_argument(
        "--patience", type=float, default=1.0, help="factor of all limits, for a busy machine"
    )
    parser.add_argument("--requirements", action="store_true", help="list the missing packages")
    for name in ("--cpu-reference", "--inside"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--repeats-only", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def missing(modules: dict[str, str]) -> list[str]:
    """The packages of modules that cannot be found, with the versions that t5smith is tested with."""
    lock = ROOT / "requirements" / "lock.txt"
    versions = (
        dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.M))
        if lock.is_file()
        else {}
    )
    found: list[str] = []
    for module, package in modules.items():
        try:
            there = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            found.append(f"{package}=={versions[package]}" if package in versions else package)
    return found


def card(arguments: argparse.Namespace) -> str:
    """The card's name as a part of a folder's name; nothing but a child process imports JAX."""
    if arguments.rehearse:
        return "rehearsal"
    program = "import jax; print(jax.devices()[0].device_kind)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    name = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "unknown"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def run_part(part: str, out: Path, limit: float, arguments: argparse.Namespace) -> bool:
    """Run a part in a process of its own; whether it ended by itself without failing as a whole."""
    command = [sys.executable, str(Path(__file__).resolve()), "--inside", part, "--out", str(out)]
    command += ["--limit", str(limit), *(["--rehearse"] if arguments.rehearse else [])]
    environment = dict(os.environ)
    if arguments.rehearse:
        environment["JAX_PLATFORMS"] = "cpu"
        # Compiling is most of a rehearsal's time.
        environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    # A group of its own, so that what a part started ends with it.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        # A part watches its own time; this is for one that hangs.
        return process.wait(timeout=limit + 20) == 0
    except subprocess.TimeoutExpired:
        print(f"== {part}: cut off; what it measured is in {out / part}.json", flush=True)
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def child(arguments: argparse.Namespace) -> int:
    """What this file does when it is started by itself."""
    from gpu_parts import scale as scales

    scale = scales.CPU if arguments.rehearse else scales.GPU
    if arguments.cpu_reference:
        import numpy as np

        from gpu_parts.correct import computed

        np.savez(arguments.cpu_reference, **computed(scale))
        return 0
    if arguments.repeats_only:
        from gpu_parts.correct import repeated

        print(json.dumps(repeated(scale, scale.sizes[0], "bfloat16")))
        return 0
    from gpu_parts.results import Results

    part = arguments.inside
    results = Results(arguments.out / f"{part}.json", part, arguments.limit)
    module: Any = importlib.import_module(f"gpu_parts.{MODULES.get(part, part)}")
    module.measure(results, scale)
    return 0


def read_parts(out: Path) -> dict[str, dict[str, Any]]:
    """The parts that were measured, by name."""
    files = {part: out / f"{part}.json" for part in PARTS}
    return {
        part: json.loads(file.read_text(encoding="utf-8")) for part, file in files.items() if file.is_file()
    }


def write_page(out: Path) -> None:
    """All tables of a folder, as Markdown, with the goals on top."""
    from gpu_parts.results import tables

    parts = read_parts(out)
    lines = [f"# {out.name}", "", *goals(parts), ""]
    for tree in parts.values():
        lines += tables(tree)
    (out / "README.md").write_text("\n".join(lines), encoding="utf-8")


def best_mfu(parts: dict[str, dict[str, Any]]) -> float | None:
    """The highest MFU of T5-v1.1-base in bfloat16."""
    rows = parts.get("train", {}).get("rows", [])
    base = (row for row in rows if row.get("size") == "t5-v1.1-base" and row.get("precision") == "bfloat16")
    return max((row["mfu"] for row in base if "mfu" in row), default=None)


def ratio(parts: dict[str, dict[str, Any]]) -> float | None:
    """The speed of T5-v1.1-base over PyTorch's best."""
    rows = parts.get("peer", {}).get("rows", [])
    return next((row["ratio"] for row in rows if row.get("model") == "t5-v1.1-base" and "ratio" in row), None)


def goals(parts: dict[str, dict[str, Any]]) -> list[str]:
    """Each goal beside what was measured."""
    rows = [
        ("MFU of T5-v1.1-base, bfloat16", f"{MFU_GOAL}", best_mfu(parts)),
        ("speed of T5-v1.1-base over PyTorch's best", f"{RATIO_GOAL}", ratio(parts)),
    ]
    found = [f"| {what} | {goal} or more | {'–' if it is None else f'{it:.3f}'} |" for what, goal, it in rows]
    return ["| goal | | measured |", "| --- | --- | --- |", *found]


def write_index(results: Path) -> None:
    """One line for each card and date."""
    lines = [
        "# Results on GPUs",
        "",
        "Written by `python benchmarks/gpu.py`: a folder per card and date, with all tables in README.md.",
        f"The goals: T5-v1.1-base trains at an MFU of {MFU_GOAL} or more, and {RATIO_GOAL} times as fast as",
        "PyTorch's best on the same card.",
        "",
    ]
    folders = sorted(path for path in results.glob("gpu-*") if path.is_dir())
    if not folders:
        lines.append("No GPU has been measured yet.")
    else:
        lines += ["| run | MFU, base | over PyTorch's best, base |", "| --- | --- | --- |"]
    for folder in folders:
        parts = read_parts(folder)
        cells = ("–" if value is None else f"{value:.3f}" for value in (best_mfu(parts), ratio(parts)))
        lines.append(f"| [{folder.name}]({folder.name}/README.md) | {' | '.join(cells)} |")
    (results / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
