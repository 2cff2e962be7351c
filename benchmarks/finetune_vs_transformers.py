"""Fine-tuning a T5 1.1: t5smith, padded and packed, beside transformers' Seq2SeqTrainer, on this machine.

    python benchmarks/finetune_vs_transformers.py --size t5-v1.1-small --batch 8 --steps 20 --repeats 3

All start from the same random weights and see the same 2,000 pairs: a line of the bundled text, and the same
words from the last to the first. Padded, they see them in the same order, so losses can be compared step by
step: `loss_difference` is the largest difference of the mean loss over five steps, relative to ours. Packed
rows hold several pairs; examples per second are those of pairs. AdamW at a constant rate, gradients clipped
at 1, no dropout. The Trainer pads to the longest pair of a batch. Each contender is a process of its own, in
turns; figures are medians of steps after the first five, then of turns. The last line is one JSON object.

What it needs besides t5smith (torch, transformers) is installed from requirements/test.lock.txt if missing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import lzma
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from t5smith.benchmarking.training import SIZES
from t5smith.cli.environment import MALLOC, TUNABLES
from train_vs_transformers import install_peers

PAIRS, WARM = 2_000, 5
RATE, BETAS, EPSILON = 1e-3, (0.9, 0.98), 1e-8
INPUT_LENGTH = TARGET_LENGTH = 128
CONTENDERS = ("padded", "packed", "trainer")


def main() -> None:
    arguments = parsed()
    if arguments.contender:
        found = {"trainer": trainer}.get(arguments.contender, ours)(arguments)
        print(json.dumps(found))
        return
    install_peers()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), arguments)
        result: dict[str, Any] = {"size": arguments.size, "batch": arguments.batch, "steps": arguments.steps}
        for precision in arguments.precision.split(","):
            result[precision] = compared(folder, precision, arguments)
            print(json.dumps(result), file=sys.stderr)
    print(json.dumps(result))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="t5-v1.1-small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="float32,bfloat16")
    parser.add_argument("--contender", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def make(folder: Path, arguments: argparse.Namespace) -> None:
    """Write the model, the pairs, and the pairs in the order of our batches."""
    import jax

    from t5smith.interop.huggingface_save import write_model
    from t5smith.interop.model import Model
    from t5smith.model.config import ModelConfig
    from t5smith.model.params import init
    from t5smith.text.files import SAMPLES
    from t5smith.vocabulary.vocabulary import Vocabulary

    (folder / "model").mkdir()
    vocabulary = Vocabulary.bundled()
    config = ModelConfig.create(SIZES[arguments.size], vocabulary.size)
    write_model(
        folder / "model", Model(init(config, jax.random.key(0)), config, vocabulary), model_max_length=512
    )
    with lzma.open(SAMPLES / "norwegian/debian-handbook-nb.train.txt.xz", "rt") as text:
        lines = [line.split()[:40] for line in text if len(line.split()) > 4][:PAIRS]
    pairs = [{"line": " ".join(words), "turned": " ".join(words[::-1])} for words in lines]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    run = run_of(folder, arguments, "float32", packing=False)
    batches, pad = run.setup.batches(), vocabulary.pad_id
    with (folder / "ordered.jsonl").open("w") as file:
        for b in range(arguments.steps):
            batch = batches[b]
            for inputs, targets in zip(batch["input_ids"], batch["targets"], strict=True):
                pair = {
                    "input_ids": inputs[inputs != pad].tolist(),
                    "labels": targets[targets != pad].tolist(),
                }
                file.write(json.dumps(pair) + "\n")


def run_of(folder: Path, arguments: argparse.Namespace, precision: str, *, packing: bool) -> Any:
    """Our fine-tuning."""
    from t5smith.finetuning.run import FinetuneRun
    from t5smith.recipe.recipe import Recipe

    task = {"train": [str(folder / "pairs.jsonl")], "input": "line", "target": "turned"}
    optimizer = {
        "name": "adamw",
        "learning_rate": RATE,
        "beta1": BETAS[0],
        "beta2": BETAS[1],
        "epsilon": EPSILON,
    }
    train = {
        "steps": arguments.steps,
        "batch_size": arguments.batch,
        "precision": precision,
        "dropout_rate": 0.0,
        "optimizer": optimizer,
        "schedule": {"name": "constant", "warmup_steps": 0},
    }
    settings = {
        "model": str(folder / "model"),
        "input_length": INPUT_LENGTH,
        "target_length": TARGET_LENGTH,
        "packing": packing,
        "tasks": {"turn": task},
        "train": train,
    }
    return FinetuneRun(Recipe.model_validate({"run_dir": folder / "run", "finetune": settings}))


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train with t5smith; returns losses, and pairs per second."""
    import jax

    from t5smith.objective.batches import prefetched
    from t5smith.training.base_setup import initial_state
    from t5smith.training.compile import compiled_step

    packing = arguments.contender == "packed"
    run = run_of(Path(arguments.folder), arguments, arguments.precision, packing=packing)
    setup = run.setup
    step, state = compiled_step(setup), initial_state(setup, None)
    losses, ends, pairs = [], [time.perf_counter()], []
    for batch in prefetched(setup.batches(), 0, arguments.steps, ahead=2, workers=0):
        state, metrics = step.run(state, batch)
        losses.append(float(jax.block_until_ready(metrics.nll)))
        ends.append(time.perf_counter())
        pairs.append(int(batch["target_segments"].max(axis=1).sum()) if packing else len(batch["targets"]))
    return figures(losses, ends, pairs)


def trainer(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train with the Trainer; returns the same."""
    import torch
    from transformers import (
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        TrainerCallback,
    )

    folder = Path(arguments.folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "model", dtype=torch.float32)
    model.config.dropout_rate = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    pairs = [json.loads(line) for line in (folder / "ordered.jsonl").open()]
    losses: list[float] = []
    ends: list[float] = []

    class Times(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            ends.extend([time.perf_counter()] if not ends else [])

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            losses.extend([logs["loss"]] if "loss" in logs else [])

    class InOrder(Seq2SeqTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(pairs)

    settings = Seq2SeqTrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=arguments.batch,
        max_steps=arguments.steps,
        learning_rate=RATE,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        adam_epsilon=EPSILON,
        max_grad_norm=1.0,
        lr_scheduler_type="constant",
        bf16=arguments.precision == "bfloat16",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    collator = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(folder / "model"), model=model)
    InOrder(
        model=model, args=settings, train_dataset=pairs, data_collator=collator, callbacks=[Times()]
    ).train()
    return figures(losses, ends, [arguments.batch] * arguments.steps)


def figures(losses: list[float], ends: list[float], pairs: list[int]) -> dict[str, Any]:
    """The loss of each step, and pairs per second after the first steps."""
    seconds = [end - start for start, end in itertools.pairwise(ends)][WARM:]
    return {
        "losses": losses,
        "examples_per_second": statistics.mean(pairs[WARM:]) / statistics.median(seconds),
    }


def compared(folder: str, precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Speeds of all contenders at one precision, taking turns, and how far the losses differ."""
    speeds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    losses: dict[str, list[float]] = {}
    for turn in range(arguments.repeats):
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--contender", name, "--folder", folder]
            command += ["--precision", precision, "--size", arguments.size]
            command += ["--batch", str(arguments.batch), "--steps", str(arguments.steps)]
            environment = {**os.environ, TUNABLES: MALLOC, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            found = json.loads(done.stdout.splitlines()[-1])
            speeds[name].append(found["examples_per_second"])
            losses[name] = found["losses"]
            print(f"{precision} turn {turn + 1}: {name} {speeds[name][-1]:.2f} examples/s", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in speeds.items()}

    def means(name: str) -> list[float]:
        return [statistics.mean(losses[name][at : at + 5]) for at in range(0, arguments.steps, 5)]

    pairs = zip(means("padded"), means("trainer"), strict=True)
    return {
        "examples_per_second": {name: round(value, 2) for name, value in medians.items()},
        "ratio_padded": round(medians["padded"] / medians["trainer"], 3),
        "ratio_packed": round(medians["packed"] / medians["trainer"], 3),
        "loss_difference": round(max(abs(one - other) / one for one, other in pairs), 5),
        "losses": {name: [round(loss, 4) for loss in own] for name, own in losses.items()},
    }


if __name__ == "__main__":
    main()
