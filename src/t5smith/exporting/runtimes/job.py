"""What a runtime's module gets, and how it reports a package that is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.exporting.runtimes.comparison import Found, Rows
from t5smith.interop.model import Model


@dataclass(frozen=True)
class Job:
    """A model that is written for a runtime.

    Attributes:
      source: the exported Hugging Face folder.
      folder: where the runtime's files go.
      model: what t5smith reads in `source`, float32.
      dtype: of the weights in `source`.
      python: the Python of the environment with the runtime's converter, if it is another than this.
    """

    source: Path
    folder: Path
    model: Model
    dtype: str
    python: Path | None = None


@dataclass(frozen=True)
class Runtime:
    """A program that runs an exported model.

    Attributes:
      title: its name as it is written.
      check: raises T5smithError if the packages that convert are missing; gets :attr:`Job.python`.
      convert: writes the files.
      run: what the runtime computes for inputs and targets.
      usage: Python that runs the model, in its folder.
      made_by: the packages that convert, with their versions; gets :attr:`Job.python`.
    """

    title: str
    check: Callable[[Path | None], None]
    convert: Callable[[Job], None]
    run: Callable[[Job, Rows, Rows], Found]
    usage: str
    made_by: Callable[[Path | None], dict[str, str]]


def needs(runtime: str, package: str) -> None:
    """Raise T5smithError if a package is not installed here."""
    if importlib.util.find_spec(package) is None:
        fix = f"install it with `pip install {package}`, or export without --for"
        raise T5smithError(f"needs {package}, which is not installed", where=f"--for {runtime}", fix=fix)


def versions(*packages: str) -> dict[str, Any]:
    """The versions of installed packages."""
    return {name: importlib.metadata.version(name) for name in packages}
