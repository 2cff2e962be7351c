"""The input files in the corpus report: formats, those without text or not read, and exclusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from t5smith.base.wrapping import pluralize
from t5smith.pages.facts import Facts
from t5smith.pages.markup import Html, join, tag
from t5smith.pages.parts import table


def input_files(facts: Facts) -> Html | None:
    """Tables and lists of files; None if there is nothing to say of them.

    Args:
      facts: `input_files` of the store's manifest.
    """
    parts: list[Html | None] = []
    formats: Mapping[str, int] = facts.get("formats") or {}
    not_read: Facts = facts.get("not_read") or {}
    rows = [(f"read as {name}", count) for name, count in formats.items()]
    rows += [(f"not read: {kind}", count) for kind, count in (not_read.get("counts") or {}).items()]
    if len(rows) > 1:
        parts.append(table([[name, f"{count:,}"] for name, count in rows], ["", "files"], numbers=True))
    for folder, part in (not_read.get("data_sets") or {}).items():
        parts.append(tag("p", tag("code", folder), f" is a data set: {part}.", class_="note"))
    if names := not_read.get("files"):
        parts.append(_folded("Files that are not read", names, sum(not_read["counts"].values())))
    if names := facts.get("without_records"):
        parts.append(_folded("Files without any text", names, facts["empty"]))
    return join(parts) if parts else None


def excluded_texts(files: Mapping[str, Facts]) -> Html | None:
    """A table of the files of texts that are not trained on; None without any.

    Args:
      files: `excluded` of the store's manifest.
    """
    columns = ("entries", "found", "documents", "near_matches")
    rows = [[name, *(f"{own[column]:,}" for column in columns)] for name, own in files.items()]
    if not rows:
        return None
    header = ["file", "texts in it", "found", "documents dropped", "dropped as near matches"]
    return table(rows, header, numbers=True)


def _folded(title: str, names: Sequence[str], number: int) -> Html:
    """A list of names that opens on a click."""
    more = [tag("li", f"… and {number - len(names):,} more")] if number > len(names) else []
    items = tag("ul", *(tag("li", name) for name in names), *more, class_="places")
    return tag("details", tag("summary", f"{title}: {pluralize(number, 'file')}"), items)
