"""t5smith beside transformers' T5 in PyTorch on the same card: every way to train it, taking turns."""

from __future__ import annotations

import contextlib
import statistics
from typing import Any

from contenders import Contender, Spec
from gpu_parts.models import ids_of, settings_of
from gpu_parts.results import Results
from gpu_parts.scale import Scale

ATTENTION = ("eager", "sdpa", "flex_attention")
# Two processes share a card: neither may take all of its memory.
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def measure(results: Results, scale: Scale) -> None:
    """Fill the part `peer`."""
    results.run([(size, lambda size=size: size_by_size(results, scale, size)) for size in scale.sizes])


def size_by_size(results: Results, scale: Scale, size: str) -> None:
    """The largest batch of which both sides can hold a step at the same time."""
    for batch in scale.peer_batches:
        if results.left() <= 0 or compared(results, scale, size, batch):
            return


def specs_of(scale: Scale, size: str, batch: int) -> dict[str, Spec]:
    """Ours, and each way to train with PyTorch, by name."""

    def spec(name: str, **options: Any) -> Spec:
        shape = settings_of(size).model_dump()
        lengths = {"input_length": scale.input_length, "target_length": scale.target_length}
        return Spec(name, shape, ids_of(size), batch, **lengths, steps=scale.steps, **options)

    # Compiling for a CPU takes half a minute: the rehearsal does it once.
    compiled = ATTENTION[:1] if scale.rehearse else ATTENTION
    return {
        "ours": spec("ours"),
        **{name: spec("pytorch", attention=name) for name in ATTENTION},
        **{f"{name}+compiled": spec("pytorch", attention=name, compiled=True) for name in compiled},
    }


def compared(results: Results, scale: Scale, size: str, batch: int) -> bool:
    """Every contender alone, then ours and PyTorch's best in turns; whether there is a ratio."""
    specs = specs_of(scale, size, batch)
    alone: dict[str, float] = {}
    for name, spec in specs.items():
        if results.left() <= 0:
            break
        with (
            results.attempt(what=f"{size}, batch {batch}, each alone", contender=name) as row,
            contextlib.closing(Contender(spec, ENVIRONMENT)) as contender,
        ):
            row |= contender.ready()
            alone[name] = statistics.median(contender.seconds() for _ in range(scale.repeats))
            row |= {"seconds_per_step": alone[name], "tokens_per_second": spec.tokens / alone[name]}
            row["peak_bytes"] = contender.peak_bytes()
        if "ours" not in alone:
            return False  # too large for us: a smaller batch is next
    theirs = {name: seconds for name, seconds in alone.items() if name != "ours"}
    if not theirs:
        return False
    best = min(theirs, key=lambda name: theirs[name])
    names = {"model": size, "batch": batch, "pytorch": best}
    with (
        results.attempt(what="ours over PyTorch's best, taking turns", **names) as row,
        contextlib.closing(Contender(specs["ours"], ENVIRONMENT)) as ours,
        contextlib.closing(Contender(specs[best], ENVIRONMENT)) as pytorch,
    ):
        parameters = {contender.ready()["parameters"] for contender in (ours, pytorch)}
        if len(parameters) > 1:
            raise RuntimeError(f"the models differ in size: {sorted(parameters)}")
        turns = [(ours.seconds(), pytorch.seconds()) for _ in range(scale.repeats)]
        medians = [statistics.median(values) for values in zip(*turns, strict=True)]
        tokens = specs["ours"].tokens
        row["ours_tokens_per_second"], row["pytorch_tokens_per_second"] = (tokens / s for s in medians)
        row["ratio"] = medians[1] / medians[0]
    return "ratio" in results.rows[-1]
