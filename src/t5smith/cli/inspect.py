"""The verb `t5smith inspect`: what was asked for on the command line, shown, printed and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from t5smith.base.errors import T5smithError
from t5smith.cli.commands import InspectCommand
from t5smith.inspection.query import Source, View, of_counts, of_store, of_text
from t5smith.inspection.views.page import page, view_json
from t5smith.inspection.views.terminal import show_view
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import load_recipe

OVERRIDES = ("noise_density", "mean_noise_span_length")


def inspect(command: InspectCommand) -> None:
    """Show what a command line asks for.

    Raises:
      T5smithError: flags that do not go together, or what cannot be shown.
    """
    _check(command)
    view = _view(command)
    if command.html is not None:
        _write(command.html, page(view, full=command.full).encode())
    if command.plot is not None and view.stats is not None:
        from t5smith.inspection.views.plot import png

        _write(command.plot, png(view.stats, scale=1.5))
    if command.json:
        print(json.dumps(view_json(view), ensure_ascii=False))
    else:
        show_view(view, Console(highlight=False), full=command.full)


def _view(command: InspectCommand) -> View:
    source = _source(command)
    text = command.text if command.file is None else _read(command.file)
    if text is not None:
        return of_text(source, text, command.noise)
    if command.stats:
        return of_counts(source, first=command.batch, batches=command.batches, held_out=command.held_out)
    return of_store(source, batch=command.batch, rows=command.rows, held_out=command.held_out)


def _source(command: InspectCommand) -> Source:
    """The objective: the recipe's, or else the run's, or else the model's run's, or T5's; flags change it."""
    recipe = load_recipe(command.recipe) if command.recipe is not None else None
    run = model = None
    if command.store is not None:
        from t5smith.inspection.run_folder import recipe_of

        run = recipe_of(command.store, recipe)
    folder = command.model
    if folder is None and command.loss:
        folder = run.folder if run is not None else None
    if folder is not None:
        from t5smith.inspection.run_folder import SETTINGS, load_model, recipe_of

        model = load_model(folder, recipe)
        if recipe is None and run is None and (folder / SETTINGS).is_file():
            recipe = recipe_of(folder)
    default = Recipe()
    objective = _changed((recipe or run or default).objective, command)
    seed = command.seed if command.seed is not None else (run or recipe or default).seed
    if run is not None:
        run = run.replace(objective=objective.model_dump(), seed=seed)
    return Source(run, objective, seed, model, command.tokenizer)


def _changed(settings: ObjectiveSettings, command: InspectCommand) -> ObjectiveSettings:
    """The objective with what the flags change of it."""
    changes: dict[str, Any] = {}
    if command.objective is not None and command.objective != settings.name:
        # Another objective has settings of its own; only the lengths stay.
        kept = {"input_length": settings.input_length, "window_length": settings.window_length}
        settings = ObjectiveSettings.model_validate({"name": command.objective, **kept})
    for name in OVERRIDES:
        if (value := getattr(command, name)) is not None:
            changes[name] = value
    if command.roll:
        changes["roll"] = True
    if command.no_eos:
        changes["eos"] = False
    return ObjectiveSettings.model_validate(settings.model_dump() | changes)


def _check(command: InspectCommand) -> None:
    """Refuse what would be silently ignored."""

    def refuse(flag: str, given: bool, needs: str) -> None:
        if given:
            raise T5smithError("there is no use for this", where=flag, expected=needs)

    text = command.text is not None or command.file is not None
    store, stats = command.store is not None, command.stats
    if not (text or store or stats):
        raise T5smithError("nothing to inspect", expected="TEXT, --file, --store or --stats")
    if command.text is not None and command.file is not None:
        raise T5smithError("a text and a file", where="--file", expected="one of them")
    refuse("--stats", stats and text, "no TEXT and no --file")
    refuse("--noise", bool(command.noise) and not text, "with TEXT or --file")
    refuse("--tokenizer", command.tokenizer is not None and not text, "with TEXT or --file")
    refuse("--held-out", command.held_out and (not store or text), "with --store and without a text")
    refuse("--batches", command.batches is not None and not stats, "with --stats")
    refuse("--rows", command.rows != 1 and (not store or text or stats), "with --store")
    refuse("--plot", command.plot is not None and not stats, "with --stats")
    refuse("--loss", command.loss and command.model is None and not store, "with --model or --store")
    refuse("--loss", bool(command.loss or command.model) and stats and not store, "with --store")
    for flag, value, least in (
        ("--batch", command.batch, 0),
        ("--rows", command.rows, 1),
        ("--batches", 1 if command.batches is None else command.batches, 1),
    ):
        if value < least:
            raise T5smithError(f"{value} cannot be used", where=flag, expected=f"{least} or more")


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise T5smithError("not UTF-8 text", where=file) from None
    except OSError as error:
        raise T5smithError(f"cannot be read ({(error.strerror or str(error)).lower()})", where=file) from None


def _write(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise T5smithError(f"cannot be written ({reason})", where=file) from None
