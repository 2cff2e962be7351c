"""What cannot be read of a corpus: counted, with its places, and refused where it is the rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.base.progress import info, warn

SHOWN = 10
"""So many places are kept of all that there are."""
TOLD = 3
"""So many are shown, and one of each kind."""
ARCHIVE = "damaged archive"
"""A kind that is no record: nobody knows how many were in the rest of it."""
HOPELESS = 20
"""A file that begins with so many records that cannot be used is not what it was taken for."""


@dataclass
class Faults:
    """Records that were left out.

    Attributes:
      strict: refuse the first one instead.
      counts: how many, by what was wrong.
      first: the first of them in full.
      kinds: the first of each kind in full.
    """

    strict: bool = False
    counts: Counter[str] = field(default_factory=Counter[str])
    first: list[str] = field(default_factory=list[str])
    kinds: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, kind: str, error: T5smithError) -> None:
        """Count one.

        Args:
          kind: what was wrong, in a word or two.
          error: the same in full, with its place.

        Raises:
          T5smithError: it, if strict.
        """
        if self.strict:
            raise error
        self.counts[kind] += 1
        if len(self.first) < SHOWN:
            self.first.append(str(error))
        self.kinds.setdefault(kind, str(error))

    def refuse(self) -> None:
        """Stand by what `strict` says, where they were counted before it was asked for.

        Raises:
          T5smithError: there are any.
        """
        if self.strict and self.counts:
            what = f"{self._left_out()}, the first of them: {self.first[0]}"
            raise T5smithError(what, where="corpus.strict")

    def merge(self, facts: Mapping[str, Any]) -> None:
        """Add those of another part, as :meth:`facts` gives them."""
        self.counts.update(facts["counts"])
        self.first = [*self.first, *facts["first"]][:SHOWN]
        self.kinds = {**facts["kinds"], **self.kinds}

    def tell(self) -> None:
        """Warn of them, with some of their places."""
        if self.counts:
            kinds = [f"{number:,} {kind}" for kind, number in self.counts.most_common() if kind != ARCHIVE]
            of = f": {', '.join(kinds)}" if kinds else ""
            warn(f"{self._left_out(of)}; the first:")
            for error in places(self.facts())[: max(TOLD, len(self.kinds))]:
                info(f"  {error}")

    def _left_out(self, of: str = "") -> str:
        archives = self.counts[ARCHIVE]
        records = self.counts.total() - archives
        said = [f"1 record was left out{of}"] if records == 1 else []
        said += [f"{records:,} records were left out{of}"] if records > 1 else []
        said += (
            [f"the rest of {archives:,} damaged archive{'s' * (archives > 1)} is lost"] if archives else []
        )
        return ", and ".join(said)

    def clear(self) -> None:
        """Begin anew."""
        self.counts.clear()
        self.first.clear()
        self.kinds.clear()

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        kinds = dict(sorted(self.kinds.items()))
        return {"counts": dict(sorted(self.counts.items())), "first": list(self.first), "kinds": kinds}


def places(facts: Mapping[str, Any]) -> list[str]:
    """Of what was left out, as :meth:`Faults.facts` gives it: the first of each kind, archives before all."""
    kinds: Mapping[str, str] = facts.get("kinds") or {}
    ordered = sorted(kinds, key=lambda kind: (kind != ARCHIVE, -facts["counts"].get(kind, 0), kind))
    return list(dict.fromkeys([*(kinds[kind] for kind in ordered), *facts["first"]]))


@dataclass
class FileFaults:
    """The same for one file from its beginning, which is refused if nothing in it can be used.

    Attributes:
      faults: where they are counted.
      begins: whether reading begins at the file's beginning.
      whole: whether all of it is read here.
    """

    faults: Faults
    begins: bool = True
    whole: bool = True
    good: int = 0
    bad: int = 0
    why: T5smithError | None = None

    def add(self, kind: str, error: T5smithError) -> None:
        """Count one.

        Raises:
          T5smithError: if strict, or if nothing else has come from the file yet.
        """
        self.bad += 1
        self.why = self.why or error
        if self.begins and not self.good and self.bad >= HOPELESS:
            raise self.why
        self.faults.add(kind, error)

    def end(self) -> None:
        """The file has been read.

        Raises:
          T5smithError: it gave nothing but faults.
        """
        if self.whole and self.why and not self.good:
            raise self.why
