"""The parts of a step as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from t5smith.base.wrapping import hanging_indent, unpadded

NAMES = {
    "products": "products of the dense layers",
    "attention": "attention",
    "head_and_loss": "head and loss",
    "optimizer": "optimizer",
    "everything_else": "everything else",
    "waiting": "waiting for input",
}
WIDTH = 80
"""Columns in a pipe."""


def show(
    parts: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any], console: Console | None = None
) -> None:
    """Print the parts, and below them what they were measured against.

    Args:
      parts: what :func:`t5smith.benchmarking.parts.measured_parts` returned.
      facts: the other figures of `bench train`.
      console: where to; default: stdout, 80 columns wide in a pipe.
    """
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH, highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("where a step's time goes", no_wrap=True)
    for title in ("seconds", "share", "limit", "limit/time"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, part in parts.items():
        if name == "waiting":  # it would come on top of the step
            table.add_row("step", f"{facts['seconds_per_step']:.4f}", f"{1:.1%}", style="bold")
        limit = part.get("limit_seconds")
        table.add_row(
            NAMES[name],
            f"{part['seconds']:.4f}",
            f"{part['share']:.1%}",
            "" if limit is None else f"{limit:.4f}",
            "" if limit is None else f"{limit / part['seconds']:.0%}",
        )
    with unpadded(console):
        console.print()
        console.print(table)
        for line in _notes(parts, facts):
            console.print(hanging_indent(Text(line, "dim"), console, 2), soft_wrap=True)


def _notes(parts: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]) -> list[str]:
    """What the figures mean, and how fast input is."""
    step, batch = facts["seconds_per_step"], parts["waiting"]["batch_seconds"]
    speed, memory = facts["measured_tflops"], facts["measured_bytes_per_second"] / 1e9
    products = f"{speed:.3g} TFLOP/s in products of {facts['precision']}"
    faster = f"{step / batch:,.0f}" if step > 10 * batch else f"{step / batch:.2g}"
    notes = [
        f"limits, measured in this run: {products}, {memory:.3g} GB/s of memory read and written",
        "everything else: norms, GELU, embeddings, sums; the step without the parts timed alone",
        f"input: one process makes a batch in {batch:.2g} s, {faster} × as fast as the step",
    ]
    alone = sum(part["seconds"] for name, part in parts.items() if name != "waiting")
    if alone > 1.001 * step:
        why = "the machine is busy, or the step small"
        notes.append(f"timed alone, the parts take {alone / step:.0%} of the step: {why}")
    return notes
