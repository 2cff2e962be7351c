"""Ten steps of the base model in a trace, summed up as text: where the device's time goes."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax

from gpu_parts.models import best_batch, trial_of
from gpu_parts.results import Results
from gpu_parts.scale import Scale

STEPS = 10
KEEP_BYTES = 8 << 20
"""A trace up to this size is kept."""
KINDS = (
    ("communication", r"nccl|all-?reduce|all-?gather|reduce-?scatter|collective"),
    ("copies", r"memcpy|memset|copy|transpose"),
    ("attention", r"fmha|flash|cudnn.*attn|softmax|attend"),
    ("products", r"gemm|cublas|cutlass|xmma|dot|matmul|nvjet"),
    ("loss and head", r"loss|logits|logsumexp"),
    ("optimizer", r"optimizer|update|adam|clip"),
)
"""The kind of a kernel, by its own name and that of the operation it is of; the first that fits."""


def measure(results: Results, scale: Scale) -> None:
    """Fill the part `profile`."""
    results.run([("trace", lambda: trace(results, scale))])


def trace(results: Results, scale: Scale) -> None:
    """Record ten steps and sum them up."""
    size = scale.sizes[0]
    batch = best_batch(results, scale, size)
    trial = trial_of(size, batch, scale)
    trial.run(2)
    folder = results.file.with_name("trace")
    shutil.rmtree(folder, ignore_errors=True)
    with jax.profiler.trace(str(folder)):
        seconds = trial.run(STEPS)
    results.fact(model=size, batch=batch, steps=STEPS, seconds_per_step=seconds / STEPS)
    (file,) = folder.rglob("*.xplane.pb")
    summed(results, file)
    if file.stat().st_size <= KEEP_BYTES:
        file.rename(results.file.with_name("profile.xplane.pb"))
    shutil.rmtree(folder)


def kernels(file: Path) -> list[tuple[str, str, float, float]]:
    """Name, operation, start and duration (ns) of what ran on the device; on CPU of XLA's operations."""
    data = jax.profiler.ProfileData.from_file(str(file))
    found: list[tuple[str, str, float, float]] = []
    planes = [plane for plane in data.planes if "/device:" in plane.name.lower()]
    planes = planes or [plane for plane in data.planes if "/host:CPU" in plane.name]
    for plane in planes:
        for line in plane.lines:
            # A GPU's lines are its streams; the others repeat the same time by step, module or operation.
            if "/device:" in plane.name.lower() and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                stats: dict[str, Any] = dict(event.stats)
                operation = str(stats.get("hlo_op") or stats.get("name") or "")
                if "/host:CPU" in plane.name and not operation:
                    continue
                where = str(stats.get("tf_op") or stats.get("hlo_module") or "")
                found.append((event.name, f"{operation} {where}", event.start_ns, event.duration_ns))
    return found


def kind_of(name: str, operation: str) -> str:
    """What a kernel is for."""
    both = f"{name} {operation}".lower()
    return next((kind for kind, pattern in KINDS if re.search(pattern, both)), "other")


def summed(results: Results, file: Path) -> None:
    """Time by kind, the idle share, the ten longest kernels."""
    events = kernels(file)
    if not events:
        results.add(what="trace", error="no kernels in the trace")
        return
    total = sum(duration for *_, duration in events)
    kinds: dict[str, float] = defaultdict(float)
    names: dict[str, list[float]] = defaultdict(list)
    for name, operation, _, duration in events:
        kinds[kind_of(name, operation)] += duration
        names[name].append(duration)
    for kind, duration in sorted(kinds.items(), key=lambda item: -item[1]):
        results.add(
            what="time by kind", kind=kind, ms_per_step=duration / 1e6 / STEPS, share=duration / total
        )
    begin, end = min(e[2] for e in events), max(e[2] + e[3] for e in events)
    busy = covered([(start, start + duration) for _, _, start, duration in events])
    results.add(
        what="idle", span_ms=(end - begin) / 1e6, busy_ms=busy / 1e6, idle_share=1 - busy / (end - begin)
    )
    longest = sorted(names.items(), key=lambda item: -sum(item[1]))[:10]
    for name, durations in longest:
        results.add(
            what="longest kernels",
            kernel=name[:90],
            calls_per_step=len(durations) / STEPS,
            ms_per_step=sum(durations) / 1e6 / STEPS,
            share=sum(durations) / total,
        )


def covered(spans: list[tuple[float, float]]) -> float:
    """The length of a union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, stop in sorted(spans):
        if stop > reached:
            total += stop - max(start, reached)
            reached = stop
    return total
