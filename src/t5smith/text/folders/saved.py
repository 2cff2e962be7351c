"""Data sets that `datasets` saved in a folder, with or without splits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from t5smith.base.errors import T5smithError

SAVED = ("state.json", "dataset_info.json")
"""What `save_to_disk` writes beside the Arrow files of one split, or of a data set without splits."""
SAVED_SPLITS = "dataset_dict.json"
"""What it writes into the folder of all splits."""


def is_saved(folder: Path) -> bool:
    """Whether `datasets` saved a data set, or several splits of one, in a folder."""
    # False for an unreadable folder.
    return all(os.path.isfile(folder / name) for name in SAVED) or os.path.isfile(folder / SAVED_SPLITS)


def saved_files(folder: Path, field: str, split: str = "") -> list[Path]:
    """The Arrow files of a data set that `save_to_disk` wrote.

    Args:
      folder: where it is.
      field: the recipe's field, for messages.
      split: one of its splits; "": `train`. A data set saved without splits counts as `train`, and as the
        split it was saved from.

    Raises:
      T5smithError: it has no such split, or its description is damaged.
    """
    try:
        if os.path.isfile(folder / SAVED_SPLITS):
            splits = _json(folder / SAVED_SPLITS)["splits"]
            place = folder / (split := split or "train")
        else:
            splits = list(dict.fromkeys(("train", _json(folder / "state.json").get("_split") or "train")))
            place, split = folder, split or "train"
        if split not in splits:
            raise T5smithError(
                f"{folder} has no split {split!r}", where=field, expected=f"one of {', '.join(splits)}"
            )
        return [place / entry["filename"] for entry in _json(place / "state.json")["_data_files"]]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise T5smithError(f"the saved data set is damaged ({error})", where=folder) from None


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))
