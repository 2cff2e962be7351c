"""Recipe files: the bundled ones, reading a file, and writing one.

Errors name the file, the line and the setting, and what the setting accepts.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe

FOLDER = Path(__file__).parent / "recipes"


def presets() -> dict[str, Path]:
    """The recipes that are bundled with t5smith: name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def headline(path: Path) -> str:
    """The first comment line of a recipe file, which describes it."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").rstrip()


def load_recipe(recipe: str | Path | None) -> Recipe:
    """Load a bundled recipe by its name, or a file whose name ends in `.toml`; None gives the defaults.

    Without a `name` in the file, the run is named after the file.

    Raises:
      T5smithError: an unknown bundled recipe, no such file, invalid TOML, or a setting that cannot be used.
    """
    if recipe is None:
        return Recipe()
    if str(recipe).endswith(".toml"):
        return _read(Path(recipe))
    known = presets()
    if str(recipe) in known:
        return _read(known[str(recipe)])
    near = difflib.get_close_matches(str(recipe), known, n=1)
    raise T5smithError(
        "unknown recipe",
        where=recipe,
        expected=f"one of {', '.join(known)}, or a file whose name ends in .toml",
        fix=f"did you mean {near[0]!r}?" if near else None,
    )


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
        if key not in inner and not (value is None and default[key] is None):
            yield f"{key} = {_toml(value)}"
    for key, value in inner.items():
        yield from _table(f"{name}.{key}" if name else key, value, default[key])


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
    try:
        _reject_dates(tree, ())
        return Recipe.model_validate(tree)
    except T5smithError as error:
        place = _line_of(text, error.where or "")
        raise T5smithError(
            error.what,
            where=f"{path}:{place}: {error.where}" if place else f"{path}: {error.where}",
            expected=error.expected,
            fix=error.fix,
        ) from None


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
