"""Records that cannot be used: counted with their places, or rejected if `corpus.strict` is set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.base.progress import info, warn
from t5smith.base.wrapping import pluralize

MAX_MESSAGES = 10
"""Number of messages that are kept."""
MAX_REPORTED = 3
"""Number of messages that are printed, if there are not more kinds."""
MAX_FILES_REPORTED = 10
"""Number of unreadable files that are printed."""
DAMAGED_ARCHIVE = "damaged archive"
"""A kind that is not a record: how many records the rest of the archive had is unknown."""
UNREADABLE_FILE = "unreadable files"
"""A kind that is not a record: files of a format that cannot be read, beside others that can."""
NOT_RECORDS = (DAMAGED_ARCHIVE, UNREADABLE_FILE)
ENCRYPTED, NESTED, UNREADABLE = "encrypted members", "nested archives", "unreadable members"
"""Kinds of members of archives that are not read."""
SIDE_MEMBERS, EMPTY_MEMBERS = "side members", "empty members"
"""Members of archives without text: readme, licence, links, ..., and files without bytes."""
MAX_LISTED = 1_000
"""Names of such members, and of unreadable files, that are kept."""
NOT_FAULTS = frozenset(
    {
        SIDE_MEMBERS,
        EMPTY_MEMBERS,
        "redirects",
        "talk pages",
        "pages of other namespaces",
        "pages that are not wikitext",
        "empty pages",
        "repeated headers",
        "pages without text",
        "records without a page",
    }
)
"""Kinds of records that are dropped as they should be: no warning, no message, no error if strict."""
MAX_BAD_START = 20
"""A file is rejected if its first records, this many, are all unusable: its format is not what it seems."""


@dataclass
class SkippedRecords:
    """Records that were skipped.

    Attributes:
      strict: raise an error at the first one instead.
      counts: number of records by kind.
      first: messages of the first ones.
      kinds: message of the first one of each kind.
      repaired: number of records by kind that are used with a mended text, and the message of the first one.
      files: message of each of the first unreadable files, by its name.
      members: names of the first members of archives that are dropped as they should be.
    """

    strict: bool = False
    counts: Counter[str] = field(default_factory=Counter[str])
    first: list[str] = field(default_factory=list[str])
    kinds: dict[str, str] = field(default_factory=dict[str, str])
    repaired: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    files: dict[str, str] = field(default_factory=dict[str, str])
    members: list[str] = field(default_factory=list[str])

    def leave_out(self, kind: str, member: str) -> None:
        """Count a member of an archive that is dropped as it should be; with the path of the archive."""
        self.counts[kind] += 1
        if len(self.members) < MAX_LISTED:
            self.members.append(member)

    def repair(self, kind: str, error: T5smithError) -> None:
        """Count a record whose text was mended and is used.

        Raises:
          T5smithError: `error`, if strict.
        """
        if self.strict:
            raise error
        number, first = self.repaired.get(kind, (0, str(error)))
        self.repaired[kind] = (number + 1, first)

    def add(self, kind: str, error: T5smithError) -> None:
        """Count a skipped record.

        Args:
          kind: what is wrong, in a word or two.
          error: the full message, with the place.

        Raises:
          T5smithError: `error`, if strict.
        """
        if self.strict and kind not in NOT_FAULTS:
            raise error
        self.counts[kind] += 1
        if kind in NOT_FAULTS:
            return
        if len(self.first) < MAX_MESSAGES:
            self.first.append(str(error))
        self.kinds.setdefault(kind, str(error))

    def add_file(self, name: str, error: T5smithError) -> None:
        """Count a file that cannot be read.

        Raises:
          T5smithError: `error`, if strict.
        """
        if self.strict:
            raise error
        self.counts[UNREADABLE_FILE] += 1
        if len(self.files) < MAX_LISTED:
            self.files[name] = str(error)

    def raise_if_strict(self) -> None:
        """Apply `strict` to records that were counted by an earlier run without it.

        Raises:
          T5smithError: strict, and records were skipped.
        """
        if self.strict and self.faults:
            first = next(iter([*self.first, *self.files.values()]), "")
            what = f"{self._summary()}, the first of them: {first}"
            raise T5smithError(what, where="corpus.strict")

    @property
    def faults(self) -> Counter[str]:
        """The counts without :data:`NOT_FAULTS`."""
        return Counter({kind: n for kind, n in self.counts.items() if kind not in NOT_FAULTS})

    def merge(self, facts: Mapping[str, Any]) -> None:
        """Add the skipped records of another part of the text, as :meth:`facts` returns them."""
        self.counts.update(facts["counts"])
        self.first = [*self.first, *facts["first"]][:MAX_MESSAGES]
        self.kinds = {**facts["kinds"], **self.kinds}
        for kind, (more, message) in facts.get("repaired", {}).items():
            number, first = self.repaired.get(kind, (0, message))
            self.repaired[kind] = (number + more, first)
        self.files = dict([*self.files.items(), *facts.get("files", {}).items()][:MAX_LISTED])
        self.members = [*self.members, *facts.get("members", [])][:MAX_LISTED]

    def report(self) -> None:
        """Warn about skipped records, with some of their places."""
        faults = self.faults
        if left_out := self.counts - faults:
            kinds = ", ".join(f"{kind} {n:,}" for kind, n in left_out.most_common())
            shown = (member.rpartition("/")[2] for member in self.members[:MAX_REPORTED])
            names = ", ".join(shown) + ", …" * (len(self.members) > MAX_REPORTED)
            info(f"text      dropped: {kinds}" + (f"; members: {names}" if names else ""))
        for kind, (number, first) in self.repaired.items():
            warn(f"{pluralize(number, 'record')} with {kind}, which was replaced; the first:")
            info(f"  {first}")
        if number := faults.pop(UNREADABLE_FILE, 0):
            warn(f"{_unreadable(number)}:")
            for message in list(self.files.values())[:MAX_FILES_REPORTED]:
                info(f"  {message}")
            if number > MAX_FILES_REPORTED:
                info(f"  … and {number - MAX_FILES_REPORTED:,} more")
        if not faults:
            return
        kinds = [f"{n:,} {kind}" for kind, n in faults.most_common() if kind not in NOT_RECORDS]
        details = f": {', '.join(kinds)}" if kinds else ""
        warn(f"{self._summary(details, files=False)}; the first:")
        for message in skipped_messages(self.facts())[: max(MAX_REPORTED, len(self.kinds))]:
            info(f"  {message}")

    def _summary(self, details: str = "", files: bool = True) -> str:
        archives, unreadable = (self.counts[kind] for kind in NOT_RECORDS)
        records = self.faults.total() - archives - unreadable
        parts: list[str] = []
        if records:
            parts.append(
                f"{'1 record was' if records == 1 else f'{records:,} records were'} skipped{details}"
            )
        if archives:
            name = "damaged archive is" if archives == 1 else "damaged archives is"
            parts.append(f"the rest of {archives:,} {name} lost")
        if unreadable and files:
            parts.append(_unreadable(unreadable))
        return ", and ".join(parts)

    def clear(self) -> None:
        """Forget all of them."""
        self.counts.clear()
        self.first.clear()
        self.kinds.clear()
        self.repaired.clear()
        self.files.clear()
        self.members.clear()

    def facts(self) -> dict[str, Any]:
        """Counts and messages for the manifest."""
        kinds = dict(sorted(self.kinds.items()))
        counts = dict(sorted(self.counts.items()))
        facts: dict[str, Any] = {"counts": counts, "first": list(self.first), "kinds": kinds}
        facts |= {"repaired": dict(sorted(self.repaired.items()))} if self.repaired else {}
        facts |= {"files": dict(self.files)} if self.files else {}
        return facts | ({"members": list(self.members)} if self.members else {})


def _unreadable(number: int) -> str:
    return f"{pluralize(number, 'file')} cannot be read and {'was' if number == 1 else 'were'} skipped"


def skipped_messages(facts: Mapping[str, Any]) -> list[str]:
    """The first message of each kind, damaged archives before all, then the other messages kept.

    Args:
      facts: as :meth:`SkippedRecords.facts` returns them.
    """
    kinds: Mapping[str, str] = facts.get("kinds") or {}
    ordered = sorted(kinds, key=lambda kind: (kind != DAMAGED_ARCHIVE, -facts["counts"].get(kind, 0), kind))
    return list(dict.fromkeys([*(kinds[kind] for kind in ordered), *facts["first"]]))


@dataclass
class FileRecords:
    """Usable and skipped records of one file, in the order of the file, and which rows of it are requested.

    A file is rejected if nothing in it is usable. An unusable row is a row too, so counting all records
    gives the number of the row.

    Attributes:
      skipped: where skipped records are counted.
      from_start: whether nothing of the file was read before.
      whole: whether all of it is read here.
      rows: first row requested, and the row at which reading ends; None: the whole file.
      row: number of rows so far.
      of: number of rows of the file, if it says so.
      usable: whether any record, requested or not, was usable: the file has the format it seems to have.
      unusable: number of requested records that were not.
      first_error: the error of the first of them.
    """

    skipped: SkippedRecords
    from_start: bool = True
    whole: bool = True
    rows: tuple[int, int] | None = None
    row: int = 0
    of: int = 0
    usable: bool = False
    unusable: int = 0
    first_error: T5smithError | None = None

    def skip(self, kind: str, error: T5smithError) -> None:
        """Count an unusable record, if its row is requested.

        Raises:
          T5smithError: strict, or the first records of the file are all unusable.
        """
        # Which rows a damaged archive has lost is unknown.
        if kind != DAMAGED_ARCHIVE and not self._next_is_requested():
            return
        if kind in NOT_FAULTS:
            self.usable = True  # the file has the format it seems to have
            self.skipped.add(kind, error)
            return
        self.unusable += 1
        self.first_error = self.first_error or error
        if self.from_start and not self.usable and self.unusable >= MAX_BAD_START:
            raise self.first_error
        self.skipped.add(kind, error)

    def repair(self, kind: str, error: T5smithError) -> None:
        """Count the record that is accepted next as mended, if its row is requested.

        Raises:
          T5smithError: strict.
        """
        if self.rows is None or self.rows[0] <= self.row < self.rows[1]:
            self.skipped.repair(kind, error)

    def accept(self) -> bool:
        """Count a usable record; whether its row is requested."""
        self.usable |= not self.finished
        return self._next_is_requested()

    @property
    def finished(self) -> bool:
        """Whether all requested rows have been read."""
        return self.rows is not None and self.row >= self.rows[1]

    def end(self) -> None:
        """Check a file that was read to its end.

        Raises:
          T5smithError: all of its records were unusable.
        """
        if self.whole and self.first_error and not self.usable:
            raise self.first_error

    def _next_is_requested(self) -> bool:
        self.row += 1
        return self.rows is None or self.rows[0] < self.row <= self.rows[1]
