"""What the verbs print on stdout: folders, figures, JSON, and lists in columns."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast


def function(module: str, name: str, stage: str = "") -> Callable[..., Any]:
    """The function of a module that is imported now, when it is needed; `stage` names it meanwhile."""
    from t5smith.base.phase import phase

    with phase(stage or name, "starting", at_once=False):
        return getattr(importlib.import_module(module), name)


def print_json(value: object) -> None:
    """One line of JSON."""
    print(json.dumps(value, ensure_ascii=False, default=str))


def print_columns(descriptions: Mapping[str, str]) -> None:
    """Names, with their descriptions in a column beside them."""
    from rich.console import Console
    from rich.text import Text

    from t5smith.base.wrapping import hanging_indent

    console = Console()
    width = max(map(len, descriptions))
    for name, description in descriptions.items():
        line = f"{name:<{width}}  {' '.join(description.split())}"
        print(hanging_indent(Text(line), console, width + 2))


def print_lines(lines: Iterable[str]) -> None:
    """Lines that begin with a label of ten columns; on a terminal they are wrapped to its width."""
    from rich.console import Console
    from rich.text import Text

    from t5smith.base.wrapping import hanging_indent

    console = Console()
    for line in lines:
        print(hanging_indent(Text(line), console, 10))


def print_folder(folder: Path, kind: str, as_json: bool) -> None:
    """The folder that a verb made; as JSON with the facts of its manifest."""
    from t5smith.base.artifact import read_manifest
    from t5smith.base.progress import info

    facts = read_manifest(folder, kind, check_hashes=False).facts
    if as_json:
        print_json({"folder": str(folder), **facts})
        return
    if kind == "evaluation":
        for name, value in numbers(facts):
            info(f"{name:<28} {value:,}" if isinstance(value, int) else f"{name:<28} {value:.4f}")
    print(folder)


def numbers(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, int | float]]:
    """The numbers among facts, with dotted names for those in tables."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from numbers(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield prefix + name, value
