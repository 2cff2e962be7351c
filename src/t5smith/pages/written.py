"""Files that a user asks for by name: the ending says the format, and is checked before the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from t5smith.base.errors import T5smithError

PICTURES = ("png", "svg", "pdf")
PAGES = ("html", "htm")


def kind_of(file: Path, flag: str, kinds: Sequence[str]) -> str:
    """The format that the ending of a file's name stands for.

    Args:
      file: the file that is to be written.
      flag: the flag with its name, for the message.
      kinds: the formats that can be written.

    Raises:
      T5smithError: the name has another ending, or none.
    """
    kind = file.suffix.lower().removeprefix(".")
    if kind not in kinds:
        *others, last = (f".{kind}" for kind in kinds)
        what = f"{file} has an unknown ending" if kind else f"{file} has no ending"
        raise T5smithError(what, where=flag, expected=f"{', '.join(others)} or {last}")
    return kind


def write_file(file: Path, data: bytes) -> None:
    """Write a file.

    Raises:
      T5smithError: it cannot be written.
    """
    try:
        file.write_bytes(data)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise T5smithError(f"cannot be written ({reason})", where=file) from None
