"""Recipes: the bundled ones, those of run folders, reading a file, and writing one.

Errors name the file, the line and the setting, and what the setting accepts.
"""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from t5smith.base.errors import T5smithError
from t5smith.base.hub import download_first
from t5smith.recipe.base import did_you_mean
from t5smith.recipe.corpus import starting_from
from t5smith.recipe.recipe import Recipe

FOLDER = Path(__file__).parent / "recipes"
RUN_SETTINGS = "recipe.toml"
"""The recipe that a run folder was made with."""
RELATIVE_TO = "relative_to"
"""A key beside the settings: the folder from which relative paths of text and tokenizer start."""


def presets() -> dict[str, Path]:
    """The recipes that are bundled with t5smith: name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def headline(path: Path) -> str:
    """The first comment line of a recipe file, which describes it."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").rstrip()


def load_recipe(recipe: str | Path | None) -> Recipe:
    """Load a bundled recipe, a file, or the recipe of a run folder; None gives the defaults.

    Without a `name` in a file, the run is named after the file. The name of a bundled recipe goes before a
    folder of the same name, which is written `./NAME`.

    Args:
      recipe: the name of a bundled recipe, a file whose name ends in `.toml`, or a run folder. The recipe of
        a folder has that folder as its `run_dir`, wherever the folder was made.

    Raises:
      T5smithError: no such recipe, file or folder, invalid TOML, or a setting that cannot be used.
    """
    if recipe is None:
        return Recipe()
    name, known = str(recipe), presets()
    if name in known:
        return _read(known[name])
    if name and Path(name).is_dir():
        return run_recipe(Path(name))
    if name.endswith(".toml"):
        return _read(Path(name))
    if "/" in name:
        fix = ON_THE_HUB if download_first(name) else None
        raise T5smithError("there is no such folder", where=name, expected=_EXPECTED, fix=fix)
    raise T5smithError(
        f"unknown recipe{did_you_mean(name, known)}",
        where=repr(name) if not name.strip() else name,
        expected=f"{', '.join(known)}, {_EXPECTED}",
    )


_EXPECTED = "a run folder, or a file whose name ends in .toml"
ON_THE_HUB = "a name on the Hugging Face Hub is no recipe; as a vocabulary it goes in vocab.tokenizer"


def run_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder, with that folder as its `run_dir`.

    Raises:
      T5smithError: it has none, or one that cannot be used.
    """
    if (folder / RUN_SETTINGS).is_file():
        return _read(folder / RUN_SETTINGS).replace(run_dir=folder)
    above = folder.resolve().parent
    raise T5smithError(
        f"there is no {RUN_SETTINGS}",
        where=folder,
        expected=_EXPECTED,
        fix=f"name the run folder {above}" if (above / RUN_SETTINGS).is_file() else None,
    )


def saved_recipe(folder: Path) -> Recipe | None:
    """The recipe of a run folder; None without one that can be used."""
    try:
        return run_recipe(folder)
    except T5smithError:
        return None


def save_run_settings(recipe: Recipe, stage: str | None = None) -> None:
    """Write the recipe into its run folder, so that the folder can be named instead of it.

    Args:
      recipe: what to write.
      stage: the stage that was called alone. Settings of other stages stay as they were, so that the folder
        still describes what is in it. Default: all stages were checked.

    Raises:
      T5smithError: the folder cannot be written to.
    """
    from t5smith.base.artifact import disk_errors, write_atomically
    from t5smith.base.run_folder import trained_steps

    file = recipe.folder / RUN_SETTINGS
    if stage is not None and (before := saved_recipe(recipe.folder)):
        if stage == "train":
            mixing = {name: getattr(recipe.corpus, name) for name in ("weights", "temperature")}
            made = {name: getattr(before, name) for name in ("vocab", "cleaning", "prepare")}
            recipe = recipe.model_copy(update=made | {"corpus": before.corpus.model_copy(update=mixing)})
        elif trained_steps(recipe.folder):
            return
    text = f"{RELATIVE_TO} = {_toml(str(Path.cwd()))}\n{dump(recipe)}"
    with disk_errors(recipe.folder):
        if not file.is_file() or file.read_bytes() != text.encode():
            write_atomically(file, text)


def dump(recipe: Recipe) -> str:
    """The recipe as TOML with every setting; :func:`load_recipe` reads an equal recipe from it."""
    # TOML has no paths, tuples or null. Mode json turns paths into texts and tuples into lists. A setting
    # that is None is omitted if None is its default, and otherwise written as "none".
    tree = recipe.model_dump(mode="json")
    return "\n".join(_table("", tree, Recipe().model_dump(mode="json"))) + "\n"


def _table(name: str, table: Mapping[str, Any], default: Mapping[str, Any]) -> Iterator[str]:
    if name:
        yield f"\n[{name}]"
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    for key, value in table.items():
        if key not in inner and not (value is None and default.get(key) is None):
            yield f"{key} = {_toml(value)}"
    for key, value in inner.items():
        # A table that the user names, such as a task, has no defaults here.
        yield from _table(f"{name}.{key}" if name else key, value, default.get(key, {}))


def _toml(value: str | float | bool | list[str] | None) -> str:
    # TOML spells texts, numbers, booleans and flat lists as JSON does, except for the delete character.
    return json.dumps("none" if value is None else value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read(path: Path) -> Recipe:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise T5smithError(
            "no such recipe file", where=path, fix=f"bundled recipes: {', '.join(presets())}"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise T5smithError("not UTF-8 text", where=f"{path}:{line}", fix="save the file as UTF-8") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise T5smithError(f"cannot be read ({reason})", where=path, expected="a recipe file") from None
    # Lines end with "\n" only, as in tomllib and in editors.
    text = text.replace("\r\n", "\n")
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(path, text, str(error)) from None
    tree.setdefault("name", _name_of(path))
    start = tree.pop(RELATIVE_TO, None)
    try:
        _reject_dates(tree, ())
        return _starting_from(start, Recipe.model_validate(tree))
    except T5smithError as error:
        place = _line_of(text, error.where or "")
        raise T5smithError(
            error.what,
            where=f"{path}:{place}: {error.where}" if place else f"{path}: {error.where}",
            expected=error.expected,
            fix=error.fix,
        ) from None


def _starting_from(start: object, recipe: Recipe) -> Recipe:
    """A recipe with its paths of text and tokenizer as they are meant in the folder `start`.

    They stay as they are if that is the current folder, or does not exist, as on another machine.
    """
    if start is None:
        return recipe
    if not isinstance(start, str) or not Path(start).is_absolute():
        expected = "a folder as an absolute path"
        raise T5smithError(f"{start!r} cannot be used", where=RELATIVE_TO, expected=expected)
    folder = Path(start)
    if not folder.is_dir() or folder.samefile(Path.cwd()):
        return recipe
    changes: dict[str, Any] = {
        f"corpus.{split}": tuple(starting_from(folder, pattern) for pattern in patterns)
        for split in ("train", "valid", "exclude")
        if (patterns := getattr(recipe.corpus, split))
    }
    # A name that is not a path here is one on the Hub.
    tokenizer = recipe.vocab.tokenizer
    with contextlib.suppress(OSError):  # such as a name that is too long for a path
        if tokenizer and (found := folder / tokenizer).exists():
            changes["vocab.tokenizer"] = str(found)
    for name, task in recipe.finetune.tasks.items():
        changes |= {
            f"finetune.tasks.{name}.{split}": tuple(starting_from(folder, one) for one in patterns)
            for split in ("train", "dev", "test")
            if (patterns := getattr(task, split))
        }
    with contextlib.suppress(OSError):
        if recipe.finetune.model and (found := folder / recipe.finetune.model).exists():
            changes["finetune.model"] = str(found)
    return recipe.replace(**changes)


def _name_of(path: Path) -> str:
    """A recipe's name from its file's name; characters that a name cannot have become hyphens."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-") or Recipe().name


def _not_toml(path: Path, text: str, message: str) -> T5smithError:
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    what = message[: found.start()] if found else message
    line = int(found[1]) if found and found[1] else text.rstrip("\n").count("\n") + 1
    return T5smithError(
        f"not TOML: {what[0].lower() + what[1:]}",
        where=f"{path}:{line}",
        fix='write settings as `key = value`, tables as `[name]`, and strings in "quotes"',
    )


def _reject_dates(value: object, field: tuple[str, ...]) -> None:
    """Reject dates and times, which TOML has and no setting accepts."""
    if isinstance(value, dict):
        for key, inner in cast("dict[str, object]", value).items():
            _reject_dates(inner, (*field, key))
    elif isinstance(value, list):
        for index, inner in enumerate(cast("list[object]", value)):
            _reject_dates(inner, (*field, str(index)))
    elif not isinstance(value, str | int | float):
        raise T5smithError(
            f"a date or time ({value}) cannot be used",
            where=".".join(field),
            expected="a number, true, false, or a string in quotes",
        )


def _line_of(text: str, field: str) -> int | None:
    """The number of the line that sets a dotted field in a valid TOML file.

    This is the first line after which tomllib finds the field, so tables, dotted keys, inline tables,
    comments and texts over several lines are all counted correctly.
    """
    parts = field.split(".")
    lines = text.split("\n")
    depth = _depth(tomllib.loads(text), parts)
    start = 0
    for end in range(1, len(lines) + 1):
        try:
            tree = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue  # within a value of several lines
        if depth and _depth(tree, parts) == depth:
            return start + 1
        start = end
    return None


def _depth(tree: object, parts: list[str]) -> int:
    """The number of leading parts of a dotted field that a tree has."""
    depth = 0
    while depth < len(parts) and isinstance(tree, dict) and parts[depth] in tree:
        tree = cast("dict[str, object]", tree)[parts[depth]]
        depth += 1
    return depth
