"""The files of data sets: by name, as `hf:oscar-corpus/OSCAR-2301:no:train`, or saved in a folder.

The `datasets` library finds the files of a data set, on the Hub or in a folder of the Hub's layout. t5smith
reads them, block by block and in parallel: nothing is downloaded or copied first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.text.locations import Location, RemoteFile, RowRange, is_url, local_path, remote_files
from t5smith.text.row_count import count_rows

PREFIX = "hf:"
PARQUET = "refs/convert/parquet"
"""Where the Hub keeps Parquet of a data set whose own files only a script could read."""

_SLICED = re.compile(r"(?P<split>[\w.-]+)(?:\[(?P<start>(?:\d+%?)?):(?P<stop>(?:\d+%?)?)\])?")


@dataclass(frozen=True)
class DatasetName:
    """A data set as a pattern names it.

    Attributes:
      path: its name on the Hub, or a folder.
      config: one of its configurations; "": the only or the default one.
      split: `train` by default.
      start, stop: of the rows, as `train[:100]` or `train[10%:20%]`; "": all.
    """

    path: str
    config: str
    split: str
    start: str
    stop: str


def parse_dataset_name(pattern: str, field: str) -> DatasetName:
    """Parse `hf:PATH[:CONFIG][:SPLIT]`; the split may end in a range of rows, as `train[:100]`.

    Raises:
      T5smithError: the pattern has another form.
    """
    rest = pattern.removeprefix(PREFIX)
    # The colon of a slice stands in brackets.
    parts = re.split(r":(?![^\[]*\])", rest)
    expected = "hf:PATH, hf:PATH:SPLIT or hf:PATH:CONFIG:SPLIT"
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise T5smithError(f"{pattern!r} cannot be used", where=field, expected=expected)
    config = parts[1] if len(parts) == 3 else ""
    last = _SLICED.fullmatch(parts[-1]) if len(parts) > 1 else _SLICED.fullmatch("train")
    if last is None:
        raise T5smithError(
            f"{parts[-1]!r} is not a split", where=field, expected="a name, or a range of rows as train[:100]"
        )
    return DatasetName(parts[0], config, last["split"], last["start"] or "", last["stop"] or "")


def hub_files(pattern: str, field: str) -> list[Location]:
    """The files of a data set, in order.

    Args:
      pattern: see :func:`parse_dataset_name`.
      field: the recipe's field, for messages.

    Raises:
      T5smithError: there is no such data set, configuration or split.
    """
    dataset = parse_dataset_name(pattern, field)
    folder = local_path(dataset.path, field)
    if is_saved(folder):
        if dataset.config:
            what = f"{folder} is a saved data set, which has no configuration {dataset.config!r}"
            raise T5smithError(what, where=field, expected=f"{PREFIX}{dataset.path}:{dataset.split}")
        files: list[Path | RemoteFile] = list(saved_files(folder, field, dataset.split))
    else:
        files = _dataset_files(dataset, pattern, field)
    if not dataset.start and not dataset.stop:
        return list(files)
    return _row_ranges(files, dataset)


def _dataset_files(dataset: DatasetName, pattern: str, field: str) -> list[Path | RemoteFile]:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    folder = local_path(dataset.path, field)
    path = str(folder) if os.path.exists(folder) else dataset.path
    config, split = dataset.config or None, dataset.split
    try:
        names = datasets.get_dataset_config_names(path)
        if config is None and split in names and split != "train":
            config, split = split, "train"  # hf:PATH:CONFIG
        builder = datasets.load_dataset_builder(path, config)
        by_split = builder.config.data_files
    except (FileNotFoundError, DatasetNotFoundError) as error:
        raise T5smithError(f"there is no data set {dataset.path!r} ({_first(error)})", where=field) from None
    except RuntimeError as error:
        if "script" not in str(error).lower():
            raise
        # Only a script of its own could read it; the Hub has made Parquet of it.
        return list(
            remote_files(
                f"hf://datasets/{path}@{PARQUET.replace('/', '%2F')}/{config or 'default'}/{split}", field
            )
        )
    except (ValueError, OSError) as error:
        raise T5smithError(f"{pattern!r} cannot be used ({_first(error)})", where=field) from None
    if by_split is None or split not in by_split:
        has = ", ".join(map(str, by_split or ())) or "none"
        raise T5smithError(f"{dataset.path} has no split {split!r}", where=field, expected=f"one of {has}")
    found: list[Path | RemoteFile] = []
    for name in by_split[split]:
        found += list(remote_files(name, field)) if is_url(name) else [Path(name)]
    return found


def _first(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def is_saved(folder: Path) -> bool:
    """Whether `datasets` saved a data set, or several splits of one, in a folder."""
    # False for an unreadable folder.
    return os.path.isfile(folder / "state.json") or os.path.isfile(folder / "dataset_dict.json")


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
        if os.path.isfile(folder / "dataset_dict.json"):
            splits = _json(folder / "dataset_dict.json")["splits"]
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


def _row_ranges(
    files: Sequence[Path | RemoteFile], dataset: DatasetName
) -> list[Path | RemoteFile | RowRange]:
    """The requested rows, file by file; rows are counted only in as many files as needed."""
    counts: list[int] = []
    percent = "%" in dataset.start + dataset.stop
    last = None if percent or not dataset.stop else int(dataset.stop)
    for file in files:
        if last is not None and sum(counts) >= last:
            break
        counts.append(count_rows(file))
    total = sum(counts)

    def row(bound: str, default: int) -> int:
        if not bound:
            return default
        return round(int(bound[:-1]) / 100 * total) if bound.endswith("%") else int(bound)

    start, stop = row(dataset.start, 0), row(dataset.stop, total)
    found: list[Location] = []
    before = 0
    for file, rows in zip(files, counts, strict=False):
        first, end = max(start - before, 0), min(stop - before, rows)
        if first < end:
            found.append(file if (first, end) == (0, rows) else RowRange(file, first, end, rows))
        before += rows
    return found
