"""The verb `t5smith inspect`: check the flags, inspect, print and write."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.cli.inspect_flags import InspectCommand
from t5smith.inspection.query import Query
from t5smith.inspection.results import Inspection, inspected_batches, inspected_rows, inspected_text
from t5smith.pages.written import PAGES, PICTURES, kind_of, write_file
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.toml import load_recipe

OVERRIDES = ("noise_density", "mean_noise_span_length")


def inspect(command: InspectCommand) -> None:
    """Show what a command line selects.

    Raises:
      T5smithError: flags that contradict each other, or something that cannot be shown.
    """
    _check(command)
    with phase("inspect", "computing", at_once=False):
        found = _inspection(command)
    if command.html is not None:
        from t5smith.inspection.views.page import page

        write_file(command.html, page(found, full=command.full).encode())
    if command.plot is not None and found.statistics is not None:
        from t5smith.inspection.views.plot import picture

        kind = kind_of(command.plot, "--plot", PICTURES)
        write_file(command.plot, picture(found.statistics, kind, scale=1.5))
    if command.json:
        from t5smith.inspection.views.json_tree import inspection_json

        print(json.dumps(inspection_json(found), ensure_ascii=False))
    else:
        from t5smith.inspection.views.terminal import show

        show(found, Console(highlight=False), full=command.full)


def _inspection(command: InspectCommand) -> Inspection:
    query = _query(command)
    text = command.text if command.file is None else _read(command.file)
    if text is not None:
        return inspected_text(query, text, command.noise)
    if command.stats:
        return inspected_batches(query, command.batch, command.batches, held_out=command.held_out)
    return inspected_rows(query, command.batch, command.rows, held_out=command.held_out)


def _query(command: InspectCommand) -> Query:
    """What the flags name, with the objective and the seed that they change."""
    recipe = load_recipe(command.recipe) if command.recipe is not None else None
    query = Query.create(command.store, command.model, recipe, tokenizer=command.tokenizer, loss=command.loss)
    objective = _changed(query.recipe.objective, command)
    changed: dict[str, Any] = {"objective": objective.model_dump()}
    if command.seed is not None:
        changed["seed"] = command.seed
    return replace(query, recipe=query.recipe.replace(**changed))


def _changed(settings: ObjectiveSettings, command: InspectCommand) -> ObjectiveSettings:
    """The objective with the settings that flags change."""
    if command.objective is not None and command.objective != settings.name:
        # Another objective has settings of its own; only the lengths stay.
        kept = {"input_length": settings.input_length, "window_length": settings.window_length}
        settings = ObjectiveSettings.model_validate({"name": command.objective, **kept})
    changes: dict[str, Any] = {
        name: value for name in OVERRIDES if (value := getattr(command, name)) is not None
    }
    if command.roll:
        changes["roll"] = True
    if command.no_eos:
        changes["eos"] = False
    return ObjectiveSettings.model_validate(settings.model_dump() | changes)


def _check(command: InspectCommand) -> None:
    """Reject flags that would have no effect."""
    text = command.text is not None or command.file is not None
    store, stats = command.store is not None, command.stats
    if not (text or store or stats):
        raise T5smithError("nothing to inspect", expected="TEXT, --file, --store or --stats")
    if command.text is not None and command.file is not None:
        raise T5smithError("TEXT and --file exclude each other", where="--file", expected="one of them")
    if stats and text:
        raise T5smithError("does not take a text", where="--stats", expected="no TEXT and no --file")
    for flag, is_set, needed, needs in (
        ("--noise", bool(command.noise), text, "TEXT or --file"),
        ("--tokenizer", command.tokenizer is not None, text, "TEXT or --file"),
        ("--held-out", command.held_out, store and not text, "--store, without a text"),
        ("--batches", command.batches is not None, stats, "--stats"),
        ("--rows", command.rows != 1, store and not text and not stats, "--store, without a text or --stats"),
        ("--plot", command.plot is not None, stats, "--stats"),
        ("--loss", command.loss, command.model is not None or store, "--model or --store"),
        ("--model", command.model is not None and stats, store, "--store if there is --stats"),
    ):
        if is_set and not needed:
            raise T5smithError(f"needs {needs}", where=flag)
    if command.plot is not None:
        kind_of(command.plot, "--plot", PICTURES)
    if command.html is not None:
        kind_of(command.html, "--html", PAGES)
    for flag, value, least in (
        ("--batch", command.batch, 0),
        ("--rows", command.rows, 1),
        ("--batches", 1 if command.batches is None else command.batches, 1),
    ):
        if value < least:
            raise T5smithError(f"{value} is too small", where=flag, expected=f"{least} or more")


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise T5smithError(
            f"invalid UTF-8 at byte {error.start:,}", where=file, expected="a text file in UTF-8"
        ) from None
    except OSError as error:
        raise T5smithError(f"cannot be read ({(error.strerror or str(error)).lower()})", where=file) from None
