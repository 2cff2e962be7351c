"""The verbs: each parses its arguments, calls one function of the same name, and prints its result."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from t5smith.base.errors import T5smithError, TrainingAtStake
from t5smith.cli.bench import bench
from t5smith.cli.commands import (
    MAX_BYTES,
    RECIPE_VERBS,
    ExportCommand,
    PrepareCommand,
    RecipeCommand,
    RecipesCommand,
    VocabCommand,
)
from t5smith.cli.flags import build, command_flags, read, recipe_flags
from t5smith.cli.generate import check_utf8, generate
from t5smith.cli.help import HELP_FLAGS, parse_or_help, show_recipe_verb
from t5smith.cli.import_model import import_model
from t5smith.cli.inspect_flags import InspectCommand
from t5smith.cli.output import function, print_columns, print_folder, print_json, print_lines
from t5smith.recipe.base import did_you_mean
from t5smith.recipe.toml import headline, load_recipe, presets

if TYPE_CHECKING:
    from t5smith.recipe.recipe import Recipe


def run_verb(verb: str, args: list[str]) -> None:
    """Run a verb with its arguments, or print its help.

    Raises:
      T5smithError: no such verb, arguments that cannot be used, or an error of the verb's function.
    """
    if verb in RECIPE_VERBS:
        _recipe_verb(verb, args)
    elif verb in OTHER_VERBS:
        OTHER_VERBS[verb](args)
    else:
        known = [*RECIPE_VERBS, *OTHER_VERBS]
        raise T5smithError(
            f"unknown command{did_you_mean(verb, known)}",
            where=verb,
            expected=f"one of {', '.join(known)}",
        )


def _recipe_verb(verb: str, args: list[str]) -> None:
    spec = RECIPE_VERBS[verb]
    named = bool(args) and not args[0].startswith("-")
    recipe = load_recipe(args[0] if named else None)
    if HELP_FLAGS & set(args):
        show_recipe_verb(verb, spec, recipe, everything="--help-all" in args)
        return
    own = command_flags(spec.command)
    values = read([*own, *recipe_flags(recipe)], args[1:] if named else args, verb)
    command = build(
        spec.command, {flag.setting: values.pop(flag.setting) for flag in own if flag.setting in values}
    )
    recipe = recipe.replace(**values)
    options = _run_folder_options(command)
    options |= {"retrain_vocab": True} if getattr(command, "retrain_vocab", False) else {}
    if isinstance(command, VocabCommand) and _compares(command, "--compare" in args):
        function("t5smith.reports.vocab_comparison", "compare")(
            recipe, command.compare, command.max_bytes, plot=command.plot, as_json=command.json
        )
        return
    if isinstance(command, VocabCommand) and command.trim:
        trim = function("t5smith.interop.trimming", "trim_vocabulary", "vocab")
        folder = trim(recipe, command.trim, min_count=command.min_count, max_pieces=command.max_pieces)
        print_folder(folder, "trimmed", command.json)
        return
    if isinstance(command, VocabCommand) and command.extend:
        extend = function("t5smith.interop.extension", "extend_vocabulary", "vocab")
        print_folder(extend(recipe, command.extend), "extended", command.json)
        return
    if isinstance(command, PrepareCommand):
        recipe = recipe.replace(**{"corpus.strict": True}) if command.strict else recipe
        if command.status:
            _show_status(recipe, command)
            return
        options |= {"verify": True} if command.verify else {}
    if isinstance(command, ExportCommand):
        names = ("step", "average", "encoder_only", "check", "push", "public", "revisions", "python")
        options |= {"runtime": command.for_} | {name: getattr(command, name) for name in names}
    stage = function(spec.module, verb)
    try:
        result = stage(recipe, **options)
    except TrainingAtStake as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        _confirm_restart(error)
        result = stage(recipe, **options, restart=True)
    if spec.kind is not None:
        print_folder(result, spec.kind, command.json)
    elif command.json:
        print_json(result)
    elif verb == "finetune":
        function("t5smith.reports.finetune_page", "show_scores")(result)
    else:
        function("t5smith.reports.terminal", "show")(result)


def _show_status(recipe: Recipe, command: PrepareCommand) -> None:
    """Print how far `prepare` is.

    Raises:
      T5smithError: other flags say what to do.
    """
    for flag in ("verify", "restart"):
        if getattr(command, flag):
            raise T5smithError("cannot be used together", where=f"--status and --{flag}", fix="choose one")
    found = function("t5smith.store.tasks.status", "prepare_status")(recipe)
    if command.json:
        print_json(vars(found) | {"failed": [vars(task) for task in found.failed]})
    else:
        print_lines(found.lines())


def _run_folder_options(command: RecipeCommand) -> dict[str, Any]:
    """What happens to trained steps, by the flags."""
    names = ("restart", "extend", "resume_from")
    options = {name: value for name in names if (value := getattr(command, name, None))}
    if len(options) > 1:
        flags = [f"--{name.replace('_', '-')}" for name in options]
        raise T5smithError("cannot be used together", where=" and ".join(flags), fix="choose one")
    return options


def _confirm_restart(error: TrainingAtStake) -> None:
    """Ask on a terminal whether trained steps may be archived.

    Raises:
      T5smithError: they may not.
    """
    from t5smith.base.progress import info

    info(f"t5smith: {error}")
    prompt = f"Move the {error.steps:,} trained steps to previous/ and train from the first step? [y/N] "
    print(prompt, end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        print(file=sys.stderr)  # Ctrl-D leaves the cursor behind the question
    if answer.strip().lower() not in ("y", "yes"):
        raise T5smithError("nothing was changed", where=error.where)


def _compares(command: VocabCommand, requested: bool) -> bool:
    """Whether tokenizers are compared."""
    if requested and not command.compare:
        raise T5smithError("nothing to compare", where="--compare", expected="one or more tokenizers")
    compares, trims = bool(command.compare), bool(command.trim)
    for flag, given, needed, there in (
        ("--plot", command.plot is not None, "--compare TOKENIZER", compares),
        ("--max-bytes", command.max_bytes != MAX_BYTES, "--compare TOKENIZER", compares),
        ("--min-count", command.min_count != 1, "--trim MODEL", trims),
        ("--max-pieces", command.max_pieces is not None, "--trim MODEL", trims),
    ):
        if given and not there:
            raise T5smithError(f"needs `{needed.split()[0]}`", where=flag, fix=f"add {needed}")
    chosen = {"--compare": compares, "--trim": trims, "--extend": bool(command.extend)}
    if sum(chosen.values()) > 1:
        flags = " and ".join(flag for flag, given in chosen.items() if given)
        raise T5smithError("cannot be used together", where=flags, fix="choose one")
    return compares


def _inspect(args: list[str]) -> None:
    command = parse_or_help(InspectCommand, args, "inspect")
    if command is None:
        return
    check_utf8([*command.noise, command.text or ""])
    function("t5smith.cli.inspect", "inspect")(command)


def _recipes(args: list[str]) -> None:
    command = parse_or_help(RecipesCommand, args, "recipes")
    if command is None:
        return
    known = {name: headline(path) for name, path in presets().items()}
    if command.json:
        print_json(known)
    else:
        print_columns(known)


OTHER_VERBS: dict[str, Callable[[list[str]], None]] = {
    "import": import_model,
    "generate": generate,
    "inspect": _inspect,
    "recipes": _recipes,
    "bench": bench,
}
