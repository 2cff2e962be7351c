"""The files of data sets: by name, as `hf:oscar-corpus/OSCAR-2301:no:train`, or saved in a folder.

The `datasets` library finds the files of a data set, on the Hub or in a folder of the Hub's layout. t5smith
reads them, block by block and in parallel: nothing is downloaded or copied first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from t5smith.base.errors import T5smithError
from t5smith.base.hub import HubUnreachable, download, files_on_hub, first_line, hub_errors
from t5smith.text.folders.cards import CARD, NAME_FILES, bad_description, has_configurations
from t5smith.text.folders.saved import is_saved, saved_files
from t5smith.text.locations import Location, RemoteFile, RowRange, local_path, remote_files
from t5smith.text.row_count import count_rows

PREFIX = "hf:"
PARQUET = "refs/convert/parquet"
"""Where the Hub keeps Parquet of a data set whose own files only a script could read."""

MAX_NAMES, MAX_SPLITS_SHOWN = 20, 8
"""Configurations that a message names, and up to how many it shows with their splits."""

_SLICED = re.compile(r"(?P<split>[\w.-]+)(?:\[(?P<start>(?:\d{1,18}%?)?):(?P<stop>(?:\d{1,18}%?)?)\])?")


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
      T5smithError: there is no such data set, configuration or split, its description is damaged, or the Hub
        cannot be reached.
    """
    dataset = parse_dataset_name(pattern, field)
    folder = local_path(dataset.path, field)
    if is_saved(folder):
        if dataset.config:
            what = f"{folder} is a saved data set, which has no configuration {dataset.config!r}"
            raise T5smithError(what, where=field, expected=f"{PREFIX}{dataset.path}:{dataset.split}")
        files: list[Path | RemoteFile] = list(saved_files(folder, field, dataset.split))
    elif folder.is_dir():
        files = list(_local_files(replace(dataset, path=str(folder)), field))
    elif os.path.isabs(folder) or dataset.path.startswith("."):
        raise T5smithError(f"there is no data set {dataset.path!r}", where=field, expected="a folder")
    else:
        files = _files_on_hub(dataset, field)
    if not dataset.start and not dataset.stop:
        return list(files)
    return _row_ranges(files, dataset)


def _files_on_hub(dataset: DatasetName, field: str) -> list[Path | RemoteFile]:
    try:
        files_on_hub("dataset", dataset.path, field)
        names = _data_files(dataset, field)
        return [file for name in names for file in remote_files(name, field)]
    except HubUnreachable as error:
        raise T5smithError(
            f"{dataset.path} is no folder here, and the Hugging Face Hub cannot be reached ({error})",
            where=field,
            fix=f"offline? Download it first, with `{download('dataset', dataset.path)}`, and name that "
            "folder, or name local files",
        ) from None
    except _OnlyAScriptError:
        # The Hub has made Parquet of it.
        place = f"hf://datasets/{dataset.path}@{PARQUET.replace('/', '%2F')}"
        return list(remote_files(f"{place}/{dataset.config or 'default'}/{dataset.split}", field))


def _local_files(dataset: DatasetName, field: str) -> list[Path]:
    try:
        return [_below(Path(dataset.path), name) for name in _data_files(dataset, field)]
    except _OnlyAScriptError:
        what, fix = "only the script in this folder can read its data set", NAME_FILES
    except _NoDataFilesError:
        what, fix = f"there is no data set {dataset.path!r}: it has no data files", NAME_FILES
    raise T5smithError(what, where=field, fix=fix)


def _below(folder: Path, name: str) -> Path:
    """A file by the name of its folder as the user wrote it; the library has absolute names."""
    root = os.path.abspath(folder)
    return folder / os.path.relpath(name, root) if name.startswith(root + os.sep) else Path(name)


def cloned_files(folder: Path, field: str) -> list[Path] | None:
    """The training split of a data set that was copied from the Hub; None: all files below the folder are.

    Args:
      folder: with a card, see :func:`t5smith.text.folders.cards.has_card`.
      field: the recipe's field, for messages.

    Raises:
      T5smithError: its description is damaged, or there are several configurations or no split `train`.
    """
    try:
        names = _data_files(DatasetName(str(folder), "", "train", "", ""), field)
        return [_below(folder, name) for name in names]
    except _OnlyAScriptError:
        return None
    except _NoDataFilesError:
        if has_configurations(folder):
            what = "the files that the configurations of the card name are not there"
            raise T5smithError(what, where=folder / CARD, fix=f"download them, or {NAME_FILES}") from None
        return None  # of formats that the library does not know


class _OnlyAScriptError(Exception):
    """The files of a data set are known to a script of its own alone."""


class _NoDataFilesError(Exception):
    """A folder has no files that the library takes for data."""


def _data_files(dataset: DatasetName, field: str) -> list[str]:
    """The names of the files of a data set's split, as the `datasets` library finds them.

    Raises:
      _OnlyAScriptError, _NoDataFilesError: see there.
      T5smithError: its description cannot be used, or it has no such configuration or split.
    """
    import datasets
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
    from huggingface_hub.errors import HfHubHTTPError

    path, config, split = dataset.path, dataset.config, dataset.split
    try:
        names = datasets.get_dataset_config_names(path)
        if not config and split in names and split != "train":
            config, split = split, "train"  # hf:PATH:CONFIG
        if config and config not in names:
            raise _no_such_configuration(dataset, names, field)
        if not config and len(names) > 1 and not datasets.get_dataset_default_config_name(path):
            raise _no_such_configuration(dataset, names, field)
        by_split = datasets.load_dataset_builder(path, config or None).config.data_files or {}
    except T5smithError:
        raise
    except DataFilesNotFoundError:
        raise _NoDataFilesError from None
    except (FileNotFoundError, DatasetNotFoundError) as error:
        with hub_errors("dataset", path, field):
            if isinstance(error.__cause__, HfHubHTTPError):
                raise error.__cause__ from None  # such as a data set whose terms must be accepted
        raise T5smithError(f"there is no data set {path!r} ({first_line(error)})", where=field) from None
    except ConnectionError as error:
        raise HubUnreachable(first_line(error)) from None
    except Exception as error:  # whatever its parsers raise on an odd description
        if isinstance(error, RuntimeError) and "script" in str(error).lower():
            raise _OnlyAScriptError from None
        raise bad_description(path, field, error) from None
    if split not in by_split:
        has = ", ".join(map(str, by_split)) or "none"
        of = f"{path}:{config}" if config else path
        expected = f"one of {has}" + (f", as {PREFIX}{of}:{next(iter(by_split))}" if by_split else "")
        raise T5smithError(f"{path} has no split {split!r}", where=field, expected=expected)
    return list(map(str, by_split[split]))


def _no_such_configuration(dataset: DatasetName, names: Sequence[str], field: str) -> T5smithError:
    """The error for a missing or unknown configuration: it lists those there are, and splits if few."""
    import datasets

    wrong = dataset.config or (dataset.split if dataset.split != "train" else "")
    what = f"has no configuration {wrong!r}" if wrong else "has several configurations"
    if names == ["default"]:
        return T5smithError(
            f"{dataset.path} {what}", where=field, expected=f"{PREFIX}{dataset.path}:{dataset.split}"
        )
    shown = list(names[:MAX_NAMES])
    if len(names) <= MAX_SPLITS_SHOWN:
        for i, name in enumerate(shown):
            splits = datasets.load_dataset_builder(dataset.path, name).config.data_files or {}
            shown[i] += f" ({', '.join(map(str, splits))})"
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return T5smithError(
        f"{dataset.path} {what}",
        where=field,
        expected=f"one of {', '.join(shown)}{more}, as {PREFIX}{dataset.path}:{names[0]}:train",
    )


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
