"""The ids of many files as one array, with a bounded number of them memory-mapped.

A map holds a descriptor and address space, of which a process has few. The first files of a split are mapped
as far as the limits allow; any other is opened for each read, which costs some microseconds. So random
windows stay as fast as in memory while the files fit, and there may be any number of files.
"""

from __future__ import annotations

import os
import resource
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t5smith.base.disk import limit_error
from t5smith.base.errors import T5smithError

MOST_MAPS = 1 << 13
"""Files of a split that are mapped at most: Linux allows a process 65,530 maps."""
SHARE = 4
"""One of this many parts of a limit is for the maps of a split: a store has two, and two may be open."""


class Shards:
    """The ids of several files as one array (tokens,). Slices and windows are copies.

    Attributes:
      files: the files and their numbers of ids; all are in one folder.
      dtype: of the ids.

    Raises:
      T5smithError: a file cannot be opened or read.
      ValueError: a file is shorter than its number of ids.
    """

    def __init__(self, files: Sequence[tuple[str, int]], dtype: np.dtype[np.unsignedinteger]) -> None:
        self.files, self.dtype = tuple(files), dtype
        self._starts = np.cumsum([0, *(size for _, size in self.files)])
        self._maps: list[NDArray[np.unsignedinteger]] = []
        # Files are opened from their folder's descriptor, since a store that is made again while this one is
        # read is moved.
        self._folder = -1
        most, room = _limits()
        for file, size in self.files:
            room -= size * dtype.itemsize
            if len(self._maps) == most or room < 0:
                break
            self._maps.append(np.memmap(file, dtype, "r", shape=(size,)))
        if len(self._maps) < len(self.files):
            self._folder = os.open(os.path.dirname(self.files[0][0]) or ".", os.O_RDONLY)
            weakref.finalize(self, os.close, self._folder)

    @property
    def mapped(self) -> int:
        """Number of files that are memory-mapped."""
        return len(self._maps)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the names of the files, not the ids."""
        return Shards, (self.files, self.dtype)

    def __getitem__(self, place: slice) -> NDArray[np.unsignedinteger]:
        start, stop, _ = place.indices(len(self))
        first = max(int(np.searchsorted(self._starts, start, "right")) - 1, 0)
        parts: list[NDArray[np.unsignedinteger]] = [np.empty(0, self.dtype)]
        while start < stop:
            begin = int(self._starts[first])
            end = min(stop, int(self._starts[first + 1]))
            if first < len(self._maps):
                parts.append(self._maps[first][start - begin : end - begin])
            else:
                ids = np.empty((1, end - start), self.dtype)
                self._read(first, np.array([start - begin]), ids)
                parts.append(ids[0])
            start, first = max(start, end), first + 1
        return np.concatenate(parts)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def tolist(self) -> list[int]:
        """All ids."""
        return self[:].tolist()

    def windows_at(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int32]:
        """Windows by their first token: int64 (n,) -> int32 (n, length)."""
        windows = np.empty((len(starts), length), np.int32)
        first = np.searchsorted(self._starts, starts, "right") - 1
        within = starts + length <= self._starts[first + 1]
        for shard in np.unique(first[within]).tolist():
            rows = np.flatnonzero(within & (first == shard))
            places = starts[rows] - self._starts[shard]
            if shard < len(self._maps):
                windows[rows] = self._maps[shard][places[:, None] + np.arange(length)]
            else:
                ids = np.empty((len(rows), length), self.dtype)
                self._read(shard, places, ids)
                windows[rows] = ids
        for row in np.flatnonzero(~within):
            windows[row] = self[int(starts[row]) : int(starts[row]) + length]
        return windows

    def _read(self, shard: int, places: NDArray[np.int64], into: NDArray[np.unsignedinteger]) -> None:
        """Read the ids of a file that is not mapped: from places (n,) into (n, length)."""
        file = self.files[shard][0]
        try:
            opened = os.open(os.path.basename(file), os.O_RDONLY, dir_fd=self._folder)
            try:
                for place, row in zip(places.tolist(), into, strict=True):
                    rest, offset = memoryview(row.view(np.uint8)), place * self.dtype.itemsize
                    while rest:
                        if not (size := os.preadv(opened, [rest], offset)):
                            raise ValueError(f"{file} is shorter than its {self.files[shard][1]:,} ids")
                        rest, offset = rest[size:], offset + size
            finally:
                os.close(opened)
        except OSError as error:
            what = f"cannot be read ({error.strerror})"
            raise limit_error(error) or T5smithError(what, where=file) from None


def _limits() -> tuple[int, int]:
    """Number and bytes of the files of a split that may be mapped."""
    files, space = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS))
    most = MOST_MAPS
    if files != resource.RLIM_INFINITY:
        # A process that holds many descriptors already keeps a third of those left for other files.
        most = min(files // SHARE, max(files - _descriptors(), 0) // 3, MOST_MAPS)
    return most, 1 << 62 if space == resource.RLIM_INFINITY else space // SHARE // 2


def _descriptors() -> int:
    """Number of descriptors that this process holds; 0 if the system does not list them."""
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 0
