"""Errors that a user can fix, as one line: what is wrong, where, what is expected, how to fix it.

A :class:`T5smithError` ends a command with exit code 2 and without a traceback. All other exceptions are
bugs and keep their traceback.
"""

from __future__ import annotations

from collections.abc import Iterable


class T5smithError(Exception):
    """An error that the user can fix.

    Args:
      what: what is wrong, without a full stop.
      where: the place: ``file``, ``file:line`` or a dotted recipe field such as ``train.steps``.
      expected: what is expected instead.
      fix: how to fix it.
    """

    def __init__(
        self, what: str, *, where: object = None, expected: str | None = None, fix: str | None = None
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.expected = expected
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.expected:
            parts.append(f"expected {self.expected}")
        line = "; ".join(parts)
        if self.fix:
            line += f". {self.fix[0].upper()}{self.fix[1:]}"
        return " ".join(line.split())


class TrainingAtStake(T5smithError):  # noqa: N818 - it names what is at stake
    """A recipe would set trained steps aside, which only `restart` may do. Nothing has been changed.

    Attributes:
      steps: number of trained steps.
    """

    def __init__(
        self, folder: object, steps: int, changes: Iterable[str], *, more: str | None = None
    ) -> None:
        """Describe what is at stake.

        Args:
          folder: the run folder.
          steps: number of trained steps.
          changes: the settings that differ, as `name old → new`.
          more: another way to continue.
        """
        self.steps = steps
        ways = [
            "undo that to continue",
            *([more] if more else []),
            "use --run-dir for a second run",
            "or --restart to move this one to previous/",
        ]
        super().__init__(
            f"{steps:,} steps are trained with other settings: {'; '.join(changes)}; nothing was changed",
            where=folder,
            fix=", ".join(ways),
        )
