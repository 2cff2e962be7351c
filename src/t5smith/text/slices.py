"""Some rows of a file: only they are read, and only what is wrong with them counts."""

from __future__ import annotations

from dataclasses import dataclass

from t5smith.base.errors import T5smithError
from t5smith.text.skipped_records import ARCHIVE, FileFaults


@dataclass
class RowFaults(FileFaults):
    """The faults of a file of which some rows may be asked for. Rows that cannot be used are rows too.

    Readers give records and faults in the order of the file, so it is enough to count both.

    Attributes:
      rows: the first one that is asked for, and the one before which reading ends; None: the whole file.
      row: how many came before.
    """

    rows: tuple[int, int] | None = None
    row: int = 0

    def add(self, kind: str, error: T5smithError) -> None:
        """Count one, if its row is asked for.

        Raises:
          T5smithError: as :meth:`FileFaults.add`.
        """
        # Nobody knows which rows an archive has lost.
        if kind == ARCHIVE or self._asked():
            super().add(kind, error)

    def use(self) -> bool:
        """Count a row that can be used, and say whether it is asked for."""
        # One that comes first shows that the file is what it was taken for; one that comes after is too late.
        self.good += not self.over
        return self._asked()

    @property
    def over(self) -> bool:
        """Whether all rows that are asked for have come."""
        return self.rows is not None and self.row >= self.rows[1]

    def _asked(self) -> bool:
        self.row += 1
        return self.rows is None or self.rows[0] < self.row <= self.rows[1]
