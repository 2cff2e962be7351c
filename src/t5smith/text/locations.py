"""Where text is read from: a local file, a file behind a URL, or a range of rows of either."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.base.hub import first_line

ROWS = re.compile(r"#rows=(\d+)-(\d+)$")


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL, opened through fsspec.

    Attributes:
      url: its full URL.
      bytes: its size; 0 if unknown.
      stamp: changes if the content changes.
    """

    url: str
    bytes: int
    stamp: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class RowRange:
    """Some rows of a file, from `start` up to `stop`; the first is 0. The file has `of` rows; 0: unknown."""

    file: Path | RemoteFile
    start: int
    stop: int
    of: int = field(default=0, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.file}#rows={self.start}-{self.stop}"


Location = Path | RemoteFile | RowRange


def split_row_range(name: str) -> tuple[str, tuple[int, int] | None]:
    """The name of a file, and the first row and end of its range of rows; None: all rows."""
    found = ROWS.search(name)
    return (name[: found.start()], (int(found[1]), int(found[2]))) if found else (name, None)


def local_path(name: str, field: str) -> Path:
    """A name as a path, with `~` expanded.

    Raises:
      T5smithError: the name is empty, or the home folder does not exist.
    """
    if not name:
        raise T5smithError("a name is empty", where=field, expected="a file or folder", fix="remove it")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise T5smithError(
            f"{name!r} begins with an unknown home folder", where=field, fix="write the full path"
        ) from None


def is_url(pattern: str) -> bool:
    """Whether a name is a URL and not a path."""
    return re.match(r"[a-z][a-z0-9+.-]*://", pattern) is not None


def remote_files(
    pattern: str, field: str, choose: Callable[[list[str]], list[str]] | None = None
) -> Iterator[RemoteFile]:
    """The files that a URL stands for: one, all below a folder, or those of a glob.

    Args:
      pattern: such as s3://bucket/texts/*.jsonl.zst.
      field: the recipe's field, for messages.
      choose: which of the files below a folder are wanted. Default: all.

    Raises:
      T5smithError: the package for the protocol is not installed, or the server cannot be reached.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(pattern)
        if glob.has_magic(path):
            names = sorted(system.glob(path))
        elif system.isdir(path):
            names = [name for name in sorted(system.find(path)) if not _is_hidden(name)]
            names = choose(names) if choose else names
        else:
            names = [path]
        for name in names:
            if _is_hidden(name):
                continue
            info = system.info(name)
            if info["type"] == "file":
                yield RemoteFile(
                    system.unstrip_protocol(name), int(info.get("size") or 0), _stamp(system, name, info)
                )
    except FileNotFoundError:
        raise T5smithError(f"there is no file or folder {pattern!r}", where=field) from None
    except (ImportError, ValueError) as error:
        # fsspec names the package that a protocol needs.
        raise T5smithError(f"{pattern!r} cannot be opened ({error})", where=field) from None
    except Exception as error:  # whatever the protocol's package raises
        fix = "offline? Download the text first, and name local files"
        what = f"{pattern!r} cannot be reached ({first_line(error)})"
        raise T5smithError(what, where=field, fix=fix) from None


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts[1:])


def _stamp(system: Any, name: str, info: dict[str, Any]) -> str:
    """What changes with the content, as the file system reports it."""
    for key in ("ETag", "etag", "md5Hash", "blob_id", "mtime", "created", "LastModified"):
        if info.get(key) is not None:
            return str(info[key])
    return str(system.ukey(name))
