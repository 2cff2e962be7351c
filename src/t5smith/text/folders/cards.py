"""The description of a data set from the Hub: its card, and the older `dataset_infos.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

from t5smith.base.errors import T5smithError
from t5smith.base.hub import first_line

CARD, INFOS = "README.md", "dataset_infos.json"
"""Files that describe a data set of the Hub."""
MAX_CARD = 1 << 16

_CARD_KEY = re.compile(
    r"^(configs|dataset_info|license|languages?|task_categories|task_ids|size_categories|pretty_name|tags"
    r"|annotations_creators|language_creators|multilinguality|source_datasets|viewer|extra_gated_\w+)\s*:",
    re.MULTILINE,
)
NAME_FILES = "name the files to train on, as FOLDER/data/train-*"


def has_card(folder: Path, names: Collection[str]) -> bool:
    """Whether a folder is a data set as the Hub has it: by the description of it among its files' names."""
    return INFOS in names or (CARD in names and _CARD_KEY.search(_front_matter(folder)) is not None)


def _front_matter(folder: Path) -> str:
    """The YAML at the beginning of a card; "": none, or it cannot be read."""
    try:
        with (folder / CARD).open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_CARD).partition("\n---")[0] if file.readline().rstrip() == "---" else ""
    except OSError:
        return ""


def has_configurations(folder: Path) -> bool:
    """Whether the card of a data set says which files are of which configuration."""
    return "configs" in _CARD_KEY.findall(_front_matter(folder))


def bad_description(path: str, field: str, error: Exception) -> T5smithError:
    """The error for a card or a `dataset_infos.json` that the library cannot use."""
    folder = Path(path)
    where: object = folder if folder.is_dir() else f"{field}: {path}"
    what = f"it cannot be read as a data set ({type(error).__name__}: {first_line(error)})"
    expected = None
    if hasattr(error, "problem_mark"):  # a yaml.MarkedYAMLError
        mark = getattr(error, "problem_mark", None)
        where = f"{folder / CARD}:{mark.line + 2 if mark else 1}" if folder.is_dir() else where
        problem = getattr(error, "problem", None) or first_line(error)
        what, expected = f"the YAML of the card {CARD} is broken ({problem})", "a data set's card"
    elif (folder / INFOS).is_file() and not _is_usable(folder / INFOS):
        where, what = folder / INFOS, "this is no description of a data set"
        expected = "a JSON object of configurations"
    return T5smithError(
        what, where=where, expected=expected, fix=f"correct or remove the description, or {NAME_FILES}"
    )


def _is_usable(infos: Path) -> bool:
    """Whether a `dataset_infos.json` has the form that the library expects."""
    try:
        found = json.loads(infos.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and all(isinstance(one, dict) for one in found.values())
