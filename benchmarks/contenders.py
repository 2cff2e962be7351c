"""Ways to train one T5, each in a process of its own, so that they can take turns: t5smith and PyTorch.

A contender is started with a :class:`Spec`, builds its model, takes one step, and then takes steps on
request; so all are compiled and warm before any is timed. All have random tokens, AdamW (PyTorch's fused),
no dropout, an untied head and equal numbers of parameters; with bfloat16 ours has bfloat16 operands and
float32 sums, PyTorch's runs under autocast.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Built:
    """A contender, ready to train.

    Attributes:
      step: takes some steps.
      memory: the peak of memory in bytes, of the device, on CPU of the process.
      parameters: the number of them.
      facts: further figures that it reports when it is ready.
      product_speed: ours: FLOP/s of large products in its precision, measured when called.
    """

    step: Callable[[int], object]
    memory: Callable[[], int]
    parameters: int
    facts: Mapping[str, float] = field(default_factory=dict)
    product_speed: Callable[[], float] = lambda: 0.0


@dataclass(frozen=True)
class Spec:
    """What a contender trains.

    Attributes:
      name: `ours` or `pytorch`; `our_update` and `pytorch_update` are the optimizer's update alone.
      shape: the sizes as the table `[model]` of a recipe names them.
      ids: of the vocabulary; both round it up to a multiple of 128 rows.
      batch, input_length, target_length: of the random batch.
      precision: `float32` or `bfloat16`.
      remat: ours: what the backward pass recomputes.
      attention: PyTorch's: transformers' implementation; empty: its own choice.
      compiled: PyTorch's: whether the loss goes through `torch.compile`.
      steps: per measurement.
      optimizer: its name in a recipe; PyTorch's: `adamw`, or `muon` for the matrices of the layers alone.
      rest: whether our update is only of what is no matrix of a layer.
    """

    name: str
    shape: Mapping[str, int]
    ids: int = 32_100
    batch: int = 8
    input_length: int = 512
    target_length: int = 114
    precision: str = "bfloat16"
    remat: str = "none"
    attention: str = ""
    compiled: bool = False
    steps: int = 1
    optimizer: str = "adamw"
    rest: bool = False

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.batch * (self.input_length + self.target_length)


class Contender:
    """A contender's process."""

    def __init__(self, spec: Spec, environment: Mapping[str, str]) -> None:
        self.spec = spec
        command = [sys.executable, str(Path(__file__).resolve()), json.dumps(asdict(spec))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
        )

    def ready(self) -> dict[str, Any]:
        """Wait until it has taken its first step; its `parameters`, `start_seconds` and further facts.

        Raises:
          RuntimeError: it failed; the message is its own.
        """
        return self._answer()

    def seconds(self) -> float:
        """Let it take its steps; seconds per step."""
        return self._request("step")

    def peak_bytes(self) -> int:
        """The peak of its memory."""
        return self._request("memory")

    def product_speed(self) -> float:
        """FLOP/s of large products in its precision, measured now; of `ours` only."""
        return self._request("products")

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()

    def _request(self, word: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._answer()["value"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the contender ended with code {self.process.wait()}: {self.spec}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def serve(spec: Spec) -> None:
    """Be a contender: build, take one step, report, then answer each line of stdin."""
    # Whatever libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    begun = time.perf_counter()
    try:
        built = CONTENDERS[spec.name](spec)
        built.step(1)
        answer: dict[str, Any] = {
            "parameters": built.parameters,
            "start_seconds": time.perf_counter() - begun,
            **built.facts,
        }
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() == "step":
            begun = time.perf_counter()
            built.step(spec.steps)
            value = (time.perf_counter() - begun) / spec.steps
        else:
            value = built.product_speed() if line.strip() == "products" else built.memory()
        print(json.dumps({"value": value}), file=answers, flush=True)


def ours(spec: Spec) -> Built:
    """T5smith's step."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
    import jax
    import jax.numpy as jnp

    from t5smith.benchmarking.trial import Trial
    from t5smith.model.params import parameter_count
    from t5smith.parallel.backend import PRECISIONS
    from t5smith.parallel.hardware import measured_tflops, memory_in_use
    from t5smith.recipe.model import ModelSettings

    jax.block_until_ready(jnp.zeros(1))
    start_bytes = _our_peak(memory_in_use())
    trial = Trial(
        ModelSettings.model_validate(dict(spec.shape)),
        spec.batch,
        spec.precision,
        ids=spec.ids,
        input_length=spec.input_length,
        target_length=spec.target_length,
        optimizer=spec.optimizer,
        remat=spec.remat,
    )
    memory = trial.step.memory_analysis()
    return Built(
        trial.run,
        lambda: _our_peak(memory_in_use()),
        parameter_count(trial.state.parameters),
        {
            "step_flops": trial.flops,
            "start_bytes": start_bytes,
            "state_bytes": memory.argument_size_in_bytes,
            "temporary_bytes": memory.temp_size_in_bytes,
        },
        lambda: measured_tflops.__wrapped__(PRECISIONS[spec.precision]) * 1e12,
    )


def _our_peak(in_use: tuple[int, int] | None) -> int:
    """The peak of memory in bytes."""
    return (in_use or (0, 0))[1]


def our_update(spec: Spec) -> Built:
    """T5smith's update of all parameters by one optimizer, with clipping, written over the old state."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
    from functools import partial

    import jax
    import jax.numpy as jnp
    import optax

    from t5smith.model.config import ModelConfig
    from t5smith.model.params import init, is_stacked
    from t5smith.parallel.backend import chosen_backend
    from t5smith.parallel.hardware import memory_in_use
    from t5smith.recipe.model import ModelSettings
    from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
    from t5smith.training.compile import compiled
    from t5smith.training.optimizer import apply_gradient, create_optimizer, directions, init_optimizer
    from t5smith.training.schedule import create_schedule

    config = ModelConfig.create(ModelSettings.model_validate(dict(spec.shape)), spec.ids)
    schedule = create_schedule(ScheduleSettings(name="constant"), 1e-3, 1_000)
    settings = OptimizerSettings.model_validate({"name": spec.optimizer})
    optimizer: Any = create_optimizer(settings, schedule, config.num_heads, chosen_backend())
    parameters = jax.jit(lambda: init(config, jax.random.key(0)))()
    gradient = jax.jit(lambda: init(config, jax.random.key(1)))()
    if spec.rest:
        stacked = jax.tree.leaves(is_stacked(parameters))
        parameters, gradient = (
            [leaf for leaf, skip in zip(jax.tree.leaves(tree), stacked, strict=True) if not skip]
            for tree in (parameters, gradient)
        )
        rate = optax.with_extra_args_support(optax.scale_by_learning_rate(1e-3))
        optimizer = optax.chain(directions(settings, config.num_heads, chosen_backend())[1], rate)
    state = jax.jit(partial(init_optimizer, optimizer))(parameters)
    applied = jnp.asarray(True)

    def update(parameters: Any, state: Any, gradient: Any, applied: Any) -> Any:
        return apply_gradient(optimizer, gradient, state, parameters, applied)[:2]

    arguments = (parameters, state, gradient, applied)
    program = compiled(jax.jit(update, donate_argnums=(0, 1)).lower(*arguments))
    holder = [parameters, state]
    number = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    del arguments, parameters, state

    def step(steps: int) -> None:
        for _ in range(steps):
            holder[:] = program(*holder, gradient, applied)
        jax.block_until_ready(holder)

    return Built(step, lambda: _our_peak(memory_in_use()), number)


def pytorch(spec: Spec) -> Built:
    """The step of transformers' T5."""
    import torch

    model, device = _torch_model(spec)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    inputs = torch.randint(3, spec.ids, (spec.batch, spec.input_length), device=device)
    targets = torch.randint(3, spec.ids, (spec.batch, spec.target_length), device=device)

    def loss() -> Any:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=spec.precision == "bfloat16"):
            return model(input_ids=inputs, labels=targets).loss

    if spec.compiled:
        loss = torch.compile(loss)

    def step(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    number = sum(parameter.numel() for parameter in model.parameters())
    return Built(step, lambda: _torch_peak(device), number)


def pytorch_update(spec: Spec) -> Built:
    """PyTorch's fused AdamW on all parameters, or its Muon on the matrices of the layers; no clipping."""
    import torch

    model, device = _torch_model(spec)
    matrices = [parameter for name, parameter in model.named_parameters() if ".layer." in name]
    matrices = [parameter for parameter in matrices if parameter.ndim == 2 and parameter.shape[0] > 32]
    parameters = matrices if spec.optimizer == "muon" else list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    if spec.optimizer == "muon":
        optimizer = torch.optim.Muon(parameters, lr=1e-3, weight_decay=0.0)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    def step(steps: int) -> None:
        for _ in range(steps):
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return Built(step, lambda: _torch_peak(device), sum(parameter.numel() for parameter in parameters))


def _torch_model(spec: Spec) -> tuple[Any, str]:
    """transformers' T5 on the device, with an untied head."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = ("d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads")
    config = T5Config(
        vocab_size=-(-spec.ids // 128) * 128,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        tie_word_embeddings=False,
        use_cache=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        **{name: spec.shape[name] for name in names},
    )
    if spec.attention:
        config._attn_implementation = spec.attention
    model = T5ForConditionalGeneration(config)
    if spec.attention not in ("", model.config._attn_implementation):
        raise RuntimeError(f"transformers uses {model.config._attn_implementation} instead")
    # transformers 5 ties what is built from a config, whatever it says.
    if model.lm_head.weight is model.shared.weight:
        model.lm_head.weight = torch.nn.Parameter(model.shared.weight.detach().clone() * config.d_model**-0.5)
        model.config.tie_word_embeddings = False
    assert model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr()
    model = model.to(device).train()
    return model, device


def _torch_peak(device: str) -> int:
    """The peak of memory in bytes, of the device, on CPU of the process."""
    import resource

    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


CONTENDERS = {"ours": ours, "our_update": our_update, "pytorch": pytorch, "pytorch_update": pytorch_update}

if __name__ == "__main__":
    serve(Spec(**json.loads(sys.argv[1])))
