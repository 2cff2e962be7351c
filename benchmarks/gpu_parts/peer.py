"""t5smith beside transformers' T5 in PyTorch on the same card: every way to train it, taking turns.

Each contender is a process of its own that takes a step when it is sent a line, so that all are compiled and
warm before any is timed. Random tokens, AdamW (PyTorch's fused), no dropout, untied heads, equal numbers of
parameters; ours with bfloat16 operands and float32 sums, theirs under bfloat16 autocast.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from gpu_parts.results import Results, reason
from gpu_parts.scale import Scale

ATTENTION = ("eager", "sdpa", "flex_attention")
SHAPES = {
    "tiny": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 512},
    "t5-v1.1-small": {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
    "t5-v1.1-base": {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
}


def measure(results: Results, scale: Scale) -> None:
    """Fill the part `peer`."""
    results.run([(size, lambda size=size: compared(results, scale, size)) for size in scale.sizes])


def compared(results: Results, scale: Scale, size: str) -> None:
    """Every contender once; then ours and PyTorch's best in turns."""
    # Compiling for a CPU takes half a minute: the rehearsal does it once.
    compiled = ATTENTION[:1] if scale.rehearse else ATTENTION
    contenders = [*ATTENTION, *(f"{attention}+compiled" for attention in compiled)]
    alone: dict[str, float] = {}
    for name in ("ours", *contenders):
        if results.left() <= 0:
            break
        with results.attempt(what=f"{size}, batch {scale.batch}, each alone", contender=name) as row:
            with_child = Child(name, size, scale, results.left())
            try:
                row |= with_child.ready()
                seconds = [with_child.seconds() for _ in range(scale.repeats)]
                alone[name] = statistics.median(seconds)
                row |= figures(scale, alone[name]) | with_child.memory()
            finally:
                with_child.close()
    theirs = {name: seconds for name, seconds in alone.items() if name != "ours"}
    if "ours" not in alone or not theirs:
        return
    best = min(theirs, key=lambda name: theirs[name])
    turns = {name: Child(name, size, scale, results.left()) for name in ("ours", best)}
    try:
        with results.attempt(what="ours over PyTorch's best, taking turns", model=size, pytorch=best) as row:
            for child in turns.values():
                child.ready()
            seconds_of: dict[str, list[float]] = {name: [] for name in turns}
            for _ in range(scale.repeats):
                for name, child in turns.items():
                    seconds_of[name].append(child.seconds())
            medians = {name: statistics.median(values) for name, values in seconds_of.items()}
            row["ours_tokens_per_second"] = figures(scale, medians["ours"])["tokens_per_second"]
            row["pytorch_tokens_per_second"] = figures(scale, medians[best])["tokens_per_second"]
            row["ratio"] = medians[best] / medians["ours"]
    finally:
        for child in turns.values():
            child.close()


def figures(scale: Scale, seconds: float) -> dict[str, float]:
    """What a step's seconds come to."""
    tokens = scale.batch * (scale.input_length + scale.target_length)
    return {"seconds_per_step": seconds, "tokens_per_second": tokens / seconds}


class Child:
    """A contender in a process of its own."""

    def __init__(self, name: str, size: str, scale: Scale, limit: float) -> None:
        command = [sys.executable, sys.argv[0], "--contender", name, "--size", size]
        command += ["--rehearse"] if scale.rehearse else []
        # Two processes share a card: neither may take all of its memory.
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.ends = time.monotonic() + limit
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ready(self) -> dict[str, Any]:
        """Wait until it is compiled; its parameters and the seconds of its start."""
        return self._answer()

    def seconds(self) -> float:
        """Let it take its steps; seconds per step."""
        return self._ask("step")["seconds"]

    def memory(self) -> dict[str, Any]:
        """The most memory of the device that it held."""
        return self._ask("memory")

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()

    def _ask(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended with code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def serve(name: str, size: str, scale: Scale) -> None:
    """Be a contender: build, take one step, print one line; then answer each line of stdin."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not come between the answers

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    begun = time.perf_counter()
    try:
        step, memory, parameters = ours(size, scale) if name == "ours" else theirs(name, size, scale)
        step()
    except Exception as error:
        answer(error=reason(error))
        return
    answer(parameters=parameters, start_seconds=round(time.perf_counter() - begun, 2))
    for line in sys.stdin:
        if line.strip() == "step":
            begun = time.perf_counter()
            for _ in range(scale.steps):
                step()
            answer(seconds=(time.perf_counter() - begun) / scale.steps)
        else:
            answer(peak_bytes=memory())


def ours(size: str, scale: Scale) -> tuple[Any, Any, int]:
    """T5smith: a step, the memory it takes, the number of parameters."""
    from gpu_parts.models import TINY
    from t5smith.benchmarking import training
    from t5smith.model.params import parameter_count
    from t5smith.parallel.hardware import memory_in_use

    training.SIZES["tiny"] = TINY
    if size == "tiny":
        training.VOCABULARY = 500
    trial = training.Trial(
        size, scale.batch, "bfloat16", input_length=scale.input_length, target_length=scale.target_length
    )
    return trial.run, lambda: (memory_in_use() or (0, 0))[1], parameter_count(trial.state.parameters)


def theirs(name: str, size: str, scale: Scale) -> tuple[Any, Any, int]:
    """Transformers' T5: likewise."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    attention, _, way = name.partition("+")
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {"vocab_size": 32_128, "d_kv": 64, **SHAPES[size]}
    config = T5Config(
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        tie_word_embeddings=False,
        use_cache=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        **sizes,
    )
    config._attn_implementation = attention
    model = T5ForConditionalGeneration(config)
    if model.config._attn_implementation != attention:
        raise RuntimeError(f"transformers uses {model.config._attn_implementation} instead")
    # transformers 5 ties what is built from a config, whatever it says.
    if model.lm_head.weight is model.shared.weight:
        model.lm_head.weight = torch.nn.Parameter(model.shared.weight.detach().clone() * config.d_model**-0.5)
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    ids = sizes["vocab_size"] - 28
    inputs = torch.randint(3, ids, (scale.batch, scale.input_length), device=device)
    targets = torch.randint(3, ids, (scale.batch, scale.target_length), device=device)
    torch.set_float32_matmul_precision("high")

    def loss() -> Any:
        with torch.autocast(device, dtype=torch.bfloat16):
            return model(input_ids=inputs, labels=targets).loss

    if way == "compiled":
        loss = torch.compile(loss)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    def memory() -> int:
        return torch.cuda.max_memory_allocated() if device == "cuda" else 0

    return step, memory, sum(parameter.numel() for parameter in model.parameters())
