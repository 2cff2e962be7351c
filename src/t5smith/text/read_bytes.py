"""How far the text has been read, counted in bytes of its files as they are stored."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO, Any

from t5smith.text.document import BlockSelection
from t5smith.text.recognition import RANDOM_ACCESS
from t5smith.text.skipped_records import FileRecords


class ReadBytes:
    """Reports the reading of a part of the text as its share of the bytes of all files.

    A reader may stop before the end of its part, as in a range of rows, or read the same file as others. So
    its bytes are scaled, never add up to more than the share, and :meth:`finish` reports what is left of it.
    """

    def __init__(self, share: int, on_bytes: Callable[[int], Any], scale: float = 1.0) -> None:
        """Start at nothing.

        Args:
          share: bytes that this part counts as; 0: unknown, all that is read is reported.
          on_bytes: called with the bytes since the last call.
          scale: by which the reader's bytes are multiplied.
        """
        self._share, self._on_bytes, self._scale = share, on_bytes, scale
        self._read = 0.0
        self._reported = 0

    def add(self, amount: int) -> None:
        """Count more bytes of the reader."""
        self._read += amount * self._scale
        self._report(round(self._read))

    def finish(self) -> None:
        """Report the rest of the share."""
        self._report(self._share or self._reported)

    def _report(self, read: int) -> None:
        read = min(read, self._share) if self._share else read
        if read > self._reported:
            self._on_bytes(read - self._reported)
            self._reported = read


def bytes_read(
    kind: str, raw: IO[bytes], stream: IO[bytes], blocks: BlockSelection, records: FileRecords
) -> Callable[[], int]:
    """A function that gives the bytes of the stored file that have been read so far.

    Args:
      kind: the format of the file.
      raw: the file as it is stored.
      stream: its decompressed bytes; of formats of random access they can be read from any position.
      blocks: what is read of it.
      records: of Parquet, knows the rows that were read and how many the file has.
    """
    if kind not in RANDOM_ACCESS:
        return lambda: raw.tell() - blocks.start
    size = stream.seek(0, io.SEEK_END)
    stored = size if raw is stream else raw.tell()
    stream.seek(0)
    if kind == "parquet":
        return lambda: stored * records.row // max(records.of, 1)
    return lambda: stored * stream.tell() // max(size, 1)
