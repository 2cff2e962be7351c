"""Training a T5 1.1: t5smith beside transformers' PyTorch T5, eager and compiled, on this machine.

    python benchmarks/train_vs_transformers.py --size t5-v1.1-small --batch 8 --repeats 7

Same shapes, same precision (float32, then bfloat16: ours with bfloat16 operands and float32 sums, theirs
under autocast), AdamW (theirs fused), no dropout, untied heads, equal numbers of parameters, random tokens.
Every contender is a process that takes a step on request, so that all are compiled and warm before any is
timed, and they alternate; the figures are medians. The last line is one JSON object, in which
`ratio_float32` and `ratio_bfloat16` are our tokens per second over those of the faster of the two.

What it needs besides t5smith (torch, transformers) is installed from requirements/test.lock.txt if missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from t5smith.cli.environment import MALLOC, TUNABLES

ROOT = Path(__file__).resolve().parent.parent
CONTENDERS = ("ours", "eager", "compiled")
SIZES = {
    "t5-v1.1-small": {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
    "t5-v1.1-base": {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
}
# What t5smith's command line sets for itself; the peers get it too, where it helps them as well.
ENVIRONMENT = {TUNABLES: MALLOC}


def main() -> None:
    arguments = parsed()
    if arguments.contender:
        serve(arguments)
        return
    for module in ("torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            lock = ROOT / "requirements" / "test.lock.txt"
            subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", str(lock)], check=True)
    result: dict[str, object] = {
        "size": arguments.size,
        "batch": arguments.batch,
        "repeats": arguments.repeats,
    }
    for precision in arguments.precision.split(","):
        result |= compared(arguments, precision)
        print(json.dumps(result), file=sys.stderr)
    print(json.dumps(result))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="t5-v1.1-small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="steps per turn")
    parser.add_argument("--precision", default="float32,bfloat16")
    parser.add_argument("--remat", default="none", help="ours")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    return parser.parse_args()


def compared(arguments: argparse.Namespace, precision: str) -> dict[str, object]:
    """Figures of all contenders at one precision, taking turns."""
    children = {name: Child(name, arguments, precision) for name in CONTENDERS}
    try:
        facts = {name: child.ready() for name, child in children.items()}
        counts = {name: fact["parameters"] for name, fact in facts.items()}
        assert len(set(counts.values())) == 1, counts
        for child in children.values():
            child.seconds()
        seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for turn in range(arguments.repeats):
            for name, child in children.items():
                seconds[name].append(child.seconds())
            turn_seconds = ", ".join(f"{name} {seconds[name][-1]:.3f} s" for name in CONTENDERS)
            print(f"{precision} turn {turn + 1}: {turn_seconds}", file=sys.stderr)
        memory = {name: child.memory() for name, child in children.items()}
    finally:
        for child in children.values():
            child.close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    tokens = arguments.batch * (512 + 114)
    return {
        "parameters": counts["ours"],
        f"ratio_{precision}": round(min(medians["eager"], medians["compiled"]) / medians["ours"], 3),
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


class Child:
    """A contender in its own process, which takes steps on request."""

    def __init__(self, name: str, arguments: argparse.Namespace, precision: str) -> None:
        command = [sys.executable, __file__, "--contender", name, "--precision", precision]
        command += ["--size", arguments.size, "--batch", str(arguments.batch), "--remat", arguments.remat]
        command += ["--steps", str(arguments.steps)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT
        )

    def ready(self) -> dict[str, float]:
        """Wait until it is built and compiled; its facts."""
        return self._answer()

    def seconds(self) -> float:
        """Let it take its steps; seconds per step."""
        return self._request("step")["seconds"]

    def memory(self) -> float:
        """Its peak memory in bytes: of the device, on CPU of the process."""
        return self._request("memory")["bytes"]

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()

    def _request(self, word: str) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a contender died: {' '.join(map(str, self.process.args))}")
        return json.loads(line)


def serve(arguments: argparse.Namespace) -> None:
    """Be a contender: build, take one step, report, then answer each line on stdin."""
    # Whatever libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    begun = time.perf_counter()
    contender = ours(arguments) if arguments.contender == "ours" else theirs(arguments)
    step, memory, parameters = contender
    step()
    start = time.perf_counter() - begun
    print(json.dumps({"parameters": parameters, "start_seconds": start}), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() == "step":
            begun = time.perf_counter()
            for _ in range(arguments.steps):
                step()
            answer = {"seconds": (time.perf_counter() - begun) / arguments.steps}
        else:
            answer = {"bytes": memory()}
        print(json.dumps(answer), file=answers, flush=True)


def ours(arguments: argparse.Namespace):
    """T5smith: a step, the memory it takes, the number of parameters."""
    # Three processes share one card: none may take it all.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from t5smith.benchmarking.training import Trial
    from t5smith.model.params import parameter_count
    from t5smith.parallel.hardware import memory_in_use

    trial = Trial(arguments.size, arguments.batch, arguments.precision, remat=arguments.remat)
    return trial.run, lambda: (memory_in_use() or (0, 0))[1], parameter_count(trial.state.parameters)


def theirs(arguments: argparse.Namespace):
    """Transformers' T5: likewise."""
    import resource

    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = T5Config(
        vocab_size=32_128,
        d_kv=64,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        tie_word_embeddings=False,
        use_cache=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        **SIZES[arguments.size],
    )
    model = T5ForConditionalGeneration(config)
    # transformers 5 ties what is built from a config, whatever it says.
    if model.lm_head.weight is model.shared.weight:
        model.lm_head.weight = torch.nn.Parameter(model.shared.weight.detach().clone() * config.d_model**-0.5)
        model.config.tie_word_embeddings = False
    assert model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr()
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    inputs = torch.randint(3, 32_100, (arguments.batch, 512), device=device)
    labels = torch.randint(3, 32_100, (arguments.batch, 114), device=device)
    narrow = arguments.precision == "bfloat16"

    def loss():
        with torch.autocast(device, dtype=torch.bfloat16, enabled=narrow):
            return model(input_ids=inputs, labels=labels).loss

    if arguments.contender == "compiled":
        loss = torch.compile(loss)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    def memory() -> int:
        if device == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    return step, memory, sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main()
