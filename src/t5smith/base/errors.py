"""What a user did wrong, said in one line: what, where, what was expected, what to do.

A :class:`T5smithError` is the user's to mend and ends a command with exit code 2 and no traceback.
Everything else that goes wrong is ours and keeps its traceback.
"""


class T5smithError(Exception):
    """A mistake the user can mend.

    Args:
      what: what is wrong, as a clause without a full stop.
      where: the place: ``file``, ``file:line`` or a dotted recipe field such as ``train.steps``.
      expected: what was expected instead.
      fix: what to do about it.
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
