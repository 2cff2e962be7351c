"""Several renames in a run folder that are all made, also if the process is killed between two of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from t5smith.base.disk import write_atomically
from t5smith.base.errors import T5smithError

JOURNAL = "moves.json"
"""A file in the run folder, while its moves are not finished."""


def move_all(folder: Path, moves: Sequence[tuple[Path, Path]]) -> None:
    """Rename folders within a run folder. What a kill interrupts, :func:`finish_moves` completes.

    If one cannot be made, those before it are undone.

    Args:
      folder: the run folder.
      moves: each folder and its new place, in their order. A place may be one that an earlier move frees.
    """
    # A link is moved itself, not what it leads to.
    names = [
        [os.path.relpath(path.parent.resolve() / path.name, folder.resolve()) for path in move]
        for move in moves
    ]
    write_atomically(folder / JOURNAL, json.dumps(names) + "\n")
    made = list[tuple[Path, Path]]()
    try:
        for source, target in moves:
            target.parent.mkdir(exist_ok=True)
            source.rename(target)
            made.append((source, target))
    except OSError:
        for source, target in reversed(made):
            target.rename(source)
        (folder / JOURNAL).unlink()
        raise
    (folder / JOURNAL).unlink()


def finish_moves(folder: Path) -> None:
    """Make the moves that are left of an interrupted :func:`move_all`, if there was one.

    Raises:
      T5smithError: the list of the moves is damaged.
    """
    try:
        moves = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError as error:
        raise T5smithError(
            f"not a list of moves ({error})",
            where=folder / JOURNAL,
            fix="move the folders back from previous/ by hand, then delete this file",
        ) from None
    for source, target in moves:
        # A place that is taken was taken by this move: its source may be a new folder by now. A source that
        # is gone was moved by hand since.
        if (folder / source).exists() and not (folder / target).exists():
            (folder / target).parent.mkdir(exist_ok=True)
            (folder / source).rename(folder / target)
    (folder / JOURNAL).unlink()
