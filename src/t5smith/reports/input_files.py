"""The input files in the corpus report: formats, those without text or not read, and exclusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from t5smith.base.wrapping import pluralize
from t5smith.pages.facts import Facts, number
from t5smith.pages.markup import Html, join, tag
from t5smith.pages.parts import table
from t5smith.text.skipped_records import UNREADABLE_FILE


def input_files(facts: Facts, skipped: Facts) -> Html | None:
    """Tables and lists of files; None if there is nothing to say of them.

    Args:
      facts: `input_files` of the store's manifest.
      skipped: its `skipped_records`.
    """
    parts: list[Html | None] = []
    formats: Mapping[str, int] = facts.get("formats") or {}
    not_read: Facts = facts.get("not_read") or {}
    rows = [(f"read as {name}", count) for name, count in formats.items()]
    rows += [(f"not read: {kind}", count) for kind, count in (not_read.get("counts") or {}).items()]
    unreadable = number(skipped, "counts", UNREADABLE_FILE) or 0
    rows += [("cannot be read", int(unreadable))] if unreadable else []
    if len(rows) > 1:
        parts.append(table([[name, f"{count:,}"] for name, count in rows], ["", "files"], numbers=True))
    for folder, part in (not_read.get("data_sets") or {}).items():
        parts.append(tag("p", tag("code", folder), f" is a data set: {part}.", class_="note"))
    if unreadable:
        messages = list((skipped.get("files") or {}).values())
        parts.append(_folded("Files that cannot be read", messages, int(unreadable)))
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


def _folded(title: str, names: Sequence[str], total: int) -> Html:
    """A list of names that opens on a click."""
    more = [tag("li", f"… and {total - len(names):,} more")] if total > len(names) else []
    items = tag("ul", *(tag("li", name) for name in names), *more, class_="places")
    return tag("details", tag("summary", f"{title}: {pluralize(total, 'file')}"), items)
