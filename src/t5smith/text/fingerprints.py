"""Fingerprints of text files, which show whether the text has changed since the last run.

A file of up to MAX_HASHED_BYTES is known by a hash of its content, a larger one by its size and time of
change. Files are hashed in parallel, and hashes that take a while are kept in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from t5smith.base.artifact import file_hash
from t5smith.base.phase import phase
from t5smith.base.wrapping import pluralize
from t5smith.text.compression import open_file
from t5smith.text.locations import Location, RemoteFile, RowRange

MAX_HASHED_BYTES = 64 << 20
MIN_CACHED_BYTES = 64 << 10
"""Hashing a smaller file takes no longer than looking up its hash."""
MAX_AGE_DAYS = 90
"""Hashes that were not used for longer are dropped from the cache."""
SETTLED_NS = 2_000_000_000
"""A file that changed more recently may change again at the same recorded time: its hash is not kept."""

_Entry = tuple[int, int, int, str, int]
"""Size, mtime and ctime in nanoseconds, SHA-256, day of the last use."""


class HashCache:
    """SHA-256 of files by path, size and times of change, in memory and in the user's cache folder.

    The times are those of the content (mtime) and of the file's status (ctime). A program can set back the
    first, as `cp -p` and `rsync -t` do, but not the second. A file whose content changes while its size and
    both times stay the same, as on a file system that keeps no ctime or while the clock is set back, is taken
    to be unchanged: vocabulary and store are then not made again. Deleting the cache has every file hashed.
    """

    def __init__(self) -> None:
        base = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
        self.file = base / "t5smith" / "file-hashes-1.json"
        self._entries = _read(self.file)
        self._today = int(time.time() // 86_400)
        self._changed = False

    def sha256(self, path: Path, status: os.stat_result | None = None) -> str:
        """The hash of a file's content, computed only if the file may have changed.

        Args:
          path: of the file.
          status: of the file, if it is known.
        """
        key = os.path.abspath(path)
        status = status or path.stat()
        known = self._entries.get(key)
        if known and known[:3] == _times(status):
            sha256, settled = known[3], True
        else:
            started = time.time_ns()
            sha256 = file_hash(path)
            changed = max(status.st_mtime_ns, status.st_ctime_ns)
            settled = changed + SETTLED_NS < started and _times(path.stat()) == _times(status)
        entry = (*_times(status), sha256, self._today)
        if settled and entry != known:
            self._entries[key] = entry
            self._changed |= status.st_size >= MIN_CACHED_BYTES
        return sha256

    def save(self) -> None:
        """Write new hashes to the cache folder, if it can be written to, and drop old ones."""
        if not self._changed or not self.file.is_absolute():
            return
        # Another process may have written since.
        entries = {
            key: entry
            for key, entry in (_read(self.file) | self._entries).items()
            if entry[0] >= MIN_CACHED_BYTES and self._today - entry[4] <= MAX_AGE_DAYS
        }
        text = json.dumps(entries)
        temporary = self.file.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(f"{_checksum(text)}\n{text}", encoding="utf-8")
            temporary.replace(self.file)
            self._changed = False


def _times(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(file: Path) -> dict[str, _Entry]:
    """The entries in a file of the cache; none if it is missing or damaged."""
    try:
        checksum, _, text = file.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    if checksum != _checksum(text):
        return {}
    return {key: tuple(entry) for key, entry in json.loads(text).items()}


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_files(files: Iterable[Location], hashes: HashCache | None = None) -> list[dict[str, Any]]:
    """Name, size, and hash or time of change of each file.

    Args:
      files: in order.
      hashes: known hashes; default: those in the cache folder.

    Raises:
      T5smithError: a file is missing or cannot be read.
    """
    hashes = hashes or HashCache()
    files = list(files)
    # hashlib releases the interpreter lock.
    with (
        phase("text", f"checking {pluralize(len(files), 'file')}", at_once=False),
        ThreadPoolExecutor(os.cpu_count()) as threads,
    ):
        prints = list(threads.map(lambda location: _fingerprint(location, hashes), files))
    hashes.save()
    return prints


def _fingerprint(location: Location, hashes: HashCache) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    if isinstance(location, RowRange):
        rows = {"rows": [location.start, location.stop]}
        location = location.file
    if isinstance(location, RemoteFile):
        return {"name": location.url, "bytes": location.bytes, "stamp": location.stamp, **rows}
    try:
        status = location.stat()
        if not os.access(location, os.R_OK):
            raise PermissionError
        facts = {"name": location.name, "bytes": status.st_size, **rows}
        if status.st_size <= MAX_HASHED_BYTES:
            return facts | {"sha256": hashes.sha256(location, status)}
        return facts | {"changed_ns": status.st_mtime_ns}
    except OSError:
        with open_file(str(location)):  # says why it cannot be read
            raise


def bytes_to_read(location: Location) -> int:
    """The bytes of a file, as it is stored, that reading it takes: it ends after the last requested row.

    Raises:
      T5smithError: it is missing.
    """
    size = file_size(location)
    if isinstance(location, RowRange) and location.of:
        return -(-size * location.stop // location.of)
    return size


def file_size(location: Location) -> int:
    """Size of a file in bytes, as it is stored.

    Raises:
      T5smithError: it is missing.
    """
    if isinstance(location, RowRange):
        return file_size(location.file)
    if isinstance(location, RemoteFile):
        return location.bytes
    try:
        return location.stat().st_size
    except OSError:
        with open_file(str(location)):  # says what is wrong
            raise
