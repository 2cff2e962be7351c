"""Whether the device computes what the CPU does: losses, gradients, training, repeats, resuming.

The CPU's figures come from a process of its own (`--cpu-reference`), since t5smith chooses its backends by
the process's default device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gpu_parts.models import BATCHES, config_of, parameters_of, random_batch, training
from gpu_parts.results import Results
from gpu_parts.scale import Scale
from t5smith.parallel.backend import PRECISIONS, compute_in

STEPS = 30
REPEATS = 20
ROWS = 2


def measure(results: Results, scale: Scale) -> None:
    """Fill the part `correct`."""
    with tempfile.TemporaryDirectory(prefix="t5smith-gpu-") as folder:
        file = Path(folder) / "cpu.npz"
        results.run(
            [
                ("cpu", lambda: cpu(file, scale, results)),
                ("loss and gradients", lambda: gradients(results, scale, file)),
                ("training", lambda: curves(results, scale, file)),
                ("repeats", lambda: repeats(results, scale)),
                ("resume", lambda: resume(results, Path(folder))),
                ("attention", lambda: attention(results, scale)),
                ("deterministic", lambda: deterministic(results, scale)),
            ]
        )


def computed(scale: Scale) -> dict[str, np.ndarray]:
    """Losses and gradients of every model and kind of batch, and two loss curves, on the default device."""
    found: dict[str, np.ndarray] = {}
    for size in scale.compared:
        parameters = parameters_of(size)
        for kind in BATCHES:
            for precision in PRECISIONS:
                loss, gradient = loss_and_gradient(size, precision, parameters, batch_of(scale, size, kind))
                name = f"{size}/{kind}/{precision}"
                found[f"{name}/loss"] = np.asarray(loss)
                for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
                    found[f"{name}/gradient{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    for precision in PRECISIONS:
        found[f"curve/{precision}"] = np.asarray(curve(precision))
    return found


def batch_of(scale: Scale, size: str, kind: str) -> dict[str, Any]:
    """The batch that models are compared on."""
    return BATCHES[kind](size, ROWS, *lengths_of(scale, size))


def lengths_of(scale: Scale, size: str) -> tuple[int, int]:
    """Input and target positions of a model's batches."""
    return (33, 17) if size == "tiny" else (scale.input_length, scale.target_length)


def loss_and_gradient(size: str, precision: str, parameters: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
    """Mean loss per target token and its gradient."""
    from t5smith.model.loss import batch_loss
    from t5smith.model.t5 import Segments

    config = config_of(size)

    def loss(parameters: Any, batch: dict[str, Any]) -> Any:
        packed = "target_segments" in batch
        segments = Segments(batch["input_segments"], batch["target_segments"]) if packed else None
        sums = batch_loss(
            parameters, config, batch["input_ids"], batch["targets"], compute_in(precision), segments
        )
        return sums.objective / sums.tokens

    return jax.jit(jax.value_and_grad(loss))(parameters, batch)


def curve(precision: str) -> list[float]:
    """The losses of thirty steps of the tiny model."""
    step, state = training("tiny", precision)
    losses = []
    for number in range(STEPS):
        state, metrics = step(state, random_batch("tiny", 8, 32, 10, seed=number % 3))
        losses.append(metrics.loss)
    return [float(loss) for loss in losses]


def cpu(file: Path, scale: Scale, results: Results) -> None:
    """Compute the reference on the CPU, in a process of its own."""
    command = [sys.executable, sys.argv[0], "--cpu-reference", str(file)]
    command += ["--rehearse"] if scale.rehearse else []
    begun = time.monotonic()
    subprocess.run(
        command, check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}, timeout=max(results.left(), 1)
    )
    results.fact(cpu_reference_seconds=round(time.monotonic() - begun, 1))


def gradients(results: Results, scale: Scale, file: Path) -> None:
    """Loss and gradient of each model and batch beside the CPU's."""
    true = np.load(file)
    for size in scale.compared:
        parameters = parameters_of(size)
        for kind in BATCHES:
            for precision in PRECISIONS:
                name = f"{size}/{kind}/{precision}"
                names = {"model": size, "batch": kind, "precision": precision}
                with results.attempt(what="loss and gradients beside CPU", **names) as row:
                    loss, gradient = loss_and_gradient(
                        size, precision, parameters, batch_of(scale, size, kind)
                    )
                    row["loss"] = float(loss)
                    row["loss_cpu"] = float(true[f"{name}/loss"])
                    worst: tuple[float, str] = (0.0, "")
                    square = total = 0.0
                    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
                        where = jax.tree_util.keystr(path)
                        expected = true[f"{name}/gradient{where}"].astype(np.float64)
                        off = np.linalg.norm(np.asarray(leaf, np.float64) - expected)
                        worst = max(worst, (off / max(float(np.linalg.norm(expected)), 1e-30), where))
                        square, total = square + off**2, total + np.linalg.norm(expected) ** 2
                    row["gradient_error"] = float((square / total) ** 0.5)
                    row["worst_leaf_error"], row["worst_leaf"] = float(worst[0]), worst[1]


def curves(results: Results, scale: Scale, file: Path) -> None:
    """Thirty steps of training beside the CPU's."""
    true = np.load(file)
    for precision in PRECISIONS:
        with results.attempt(what="30 steps of the tiny model beside CPU", precision=precision) as row:
            ours, theirs = np.asarray(curve(precision)), true[f"curve/{precision}"]
            row |= {"first": float(ours[0]), "last": float(ours[-1]), "last_cpu": float(theirs[-1])}
            row["largest_difference"] = float(np.abs(ours - theirs).max())


def repeats(results: Results, scale: Scale) -> None:
    """The same step twenty times: whether every bit agrees."""
    size = scale.sizes[0]
    for precision in PRECISIONS:
        with results.attempt(what="20 repeats of one gradient", model=size, precision=precision) as row:
            row |= repeated(scale, size, precision)


def repeated(scale: Scale, size: str, precision: str) -> dict[str, Any]:
    """Different results among twenty, and the seconds of one."""
    parameters = parameters_of(size)
    batch = random_batch(size, ROWS, *lengths_of(scale, size))
    run = jax.jit(lambda p: loss_and_gradient(size, precision, p, batch))
    first = jax.block_until_ready(run(parameters))
    begun = time.perf_counter()
    others = [run(parameters) for _ in range(REPEATS - 1)]
    jax.block_until_ready(others)
    seconds = (time.perf_counter() - begun) / (REPEATS - 1)
    pairs = (
        [(a == b).all() for a, b in zip(*map(jax.tree.leaves, (first, other)), strict=True)]
        for other in others
    )
    different = sum(not all(map(bool, equal)) for equal in pairs)
    return {"repeats": REPEATS, "different": different, "seconds": seconds}


def same(one: Any, other: Any) -> bool:
    """Whether two trees of arrays agree in every bit."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(bool((a == b).all()) for a, b in pairs)


def deterministic(results: Results, scale: Scale) -> None:
    """The same in a process with XLA's deterministic kernels: what they cost."""
    size = scale.sizes[0]
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
    with results.attempt(what="deterministic kernels", model=size, precision="bfloat16") as row:
        command = [sys.executable, sys.argv[0], "--repeats-only", *(["--rehearse"] if scale.rehearse else [])]
        environment = os.environ | {"XLA_FLAGS": flags.strip(), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        done = subprocess.run(
            command,
            check=True,
            env=environment,
            capture_output=True,
            text=True,
            timeout=max(results.left(), 1),
        )
        row |= json.loads(done.stdout.splitlines()[-1])


def resume(results: Results, folder: Path) -> None:
    """Ten steps at once, and the same interrupted by a checkpoint after five: bit for bit."""
    from t5smith.training.resume import checkpoints

    with results.attempt(what="resume", model="tiny") as row:
        step, state = training("tiny", "bfloat16")
        _, other = training("tiny", "bfloat16")
        for number in range(10):
            state, _ = step(state, random_batch("tiny", 8, 32, 10, seed=number))
        for number in range(5):
            other, _ = step(other, random_batch("tiny", 8, 32, 10, seed=number))
        keep = checkpoints.Retention(1)
        path = checkpoints.save(folder / "checkpoints", other, {"test": 1}, {}, keep)
        other = checkpoints.restore(path, jax.eval_shape(lambda: other))
        for number in range(5, 10):
            other, _ = step(other, random_batch("tiny", 8, 32, 10, seed=number))
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True)
        row["different_leaves"] = sum(not np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)
        row["leaves"] = len(jax.tree.leaves(state))


def attention(results: Results, scale: Scale) -> None:
    """Every attention backend against the plain definition."""
    from gpu_parts.attention import BACKENDS, errors, inputs

    for Q, S in ((33, 33), (17, 33)) if scale.rehearse else ((512, 512), (114, 512), (333, 333)):
        for pattern in ("full", "padded"):
            for dtype in PRECISIONS:
                arguments = inputs(2, Q, S, 2, 16 if scale.rehearse else 64, PRECISIONS[dtype], pattern)
                for name, attend in BACKENDS.items():
                    names = {"backend": name, "queries": Q, "keys": S, "keys seen": pattern, "dtype": dtype}
                    with results.attempt(what="attention against its definition", **names) as row:
                        row |= errors(attend, arguments)
                if results.left() <= 0:
                    return
